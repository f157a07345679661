"""SAN's arms: the untied input scale against formulas written out, and scales that start spread."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import tiny_convnext, tiny_dino, tiny_eva, tiny_swin, tiny_vit
from test_methods import convnext_wiring, randomise, swin_wiring
from torch import Tensor, nn

import san
from san.errors import InvalidValueError

FAMILIES = (tiny_vit, tiny_dino, tiny_eva, tiny_swin, tiny_convnext)
PRESETS = ("san", "san_neurons", "san_recalibrated")
BLOCK = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def wiring(make: Callable[[], nn.Module]) -> dict[str, str | None]:
    """Every scaled site, and the anterior site where it has one, proj aside."""
    if make is tiny_swin:
        return swin_wiring(preceding=False)
    if make is tiny_convnext:
        return convnext_wiring(preceding=False)
    known: dict[str, str | None] = {"patch_embed.proj": None}
    for block in (0, 1):
        for part in BLOCK:
            known[f"blocks.{block}.{part}"] = None if part == "attn.proj" else "some"
    return known


def places(make: Callable[[], nn.Module], at_proj: bool) -> set[str]:
    """The sites that have an input scale."""
    fed = {name for name, anterior in wiring(make).items() if anterior is not None}
    projections = {name for name in wiring(make) if name.endswith("attn.proj")}
    return fed | projections if at_proj else fed


def input_scales(model: nn.Module) -> set[str]:
    """The sites that have an input scale in a model."""
    names = (name for name, _ in model.named_modules())
    return {name.removesuffix(".pre") for name in names if name.endswith(".pre")}


def written_out(layer: nn.Module, s: Tensor, r: Tensor | None) -> dict[str, Tensor]:
    """diag(s) W diag(r) and s * b of a stock layer."""
    weight = layer.weight.detach()
    columns = torch.ones_like(s[:1]) if r is None else r
    if isinstance(layer, nn.Linear):
        scaled = torch.diag(s) @ weight @ torch.diag(columns.expand(layer.in_features))
    elif layer.groups > 1:
        assert layer.groups == layer.in_channels == layer.out_channels
        scaled = torch.einsum("o,oihw,o->oihw", s, weight, columns)
    else:
        scaled = torch.einsum("o,oihw,i->oihw", s, weight, columns.expand(layer.in_channels))
    bias = {} if layer.bias is None else {"bias": s * layer.bias.detach()}
    return {"weight": scaled} | bias


@pytest.mark.parametrize("proj_anterior", ["none", "v", "qkv"])
@pytest.mark.parametrize("make", [tiny_vit, tiny_swin, tiny_convnext])
def test_untied_is_diag_s_w_diag_r(make: Callable[[], nn.Module], proj_anterior: str) -> None:
    """Outputs, and the gradients of every s and r, of the formula by autograd in float64."""
    model = make().double().eval()
    options = {"propagation": "untied", "proj_anterior": proj_anterior, "train_norms": False}
    san.attach(model, "san", **options)
    randomise(model, {"scale"})
    side = 16 if make is tiny_vit else 32
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    weights = torch.randn(2, 10, dtype=torch.float64)
    ours = model(images)
    (ours * weights).sum().backward()
    found = {name: p for name, p in model.named_parameters() if name.endswith(".scale")}

    stock = make().double().eval()
    fed = places(make, at_proj=proj_anterior != "none")
    values = {name: p.detach().clone().requires_grad_() for name, p in found.items()}
    assert values.keys() == {f"{n}.scale" for n in wiring(make)} | {f"{n}.pre.scale" for n in fed}
    tensors = {}
    for name in wiring(make):
        s = values[f"{name}.scale"]
        r = values.get(f"{name}.pre.scale")
        for part, tensor in written_out(stock.get_submodule(name), s, r).items():
            tensors[f"{name}.{part}"] = tensor
    theirs = torch.func.functional_call(stock, tensors, (images,))
    (theirs * weights).sum().backward()
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert not torch.allclose(ours, stock(images), atol=1e-2)
    for name, p in found.items():
        assert torch.allclose(p.grad, values[name].grad, rtol=1e-10, atol=1e-11), name
        assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("proj_anterior", ["none", "v", "qkv"])
@pytest.mark.parametrize("make", FAMILIES)
def test_untied_has_scales_where_recalibrated_has_them(make, proj_anterior: str) -> None:
    arms = {
        arm: san.attach(make(), "san", propagation=arm, proj_anterior=proj_anterior)
        for arm in ("untied", "recalibrated")
    }
    assert arms["untied"].counts == arms["recalibrated"].counts
    found = [input_scales(adapter.model) for adapter in arms.values()]
    assert found[0] == found[1] == places(make, at_proj=proj_anterior != "none")


def test_untied_counts_at_full_size() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=100)
    counts = san.attach(model, "san_recalibrated", propagation="untied").counts
    assert counts.method == 12 * (6_912 + 5_376) + 768
    assert counts.method + counts.norm == 186_624


@pytest.mark.parametrize("make", FAMILIES)
def test_untied_starts_pretrained_merges_and_comes_back(make, tmp_path: Path) -> None:
    model = make().double().eval()
    side = 32 if make in (tiny_swin, tiny_convnext) else 16
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    adapter = san.attach(model, "san", propagation="untied", proj_anterior="qkv")
    assert torch.allclose(model(images), make().double().eval()(images), atol=1e-12)
    randomise(model, {"scale"})
    expected = model(images)
    adapter.save(tmp_path / "a.safetensors")
    again = san.restore(make().double().eval(), tmp_path / "a.safetensors")
    assert torch.equal(again.model(images), expected)
    assert torch.allclose(adapter.merge()(images), expected, atol=1e-10)
    kinds = [type(module) for module in model.modules()]
    assert kinds == [type(module) for module in make().modules()]


def test_untied_without_output_scales_trains_the_inputs_alone() -> None:
    options = {"propagation": "untied", "train_output_scale": False, "train_norms": False}
    adapter = san.attach(tiny_vit(), "san", **options)
    expected = {f"{name}.pre.scale" for name in places(tiny_vit, at_proj=False)}
    assert len(expected) == 6
    assert adapter.added == expected | {"patch_embed.proj.scale"}


def test_what_untied_cannot_read_is_refused() -> None:
    model = tiny_vit()
    with pytest.raises(InvalidValueError, match="qkv_anterior=preceding would change nothing"):
        san.attach(model, "san", propagation="untied", qkv_anterior="preceding")
    with pytest.raises(InvalidValueError, match="allowed: .*untied, shift false"):
        san.attach(model, "san", propagation="untied", train_output_scale=False, shift=True)
    assert not hasattr(model, "adapted_by")


def starts(method: str, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    """What a method adds to a tiny ViT, wide enough for statistics, after a seed."""
    model = tiny_vit()
    torch.manual_seed(seed)
    adapter = san.attach(model, method, **options)
    parameters = dict(adapter.model.named_parameters())
    return {name: parameters[name].detach() for name in adapter.added}


@pytest.mark.parametrize("method", PRESETS)
def test_scales_start_spread_where_asked(method: str) -> None:
    added = starts(method, init_std=0.02, shift=True)
    values = torch.cat([value for name, value in added.items() if name.endswith(".scale")])
    assert values.numel() == 32 + 2 * (96 + 32 + 128 + 32)
    assert abs(values.mean() - 1) < 4 * 0.02 / values.numel() ** 0.5
    assert abs(values.std() / 0.02 - 1) < 0.12
    others = {name for name in added if not name.endswith(".scale")}
    assert len(others) == (9 + 8 if method == "san_recalibrated" else 9)
    for name in others:
        neutral = 0 if name.endswith(".shift") else 1
        assert torch.all(added[name] == neutral), name


def test_an_untied_input_scale_starts_at_ones() -> None:
    added = starts("san", init_std=0.02, propagation="untied")
    inputs = {name for name in added if name.endswith(".pre.scale")}
    assert len(inputs) == 6
    for name, value in added.items():
        assert torch.all(value == 1) == (name in inputs), name


def test_each_site_draws_its_own_and_a_seed_repeats_them() -> None:
    first, again, other = (starts("san", seed, init_std=0.1) for seed in (1, 1, 2))
    assert len(first) == 9
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])
    for one, next_one in pairwise(value[:32] for value in first.values()):
        assert not torch.equal(one, next_one)
    unpropagated = starts("san_neurons", 1, init_std=0.1)
    assert all(torch.equal(unpropagated[name], value) for name, value in first.items())


@pytest.mark.parametrize("method", PRESETS)
def test_no_spread_draws_nothing(method: str) -> None:
    model = tiny_vit()
    before = torch.get_rng_state()
    san.attach(model, method, init_std=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.all(value == 1) for value in starts(method).values())
    starts(method, init_std=0.1)
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_spread_reaches_the_scale_that_the_next_site_reads() -> None:
    options = {"init_std": 0.1, "train_output_scale": False}
    model = san.attach(tiny_vit(), "san", **options).model
    assert model.blocks[1].attn.qkv.pre.scale is model.patch_embed.proj.scale
    for layer in (model.blocks[1].attn.qkv, model.blocks[0].mlp.fc2):
        assert 0.05 < layer.pre().std() < 0.15
