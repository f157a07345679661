"""RepAdapter's own: its formula, its places, and where it cannot be merged."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_convnext, tiny_eva, tiny_swin, tiny_vit
from torch import Tensor, nn

import san
from san.backbones import branches
from san.errors import InvalidValueError
from san.methods.repadapter import RepAdapter


def adapted(stock: nn.Module, method: str, **options: object) -> nn.Module:
    """A copy with the method attached, in which nothing that it added is zero."""
    adapter = san.attach(copy.deepcopy(stock), method, **options)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in adapter.model.named_parameters():
            if name in adapter.added:
                p.copy_(torch.randn_like(p))
    return adapter.model.eval()


def by_convolutions(adapter: RepAdapter, x: Tensor) -> Tensor:
    """R of channels on the last axis, as two convolutions of width one: the paper's form."""
    groups = adapter.up.groups
    signal = x.flatten(0, -2).T[None]
    low = F.conv1d(signal, adapter.down.weight[..., None], adapter.down.bias)
    up = F.conv1d(low, adapter.up.weight[..., None], adapter.up.bias, groups=groups)
    return x + adapter.scale * up[0].T.reshape(x.shape)


def adapters(model: nn.Module) -> list[RepAdapter]:
    return [module for module in model.modules() if isinstance(module, RepAdapter)]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_repadapter_is_its_formula(groups: int) -> None:
    model = adapted(tiny_vit().double(), "repadapter", groups=groups, scale=3)
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    found = adapters(model)
    assert len(found) == 4
    for adapter in found:
        assert adapter.up.weight.shape == (32, 8 // groups)
        assert torch.allclose(adapter(x), by_convolutions(adapter, x), atol=1e-12)


@pytest.mark.parametrize("make", [tiny_vit, tiny_swin])
@pytest.mark.parametrize(("method", "count"), [("repadapter", 2), ("repadapter_attn", 1)])
def test_repadapter_stands_behind_the_norms(
    make: Callable[[], nn.Module], method: str, count: int
) -> None:
    """In Swin in the order of the image, before windows are cut and shifted."""
    stock = make().double().eval()
    model = adapted(stock, method)
    images = torch.randn(2, 3, 16, 16).double()
    if make is tiny_swin:
        images = torch.randn(2, 3, 32, 32).double()
    found = iter(adapters(model))
    blocks = dict.fromkeys(branch.block for branch in branches(stock))
    for block in blocks:
        for norm in ("norm1", "norm2")[:count]:
            # Only once is the right adapter next in the iteration.
            adapter = next(found)
            layer = stock.get_submodule(f"{block}.{norm}")
            layer.register_forward_hook(lambda _m, _x, y, each=adapter: by_convolutions(each, y))
    assert next(found, None) is None
    assert torch.allclose(model(images), stock(images), atol=1e-11)


def test_repadapter_in_a_convnext_stands_before_the_depthwise_convolution() -> None:
    stock = tiny_convnext().double().eval()
    model = adapted(stock, "repadapter_attn", scale=0.5)
    images = torch.randn(2, 3, 32, 32).double()
    found = adapters(model)
    places = branches(stock)
    assert len(found) == len(places) == 6
    for branch, adapter in zip(places, found, strict=True):
        conv = stock.get_submodule(branch.entry)

        def before(_m: nn.Module, inputs: tuple[Tensor], each: RepAdapter = adapter) -> Tensor:
            return by_convolutions(each, inputs[0].movedim(1, -1)).movedim(-1, 1)

        conv.register_forward_pre_hook(before)
    assert torch.allclose(model(images), stock(images), atol=1e-11)


def test_repadapter_in_a_convnext_says_where_it_can_stand_and_that_it_stays() -> None:
    with pytest.raises(
        InvalidValueError,
        match=r"'repadapter' cannot be used on a ConvNeXt: .* with method\.placement=attention",
    ):
        san.attach(tiny_convnext(), "repadapter")
    adapter = san.attach(tiny_convnext(), "repadapter", placement="attention")
    with pytest.raises(
        InvalidValueError, match=r"'repadapter' cannot be merged: no plain layer can take in stages"
    ):
        adapter.merge()


def test_repadapter_gives_a_bias_to_a_layer_without_one_when_merged() -> None:
    adapter = san.attach(tiny_eva().double().eval(), "repadapter")
    qkv = adapter.model.blocks[0].attn.qkv
    nn.init.ones_(qkv.adapter.up.bias)
    images = torch.randn(2, 3, 16, 16).double()
    before = adapter.model(images)
    assert qkv.bias is None
    merged = adapter.merge()
    assert torch.allclose(merged.blocks[0].attn.qkv.bias, qkv.weight.sum(1), atol=1e-12)
    assert torch.allclose(merged(images), before, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "largest"), [({"groups": 3}, 8), ({"groups": 4, "bottleneck_dim": 6}, 2)]
)
def test_groups_divide_all_widths(options: dict[str, int], largest: int) -> None:
    model = tiny_vit()
    names = [name for name, _ in model.named_parameters()]
    message = rf"method\.groups came as {options['groups']}; .*: a divisor of {largest}\."
    with pytest.raises(InvalidValueError, match=message):
        san.attach(model, "repadapter", **options)
    assert [name for name, _ in model.named_parameters()] == names


def test_dropout_of_repadapter_is_between_its_layers() -> None:
    adapter = adapters(adapted(tiny_vit(), "repadapter", dropout=0.5))[0].train()
    with torch.no_grad():
        adapter.down.weight.zero_()
        adapter.down.bias.fill_(1)
        adapter.up.weight.fill_(1)
        adapter.up.bias.zero_()
    torch.manual_seed(0)
    x = torch.zeros(4096, 32)
    # Each half of the channels sums its own four numbers, each 0 or 2.
    added = adapter(x)
    assert set(added.unique().tolist()) == {0.0, 2.0, 4.0, 6.0, 8.0}
    assert torch.equal(added[:, 0], added[:, 15])
    assert not torch.equal(added[:, 15], added[:, 16])
    assert torch.equal(adapter.eval()(x), torch.full_like(x, 4.0))
