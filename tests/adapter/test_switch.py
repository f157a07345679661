"""Adapters that are taken out of their model and put in again, cell by cell of the contract."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_convnext, tiny_swin, tiny_vit
from test_contract import CELLS, REFUSED, attached, module_types, steps, stock
from torch import Tensor, nn

import san
from san import methods
from san.adapter.attach import attach_for_good
from san.errors import InvalidValueError

FAMILIES = [tiny_vit, tiny_swin, tiny_convnext]
# Of the two plain ViTs of the contract one is enough.
SWITCHED = [cell for cell in CELLS if cell[1] != "dino"]


def hooks_of(model: nn.Module) -> dict[str, list[Any]]:
    """The hooks of every module, by name."""
    found = {}
    for name, module in model.named_modules():
        hooks = []
        for table, value in vars(module).items():
            if "_hooks" in table:
                hooks += value.values()
        found[name] = hooks
    return found


def assert_same_model(model: nn.Module, other: nn.Module) -> None:
    """Assert that two models have the same parts, and equal tensors with the same flags."""
    assert module_types(model) == module_types(other)
    assert list(model.state_dict()) == list(other.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    flags = [(name, p.requires_grad) for name, p in model.named_parameters()]
    assert flags == [(name, p.requires_grad) for name, p in other.named_parameters()]
    assert not any(hooks_of(model).values())
    assert vars(model).keys() == vars(other).keys()


def test_every_method_is_switched_on_every_family() -> None:
    refused = [cell for cell in REFUSED if cell[1] != "dino"]
    assert {method for method, _ in SWITCHED} == set(methods.method_names())
    assert {backbone for _, backbone in SWITCHED} == {"vit", "swin", "convnext", "eva"}
    assert len(SWITCHED) + len(refused) == len(methods.method_names()) * 4
    assert len(methods.method_names()) > 15


@pytest.mark.parametrize(("method", "backbone"), SWITCHED)
def test_out_is_the_stock_model_and_in_is_the_adapted_one(method: str, backbone: str) -> None:
    adapter, images = attached(method, backbone)
    model = adapter.model
    other = stock(backbone)
    expected = other.eval()(images)
    steps(model, images, 1)
    adapted = model.eval()(images)
    trained = {name: p.detach().clone() for name, p in adapter.named_parameters()}
    assert tuple(trained) == adapter.trainable
    assert not torch.equal(adapted, expected)
    for _ in range(2):
        assert adapter.disable() is adapter.disable()
        assert_same_model(model, other)
        assert torch.equal(model(images), expected)
        kept = dict(adapter.named_parameters())
        assert all(torch.equal(kept[name], value) for name, value in trained.items())
        assert adapter.enable() is adapter.enable()
        assert torch.equal(model(images), adapted)
        training = {name for name, p in model.named_parameters() if p.requires_grad}
        assert training == set(adapter.trainable)
    with adapter.disabled() as plain:
        assert torch.equal(plain(images), expected)
    assert torch.equal(model(images), adapted)
    steps(model, images, 1)
    assert adapter.detach() is adapter.detach()
    assert_same_model(model, other)
    assert torch.equal(model(images), expected)


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize(("first", "second"), [("san", "lora"), ("full", "ssf"), ("ssf", "norm")])
def test_two_tasks_with_other_classes_share_a_backbone(make, first: str, second: str) -> None:
    model = make()
    options = {"targets": ["fc1"]} if second == "lora" else {}
    side = 16 if make is tiny_vit else 32
    images = torch.randn(4, 3, side, side)
    original = copy.deepcopy(model.eval())
    one = san.attach(model, first)
    steps(model, images, 2)
    ten_classes = model.eval()(images)
    one.disable()
    model.reset_classifier(7)
    two = san.attach(model, second, **options)
    steps(model, images, 2)
    seven_classes = model.eval()(images)
    assert seven_classes.shape == (4, 7)
    for _ in range(2):
        two.disable()
        one.enable()
        assert model.num_classes == 10
        assert torch.equal(model(images), ten_classes)
        one.disable()
        two.enable()
        assert model.num_classes == 7
        assert torch.equal(model(images), seven_classes)
    two.detach()
    features = model.forward_features(images)
    assert torch.equal(features, original.forward_features(images))


def test_an_optimizer_goes_on_after_a_switch() -> None:
    adapter, images = attached("san", "vit")
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    adapter.disable()
    adapter.enable()
    before = adapter.model(images)
    before.square().sum().backward()
    optimizer.step()
    assert not torch.equal(adapter.model(images), before)
    assert len(optimizer.param_groups[0]["params"]) == len(adapter.trainable) > 0


def test_the_flags_hooks_and_modes_of_the_user_stay() -> None:
    model = tiny_vit().train()
    model.blocks[1].eval()
    model.patch_embed.requires_grad_(False)
    seen: list[Tensor] = []
    model.head.register_forward_hook(lambda _module, _inputs, y: seen.append(y))
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    adapter = san.attach(model, "san")
    model(torch.randn(1, 3, 16, 16))
    assert len(seen) == 1
    adapter.detach()
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert {name: module.training for name, module in model.named_modules()} == modes
    model(torch.randn(1, 3, 16, 16))
    assert len(seen) == 2


def test_dropout_follows_the_mode_that_the_model_has_by_now() -> None:
    model = tiny_vit().train()
    adapter = san.attach(model, "vpt_deep", dropout=0.5)
    adapter.disable()
    model.eval()
    adapter.enable()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), model(images))
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("method", ["san", "full", "vpt_deep", "adapter", "linear"])
def test_what_is_out_follows_the_type_of_the_model(method: str) -> None:
    model = tiny_swin().eval()
    images = torch.randn(2, 3, 32, 32)
    expected = copy.deepcopy(model).double()(images.double())
    adapter = san.attach(model, method)
    adapter.disable()
    model.double()
    adapter.enable()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    model(images.double())
    assert torch.equal(adapter.detach()(images.double()), expected)


def test_tied_tensors_are_copied_once() -> None:
    model = tiny_vit()
    blocks = model.blocks
    blocks[1].norm1.weight = blocks[0].norm1.weight
    adapter = san.attach(model, "norm")
    assert blocks[1].norm1.weight is blocks[0].norm1.weight
    own = blocks[0].norm1.weight
    adapter.disable()
    assert blocks[1].norm1.weight is blocks[0].norm1.weight is not own


def test_a_failed_attachment_leaves_the_model_alone() -> None:
    for options in ({"blocks": 9}, {"blocks": 0}):
        model = tiny_vit()
        with pytest.raises(InvalidValueError):
            san.attach(model, "partial", **options)
        assert_same_model(model, tiny_vit())
    model = tiny_vit()
    with pytest.raises(InvalidValueError):
        san.attach(model, "lora", targets=["q", "qkv"])
    assert_same_model(model, tiny_vit())


def test_an_old_word_is_remarked_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        san.attach(tiny_vit(), "vpt_deep", length=3)
    assert len(caplog.records) == 1


def test_errors_in_words(tmp_path: Path) -> None:
    model = tiny_vit()
    one = san.attach(model, "san")
    one.disable()
    for action in (one.merge, lambda: one.save(tmp_path / "a.safetensors")):
        with pytest.raises(InvalidValueError, match=r"'san' is disabled: call enable\(\) first"):
            action()
    two = san.attach(model, "lora")
    with pytest.raises(InvalidValueError, match="'san' cannot be enabled: 'lora' is attached now"):
        one.enable()
    with pytest.raises(InvalidValueError, match="has 'lora' attached already; call its detach"):
        san.attach(model, "ssf")
    two.merge()
    with pytest.raises(InvalidValueError, match="The model has changed since"):
        one.enable()
    assert not hasattr(model, "adapted_by")
    with pytest.raises(InvalidValueError, match="Cannot disable this adapter: 'lora' has been mer"):
        two.disable()
    with pytest.raises(InvalidValueError, match="has been merged"):
        list(two.parameters())
    gone = san.attach(tiny_vit(), "ssf")
    gone.detach()
    for action in (gone.enable, gone.disable, gone.merge, lambda: list(gone.parameters())):
        with pytest.raises(InvalidValueError, match="'ssf' was detached and is gone"):
            action()
    with pytest.raises(InvalidValueError, match="'norm' was attached for good"):
        attach_for_good(tiny_vit(), "norm").disable()


def test_vpt_is_not_enabled_in_a_merged_model() -> None:
    """It replaces nothing: only the tensors tell that the model is another by now."""
    model = tiny_vit()
    prompts = san.attach(model, "vpt_deep")
    prompts.disable()
    san.attach(model, "lora").merge()
    with pytest.raises(InvalidValueError, match="The model has changed since"):
        prompts.enable()


def test_a_run_keeps_no_copy() -> None:
    model = tiny_vit()
    tensors = {id(p) for p in model.parameters()}
    attach_for_good(model, "full")
    assert {id(p) for p in model.parameters()} == tensors


def test_a_restored_adapter_is_switched(tmp_path: Path) -> None:
    adapter, images = attached("san", "vit")
    steps(adapter.model, images, 1)
    adapter.save(tmp_path / "a.safetensors")
    expected = adapter.model.eval()(images)
    model = stock("vit").eval()
    plain = model(images)
    again = san.restore(model, tmp_path / "a.safetensors")
    assert torch.equal(model(images), expected)
    assert torch.equal(again.disable()(images), plain)
    third = san.restore(model, tmp_path / "a.safetensors")
    assert torch.equal(model(images), expected)
    assert torch.equal(third.detach()(images), plain)


def test_a_repr_fits_a_screen() -> None:
    for method in methods.method_names():
        adapter, _ = attached(method, "vit")
        text = repr(adapter)
        assert len(text) < 300
        assert "\n" not in text
        assert f"<Adapter {method}(" in text
        assert f"{adapter.counts.trainable:,} of {adapter.counts.total:,}" in text
    adapter = san.attach(tiny_vit(), "lora", rank=2)
    assert "lora(rank=2) on VisionTransformer, attached" in repr(adapter)
    adapter.disable()
    assert "VisionTransformer, disabled" in repr(adapter)


def test_the_package_is_typed_and_names_what_it_has() -> None:
    assert (Path(san.__file__).parent / "py.typed").is_file()
    assert set(san.__all__) <= set(dir(san))
    assert {name for name in san.__all__ if getattr(san, name) is not None} == set(san.__all__)
    with pytest.raises(AttributeError, match="no attribute 'wings'"):
        _ = san.wings


def test_the_help_names_every_method_and_option() -> None:
    text = san.attach.__doc__
    for method in methods.method_names():
        line = text.partition(f"\n{method}: ")[2].partition("\n    ")
        title = (methods.method_module(method).__doc__ or "").partition("\n")[0]
        assert line[0] == title
        described = " ".join(line[2].partition("\n\n")[0].split())
        for option, default in methods.default_options(method).items():
            assert f"{option}={default!r}" in described
