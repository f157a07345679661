"""Adapters that are taken out of their model and put in again, cell by cell of the contract."""

import ast
import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import tiny_convnext, tiny_swin, tiny_vit
from statements import installed_methods
from test_contract import CELLS, REFUSED, attached, module_types, steps, stock
from torch import Tensor, nn

import san
from san import methods
from san.adapter import attach as attach_module
from san.adapter import switch
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
    names = installed_methods()
    assert {method for method, _ in SWITCHED} == set(names)
    assert {backbone for _, backbone in SWITCHED} == {"vit", "swin", "convnext", "eva"}
    assert len(SWITCHED) + len(refused) == len(names) * 4
    assert len(names) > 15


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


@pytest.mark.parametrize(("method", "backbone"), SWITCHED)
def test_what_comes_back_has_moved_with_the_model(method: str, backbone: str) -> None:
    """Attached on the CPU, moved, taken out: here `meta` is the other device."""
    adapter, _ = attached(method, backbone)
    model = adapter.model.to("meta")
    for out in (adapter.disable, adapter.detach):
        tensors = dict(out().state_dict())
        assert len(tensors) > 10
        assert {name for name, t in tensors.items() if t.device.type != "meta"} == set()
    assert [p.requires_grad for p in model.parameters()] == [True] * len(list(model.parameters()))


class Injected(BaseException):
    """What Ctrl-C is: no Exception."""


class FailsAt:
    """Makes one call of a function fail, by its number. calls: how many there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> None:
        self.original = getattr(place, name)
        self.last = -1
        self.calls = 0
        outer = self

        def call(*args: Any, **kwargs: Any) -> Any:
            outer.calls += 1
            if outer.calls - 1 == outer.last:
                raise Injected
            return outer.original(*args, **kwargs)

        monkeypatch.setattr(place, name, call)

    def arm(self, last: int) -> None:
        self.last = last
        self.calls = 0


def everything_of(model: nn.Module) -> list[Any]:
    """All that a switch may alter, by identity, and the numbers."""
    found: list[Any] = []
    for module in model.modules():
        for name, value in vars(module).items():
            entries = list(value.items()) if isinstance(value, dict) else [(None, value)]
            found += [(id(module), name, key, id(entry)) for key, entry in entries]
        found.append((id(module), module.training))
    for name, p in model.named_parameters():
        found.append((name, p.requires_grad, p.dtype, p.device, p.detach().sum().item()))
    return found


PLACES = [
    (switch._Change, "put"),
    (nn.Module, "to"),
    (nn.Module, "train"),
    (nn.Module, "_apply"),
    (nn.Parameter, "requires_grad_"),
]


@pytest.mark.parametrize(("place", "name"), PLACES)
@pytest.mark.parametrize("method", ["san", "full", "vpt_deep"])
def test_a_switch_that_fails_anywhere_alters_nothing(
    method: str, place: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, images = attached(method, "swin")
    model = adapter.model.eval()
    steps(model, images, 1)
    failures = 0
    fails = FailsAt(monkeypatch, place, name)
    for action, other in ((adapter.disable, torch.float64), (adapter.enable, torch.float32)):
        fails.arm(-1)
        model.to(other)  # so that what enters has to move
        state = adapter.attachment.state
        before = everything_of(model)
        own = {key: (id(p), p.dtype) for key, p in adapter.named_parameters()}
        for last in (*range(12), *range(12, 3000, 37)):
            fails.arm(last)
            try:
                action()
            except Injected:
                failures += 1
            else:
                break
            fails.arm(-1)
            assert adapter.attachment.state is state
            assert everything_of(model) == before
            assert {key: (id(p), p.dtype) for key, p in adapter.named_parameters()} == own
        assert adapter.attachment.state is not state
    assert failures > 1
    fails.arm(-1)
    model(images)


def test_what_failed_to_move_comes_back_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A move to half and back would have rounded it."""
    adapter, images = attached("san", "vit")
    model = adapter.model.eval()
    steps(model, images, 1)
    expected = model(images)
    adapter.disable()
    model.half()
    fails = FailsAt(monkeypatch, switch._Change, "put")
    fails.arm(3)
    with pytest.raises(Injected):
        adapter.enable()
    fails.arm(-1)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    model.float()
    adapter.enable()
    assert torch.allclose(model(images), expected, atol=1e-2)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["own_head", "attach_for_good", "own_parameters", "Switch"])
def test_an_attachment_that_is_interrupted_leaves_the_model_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_vit()
    before = everything_of(model)
    FailsAt(monkeypatch, attach_module, name).arm(0)
    with pytest.raises(Injected):
        san.attach(model, "san")
    assert everything_of(model) == before


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
    with pytest.raises(InvalidValueError, match="Cannot detach this adapter: 'lora' has been mer"):
        two.detach()
    with pytest.raises(InvalidValueError, match="has been merged"):
        list(two.parameters())
    gone = san.attach(tiny_vit(), "ssf")
    gone.detach()
    for action in (gone.enable, gone.disable, gone.merge, lambda: list(gone.parameters())):
        with pytest.raises(InvalidValueError, match="'ssf' was detached and is gone"):
            action()
    for action in ("disable", "detach"):
        message = f"Cannot {action} this adapter: 'norm' was attached for good"
        with pytest.raises(InvalidValueError, match=message):
            getattr(attach_for_good(tiny_vit(), "norm"), action)()


def test_swapped_arguments_are_told_in_words(tmp_path: Path) -> None:
    model = tiny_vit()
    path = tmp_path / "a.safetensors"
    calls = {
        lambda: san.attach("ssf", model): "str 'ssf' in the place of the model; the right call is "
        r"san.attach\(model, method\)",
        lambda: san.attach(None, "ssf"): "NoneType None in the place of the model",
        lambda: san.attach(model, model): "VisionTransformer in the place of the method",
        lambda: san.attach(model, 3): "int 3 in the place of the method",
        lambda: attach_for_good("ssf", model): "str 'ssf' in the place of the model",
        lambda: san.restore(path, model): r"PosixPath.* right call is san.restore\(model, path\)",
        lambda: san.restore(str(path), model): "in the place of the model",
        lambda: san.restore(model, model): "VisionTransformer in the place of the path",
        lambda: san.load(model): "VisionTransformer in the place of the path",
    }
    for call, message in calls.items():
        with pytest.raises(InvalidValueError, match=message):
            call()
    assert_same_model(model, tiny_vit())


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


def test_whatever_measures_a_run_attaches_as_a_run_does() -> None:
    """`san.attach` keeps copies, which take memory and time to make."""
    root = Path(san.__file__).parents[1]
    programs = [*(root / "benchmarks").rglob("*.py"), *(root / "san").rglob("*.py")]
    lasting = []
    for path in programs:
        if path.parent.name == "adapter" or path == Path(san.__file__):
            continue
        used = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "san.adapter.attach":
                used |= {alias.name for alias in node.names}
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.add(f"{node.value.id}.{node.attr}")
        assert not used & {"attach", "san.attach"}, path
        if "attach_for_good" in used:
            lasting.append(path.name)
    assert sorted(lasting) == ["cuda_check.py", "disk.py", "run.py", "step_time.py"]


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
    for method in installed_methods():
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
    # No tag of weights that nobody has loaded.
    named = san.attach(timm.create_model("vit_tiny_patch16_224", num_classes=3), "ssf")
    assert "on vit_tiny_patch16_224, attached" in repr(named)


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
