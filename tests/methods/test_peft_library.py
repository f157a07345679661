"""`lora` and `dora` against Hugging Face's peft on a timm ViT, and the bridge to it."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import peft
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_vit
from test_contract import BACKBONES, LIBRARY, disturb, module_types, steps, stock
from torch import Tensor, nn

import san
from san.errors import InvalidValueError, MissingPackageError, UnknownNameError
from san.methods import method_module
from san.methods.peft import Kind

KINDS = get_args(Kind)
# Settings for layers of 8 to 32 channels, and where peft's own start is not the pre-trained one.
SMALL: dict[str, dict[str, Any]] = {
    "fourierft": {"n_frequency": 20},
    "miss": {"r": 4},
    "oft": {"oft_block_size": 4},
    "road": {"group_size": 4},
    "shira": {"r": 2},
    "waveft": {"n_frequency": 20},
}


def theirs(targets: list[str], dora: bool) -> nn.Module:
    """peft's model with everything it adds moved away from its start."""
    layers = "|".join(targets)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=rf"blocks\.\d+\.(attn|mlp)\.({layers})",
        use_dora=dora,
        modules_to_save=["head"],
    )
    model = peft.get_peft_model(tiny_vit().double(), config)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.add_(torch.randn_like(p), alpha=0.1)
    return model.eval()


def our_name(theirs: str) -> str:
    """Our name of a parameter of peft's."""
    stock = theirs.removeprefix("base_model.model.").replace("modules_to_save.default.", "")
    for old, new in (
        ("lora_magnitude_vector.default.weight", "magnitude"),
        ("lora_A.default.weight", "lora_a"),
        ("lora_B.default.weight", "lora_b"),
    ):
        stock = stock.replace(old, new)
    return stock


def ours(targets: list[str], dora: bool, model: nn.Module) -> tuple[san.Adapter, dict[str, Tensor]]:
    """Our model with peft's values, and peft's trained tensors by our names."""
    method = "dora" if dora else "lora"
    adapter = san.attach(tiny_vit().double(), method, rank=4, alpha=6, targets=targets)
    found = {our_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    parameters = dict(adapter.model.named_parameters())
    assert found.keys() == set(adapter.trainable)
    with torch.no_grad():
        for name, p in found.items():
            parameters[name].copy_(p.reshape(parameters[name].shape))
    adapter.model.eval()
    return adapter, found


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("targets", [["qkv"], ["qkv", "proj", "fc1", "fc2"]])
def test_equal_to_peft(targets: list[str], dora: bool) -> None:
    model = theirs(targets, dora)
    adapter, found = ours(targets, dora, model)
    torch.manual_seed(5)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    labels = torch.arange(4)
    a = adapter.model(images)
    b = model(images)
    assert (a - b).abs().max() < 1e-12
    assert (a - tiny_vit().double().eval()(images)).abs().max() > 1e-3
    F.cross_entropy(a, labels).backward()
    F.cross_entropy(b, labels).backward()
    gradients = {name: p.grad for name, p in adapter.model.named_parameters()}
    for name, p in found.items():
        assert (gradients[name].reshape(p.shape) - p.grad).abs().max() < 1e-12, name
    assert (adapter.merge()(images) - b).abs().max() < 1e-12


def bridged(kind: str, backbone: str = "vit", **settings: Any) -> tuple[san.Adapter, Tensor]:
    """A tiny model in float64 with a kind of peft's, and images for it."""
    _, side = BACKBONES[backbone]
    model = stock(backbone).double()
    torch.manual_seed(1)
    adapter = san.attach(model, "peft", kind=kind, settings=SMALL.get(kind, {}) | settings)
    return adapter, torch.randn(8, 3, side, side, dtype=torch.float64)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("targets", [["qkv"], ["qkv", "proj", "fc1", "fc2"]])
def test_the_bridge_is_peft_itself(targets: list[str], dora: bool) -> None:
    """Through the bridge, the same function and gradients as `get_peft_model` gives, and ours."""
    model = theirs(targets, dora)
    settings = {"r": 4, "lora_alpha": 6, "use_dora": dora}
    adapter = san.attach(tiny_vit().double(), "peft", targets=targets, settings=settings)
    parameters = dict(adapter.model.named_parameters())
    found = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            place = name.removeprefix("base_model.model.").replace("modules_to_save.default.", "")
            found[place.replace(".lora_", ".peft.lora_")] = p
    assert found.keys() == set(adapter.trainable)
    with torch.no_grad():
        for name, p in found.items():
            parameters[name].copy_(p)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for each in (model, adapter.model.eval()):
        F.cross_entropy(each(images), torch.arange(4)).backward()
    assert torch.equal(adapter.model(images), model(images))
    for name, p in found.items():
        assert torch.equal(parameters[name].grad, p.grad), name
    our_lora, _ = ours(targets, dora, model)
    assert (our_lora.model(images) - adapter.model(images)).abs().max() < 1e-12


def test_pissa_is_that_of_peft() -> None:
    """peft takes singular vectors in float32, and writes what is left into the frozen weight."""
    layers = r"blocks\.\d+\.(attn|mlp)\.(qkv|proj|fc1|fc2)"
    config = peft.LoraConfig(r=8, target_modules=layers, init_lora_weights="pissa")
    model = peft.get_peft_model(tiny_vit(), config)
    adapter = san.attach(tiny_vit(), "pissa")
    images = torch.randn(4, 3, 16, 16)
    parameters = dict(adapter.model.named_parameters())
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                place = name.removeprefix("base_model.model.").replace(".lora_", ".peft.lora_")
                assert torch.allclose(parameters[place], p, atol=1e-6)
                p.mul_(1.1)
                parameters[place].copy_(p)
    assert torch.allclose(adapter.model(images), model(images), atol=1e-5)


OTHERS = [pytest.param(name, marks=pytest.mark.cells) for name in BACKBONES if name != "vit"]


@pytest.mark.parametrize("backbone", ["vit", *OTHERS])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_restores_and_merges(kind: str, backbone: str, tmp_path: Path) -> None:
    if (kind, backbone) == ("beft", "eva"):
        with pytest.raises(InvalidValueError, match="the base layer has no bias term"):
            bridged(kind, backbone)
        return
    adapter, images = bridged(kind, backbone)
    model = adapter.model
    start = model.eval()(images)
    steps(model, images, 1)
    assert not torch.equal(model(images), start)
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == set(adapter.trainable)
    names = dict(stock(backbone).named_parameters())
    assert names.keys() <= dict(model.named_parameters()).keys()
    before = model.eval()(images)
    adapter.save(tmp_path / "a.safetensors")
    torch.manual_seed(3)
    fresh = stock(backbone).double().eval()
    plain = fresh(images)
    again = san.restore(fresh, tmp_path / "a.safetensors")
    assert torch.equal(fresh(images), before)
    assert torch.equal(again.detach()(images), plain)
    disturb(model)
    before = model(images)
    if kind == "lily":
        with pytest.raises(InvalidValueError, match="peft cannot merge its "):
            adapter.merge()
        assert torch.equal(model(images), before)
        return
    assert torch.allclose(adapter.merge()(images), before, atol=1e-10)
    assert module_types(model) == module_types(stock(backbone))


def test_every_preset_is_of_a_kind() -> None:
    presets = method_module("peft").PRESETS
    assert set(presets) == LIBRARY
    assert len(LIBRARY) == 12
    assert {preset.get("kind", "lora") for preset in presets.values()} <= set(KINDS)
    assert len(KINDS) == 22


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "prefix_tuning"}, UnknownNameError, "Unknown method.kind 'prefix_tuning'"),
        ({"kind": "lorra"}, UnknownNameError, r"Did you mean lora"),
        ({"targets": ["q"]}, UnknownNameError, "Unknown target 'q'.* Allowed: qkv, proj"),
        ({"settings": {"lora_alfa": 1}}, UnknownNameError, r"of lora 'lora_alfa'\. Did you mean"),
        ({"settings": {"bias": "all"}}, UnknownNameError, "Unknown setting of lora 'bias'"),
        (
            {"settings": {"r": "8"}},
            InvalidValueError,
            r"method\.settings\.r came as '8'; allowed: `",
        ),
        ({"settings": {"r": 0}}, InvalidValueError, "peft does not take them for 'lora' .*r"),
        ({"settings": {"init_lora_weights": "eva"}}, InvalidValueError, "came as 'eva'; allowed"),
        (
            {"kind": "shira", "settings": {"r": 2, "random_seed": None}},
            InvalidValueError,
            "a number",
        ),
        ({"kind": "oft", "settings": {"oft_block_size": 5}}, InvalidValueError, "Adjusted"),
        ({"kind": "adalora", "settings": {"tinit": 5}}, InvalidValueError, "between the steps"),
        ({"kind": "adalora", "settings": {"total_step": 5}}, UnknownNameError, "total_step"),
        ({"kind": "pissa", "settings": {"init_lora_weights": True}}, UnknownNameError, "init_lora"),
    ],
)
def test_what_would_go_wrong_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = tiny_vit()
    with pytest.raises(error, match=message):
        san.attach(model, "peft", **options)
    assert module_types(model) == module_types(tiny_vit())
    assert all(p.requires_grad for p in model.parameters())


def test_olora_leaves_the_stock_weights_alone() -> None:
    adapter, images = bridged("lora", init_lora_weights="olora")
    plain = tiny_vit().double()
    assert torch.allclose(adapter.model(images), plain(images), atol=1e-12)
    for name, p in plain.named_parameters():
        assert torch.equal(dict(adapter.model.named_parameters())[name], p)


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(san.methods, "find_spec", lambda package: None)
    with pytest.raises(MissingPackageError, match=r"'oft' needs peft: pip install .*\[peft\]"):
        san.attach(tiny_vit(), "oft")


def test_it_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, san.methods; san.methods.discover_methods(); print('peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.filterwarnings("default")  # as in a program
def test_what_peft_only_warns_of_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="Adjusted"):
        san.attach(tiny_vit(), "oft", settings={"oft_block_size": 5})
    with pytest.raises(UnknownNameError, match="Allowed: init_r"):
        san.attach(tiny_vit(), "adalora", settings={"r": 3})


@pytest.mark.parametrize("kind", ["lora", "pissa"])
def test_frozen_tensors_that_are_exchanged_are_read(kind: str) -> None:
    model = san.attach(tiny_vit().double().eval(), "peft", kind=kind).model
    images = torch.randn(2, 3, 16, 16).double()
    before = model(images)
    doubled = {name: 2 * value for name, value in model.state_dict().items()}
    model.load_state_dict(doubled)
    expected = model(images)
    model.load_state_dict({name: value / 2 for name, value in doubled.items()})
    assert torch.allclose(model(images), before)
    model.load_state_dict(doubled, assign=True)
    assert torch.equal(model(images), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "vera", "settings": {"r": -1}}, r"settings\.r came as -1; allowed: 0 or more"),
        ({"kind": "oft", "settings": {"oft_block_size": 1}}, "trains nothing|does not take"),
        ({"kind": "adalora", "settings": {"init_r": 0}}, "trains nothing"),
        ({"kind": "lora", "settings": {"lora_dropout": 1.0}}, "allowed: from 0, below 1"),
        ({"kind": "lokr", "settings": {"decompose_factor": -7}}, "0 or more, or -1"),
        ({"kind": "randlora", "settings": {"r": 0}}, "method.settings came as r=0"),
    ],
)
def test_settings_without_sense_are_refused(options: dict[str, Any], message: str) -> None:
    model = tiny_vit()
    with pytest.raises(InvalidValueError, match=message):
        san.attach(model, "peft", **options)
    assert module_types(model) == module_types(tiny_vit())
