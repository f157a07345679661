"""Options of methods: the values, names and calls that are refused, and old names."""

import logging
from typing import Any

import pytest
import timm
from conftest import tiny_convnext, tiny_vit

import san
from san import methods, renamed_keys
from san.errors import InvalidValueError, UnknownNameError, UnsupportedModelError


@pytest.mark.parametrize(
    ("method", "option", "value", "allowed"),
    [
        ("vpt_deep", "num_prompts", 0, "`int` >= 1"),
        ("partial", "blocks", 0, "`int` >= 1"),
        ("partial", "blocks", 3, "1 to 2 on this backbone"),
        ("adaptformer", "bottleneck_dim", 0, "`int` >= 1"),
        ("adaptformer", "bottleneck_dim", 8.0, "`int`"),
        ("adapter", "dropout", 1.0, "`float` < 1"),
        ("adapter", "init_std", -1.0, "`float` >= 0"),
        ("adapter", "scale", float("nan"), "a finite number"),
        ("adapter_plus", "drop_path", 1.0, "`float` < 1"),
        ("ssf", "init_std", -1.0, "`float` >= 0"),
        ("lora", "rank", 0, "`int` >= 1"),
        ("lora", "rank", True, "`int`"),
        ("lora", "dropout", -0.1, "`float` >= 0"),
        ("lora", "scale", float("nan"), "a finite number"),
        ("lora", "alpha", float("inf"), "a finite number"),
        ("san", "train_norms", 1, "`bool`"),
    ],
)
def test_values_out_of_range_are_refused(
    method: str, option: str, value: float, allowed: str
) -> None:
    model = tiny_vit()
    before = dict(model.named_parameters()).keys()
    with pytest.raises(InvalidValueError) as caught:
        san.attach(model, method, **{option: value})
    assert f"method.{option} came as {value}; allowed: {allowed}" in str(caught.value)
    assert before == dict(model.named_parameters()).keys()  # nothing is half attached


def test_values_are_converted_to_their_types() -> None:
    options = methods.check_options("lora", {"scale": 3, "alpha": 16, "targets": ["fc1"]})
    assert type(options["scale"]) is type(options["alpha"]) is float
    assert options["targets"] == ("fc1",)
    assert methods.check_options("lora", {"alpha": None})["alpha"] is None


@pytest.mark.parametrize(
    ("method", "old", "current"),
    [
        ("adapter", {"width": 4, "std": 0.0}, {"bottleneck_dim": 4, "init_std": 0.0}),
        ("adapter_plus", {"width": 4, "std": 0.0}, {"bottleneck_dim": 4, "init_std": 0.0}),
        ("adaptformer", {"width": 4}, {"bottleneck_dim": 4}),
        ("ssf", {"std": 0.1}, {"init_std": 0.1}),
        ("vpt_deep", {"length": 3, "place": "end"}, {"num_prompts": 3, "position": "append"}),
        ("vpt_shallow", {"place": "front"}, {"position": "prepend"}),
        (
            "san",
            {"norms": False, "neurons": False},
            {"train_norms": False, "train_output_scale": False},
        ),
        ("san_lora", {"norms": True}, {"train_norms": True}),
    ],
)
def test_old_names_of_options_still_work(
    method: str,
    old: dict[str, Any],
    current: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renamed_keys, "_warned", set())
    expected = methods.check_options(method, current)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert methods.check_options(method, old, warn=False) == expected
        assert not caplog.records
        assert methods.check_options(method, old) == expected
    said = " ".join(caplog.messages)
    assert all(f"method.{name}" in said for name in (old.keys() | current.keys()))
    with pytest.raises(InvalidValueError, match="came by its old name, too; give one of them"):
        methods.check_options(method, old | current)


@pytest.mark.parametrize(
    ("make", "targets", "message"),
    [
        (tiny_vit, ["q", "qkv"], "not qkv with slices of it"),
        (tiny_vit, ["fc3"], r"Unknown target 'fc3'\. Did you mean fc\d"),
        (tiny_vit, [1], r"method\.targets came as \[1\]"),
        (tiny_vit, "q", r"method\.targets came as 'q'; allowed: `array`"),
        (
            tiny_convnext,
            ["q", "v"],
            "'lora' cannot be used on a ConvNeXt: it has no q, v; "
            r".*targets=\[fc1,fc2\] is allowed",
        ),
        (lambda: tiny_convnext(conv_mlp=True), ["fc1"], "targets that it has: none"),
    ],
)
def test_other_targets_are_refused(make, targets: Any, message: str) -> None:
    with pytest.raises((InvalidValueError, UnknownNameError), match=message):
        san.attach(make(), "lora", targets=targets)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("sann", {}, r"Unknown method 'sann'\. Did you mean san"),
        (
            "san",
            {"propagaton": "off"},
            r"Unknown option of san 'propagaton'\. Did you mean propagation",
        ),
        ("full", {"model": 1}, "Unknown option of full 'model'.* Allowed: none"),
        (
            "san",
            {"qkv_anterior": "next"},
            "Unknown method.qkv_anterior 'next'. Allowed: patch, preceding",
        ),
    ],
)
def test_unknown_names_say_what_is_near(method: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        san.attach(tiny_vit(), method, **options)


def test_impossible_calls_say_what_to_do() -> None:
    with pytest.raises(InvalidValueError, match="train_output_scale=false trains the scales of"):
        san.attach(tiny_vit(), "san", train_output_scale=False, propagation="off")
    model = tiny_vit()
    san.attach(model, "ssf")
    with pytest.raises(
        InvalidValueError, match=r"has 'ssf' attached already; call its detach\(\) or disable\(\)"
    ):
        san.attach(model, "san")
    with pytest.raises(UnsupportedModelError, match="No sites are known for a ResNet"):
        san.attach(timm.create_model("resnet10t"), "san")


def test_a_method_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="came with NoneType None in the place of the met"):
        san.attach(tiny_vit(), None)
