"""Convpass's own: its formula on maps and single tokens, its places, its start, its drop-path."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import tiny_convnext, tiny_dino, tiny_eva, tiny_swin, tiny_vit
from timm.layers import DropPath
from torch import Tensor, nn

import san
from san.errors import InvalidValueError
from san.methods.convpass import ConvBypass


def act(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def by_maps(bypass: ConvBypass, x: Tensor, rows: int, columns: int) -> Tensor:
    """C of tokens `(B, N, C)`, every map by itself, as the paper says it."""
    low = act(x @ bypass.down.weight.T + bypass.down.bias)
    single = low.shape[1] - rows * columns
    convolved = []
    for i in range(single):
        convolved.append(bypass.conv(low[:, i, :, None, None]).flatten(2))
    image = torch.empty(len(x), low.shape[2], rows, columns, dtype=x.dtype)
    for row in range(rows):
        for column in range(columns):
            image[:, :, row, column] = low[:, single + row * columns + column]
    convolved.append(bypass.conv(image).flatten(2))
    mixed = act(torch.cat(convolved, dim=2).transpose(1, 2))
    return mixed @ bypass.up.weight.T + bypass.up.bias


def bypassed(stock: nn.Module, method: str = "convpass", **options: Any) -> nn.Module:
    """The model with bypasses in which nothing is zero, in float64."""
    adapter = san.attach(stock, method, **options)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in adapter.model.named_parameters():
            if name in adapter.added:
                p.copy_(torch.randn_like(p))
    return adapter.model.double().eval()


def bypasses(model: nn.Module) -> list[ConvBypass]:
    return [module for module in model.modules() if isinstance(module, ConvBypass)]


@pytest.mark.parametrize(
    ("make", "single"), [(tiny_vit, 1), (tiny_dino, 3), (tiny_eva, 3), (tiny_swin, 0)]
)
def test_convpass_is_its_formula(make: Callable[[], nn.Module], single: int) -> None:
    bypass = bypasses(bypassed(make(), bottleneck_dim=6))[0]
    bypass.grid.size = (2, 5)
    x = torch.randn(3, single + 10, bypass.down.in_features, dtype=torch.float64)
    assert torch.allclose(bypass(x), by_maps(bypass, x, 2, 5), atol=1e-12)


@pytest.mark.parametrize("dynamic", [False, True])
def test_convpass_knows_the_rows_of_an_image_that_is_not_square(dynamic: bool) -> None:
    model = bypassed(tiny_vit(dynamic_img_size=dynamic))
    images = torch.randn(2, 3, 16, 32, dtype=torch.float64)
    if not dynamic:
        model.set_input_size(img_size=(16, 32))
    model(images)
    for bypass in bypasses(model):
        assert bypass.grid.size == (2, 4)


@pytest.mark.parametrize(("method", "count"), [("convpass", 2), ("convpass_attn", 1)])
@pytest.mark.parametrize(("make", "rows"), [(tiny_vit, [2, 2]), (tiny_swin, [8, 8, 4, 4])])
def test_convpass_reads_a_norm_and_adds_to_its_branch(
    make: Callable[[], nn.Module], rows: list[int], method: str, count: int
) -> None:
    model = bypassed(make(), method, scale=0.5)
    side = 32 if make is tiny_swin else 16
    seen: dict[str, list[Tensor]] = {}
    names = [name for name, module in model.named_modules() if isinstance(module, ConvBypass)]
    assert len(names) == len(rows) * count
    for name in names:
        block, _, kind = name.rpartition(".convpass_")
        number = 1 if kind == "attention" else 2
        norm = model.get_submodule(f"{block}.norm{number}")
        branch_exit = model.get_submodule(f"{block}.drop_path{number}")
        values = seen.setdefault(name, [])
        norm.register_forward_hook(lambda _m, _x, y, to=values: to.append(y))
        branch_exit.register_forward_hook(lambda _m, x, y, to=values: to.extend([x[0], y]))
    model(torch.randn(2, 3, side, side, dtype=torch.float64))
    for i, name in enumerate(names):
        read, branch, added = seen[name]
        bypass = model.get_submodule(name)
        height = rows[i // count]
        expected = by_maps(bypass, read.flatten(1, -2), height, height).reshape(branch.shape)
        assert torch.allclose(added, branch + 0.5 * expected, atol=1e-11)


@pytest.mark.parametrize("width", [4, 8])
def test_convpass_starts_with_a_convolution_that_changes_nothing(width: int) -> None:
    bypass = bypasses(san.attach(tiny_vit(), "convpass", bottleneck_dim=width).model)[0]
    x = torch.randn(2, 5, width)
    bypass.grid.size = (2, 2)
    assert torch.allclose(bypass.convolve(x), x, atol=1e-6)
    other = san.attach(tiny_vit(), "convpass", bottleneck_dim=width, init="xavier").model
    drawn = bypasses(other)[0].conv.weight
    bound = (6 / (2 * 9 * width)) ** 0.5
    assert 0.9 * bound < drawn.abs().max() <= bound
    for module in (bypass, bypasses(other)[0]):
        for p in (module.down.bias, module.conv.bias, module.up.weight, module.up.bias):
            assert not p.any()


def test_convpass_drops_its_own_paths() -> None:
    """Of each image that the branch and the bypass, or one of them, or none of them is dropped."""
    model = tiny_vit(drop_path_rate=0.5)
    bypass = bypasses(bypassed(model).float())[-1]
    branch_exit = model.blocks[-1].drop_path2
    assert isinstance(branch_exit, DropPath)
    branch_exit.train()
    bypass.grid.size = (2, 2)
    x = torch.randn(1, 5, 32).expand(400, -1, -1)
    bypass.read.put(x)
    torch.manual_seed(0)
    added = branch_exit(torch.full_like(x, 100.0))
    kept_branch = (added - 200).abs().amax((1, 2)) < added.abs().amax((1, 2))
    once = 2 * bypass(x[:1])
    expected = kept_branch[:, None, None] * 200.0
    without = (added - expected).abs().amax((1, 2)) < 1e-3
    kept = (added - expected - once).abs().amax((1, 2)) < 1e-3
    assert torch.equal(kept, ~without)
    for both in (kept & kept_branch, kept & ~kept_branch, ~kept & kept_branch):
        assert 60 < both.sum() < 140


def test_convpass_is_not_for_a_convnext() -> None:
    with pytest.raises(InvalidValueError, match="'convpass' cannot be used on a ConvNeXt: its bl"):
        san.attach(tiny_convnext(), "convpass")
