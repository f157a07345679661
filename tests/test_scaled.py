"""The scaled layers: gradients against autograd, zeros, mixed precision, merging."""

import copy

import pytest
import torch
from torch import nn

from san.scaled import ScaledConv2d, ScaledLinear, ScaledLinearFunction, ScaledNorm, scaled

DOUBLE = torch.float64


def plain(x, weight, bias, scale, shift, pre):
    y = torch.nn.functional.linear(x if pre is None else x * pre, weight, bias) * scale
    return y if shift is None else y + shift


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("pre", [True, False])
def test_gradients_equal_autograd(bias: bool, shift: bool, pre: bool) -> None:
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int, grad: bool = True) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=DOUBLE).requires_grad_(grad)

    x, weight = draw(2, 5, 4), draw(3, 4, grad=False)
    arguments = (draw(3, grad=False) if bias else None, draw(3), draw(3) if shift else None, draw(4) if pre else None)
    assert torch.autograd.gradcheck(ScaledLinearFunction.apply, (x, weight, *arguments))
    assert torch.allclose(ScaledLinearFunction.apply(x, weight, *arguments), plain(x, weight, *arguments), atol=1e-14)


def test_a_scale_of_zero_still_learns() -> None:
    torch.manual_seed(0)
    layer = ScaledLinear(nn.Linear(4, 3).double(), shift=True, pre=nn.Parameter(torch.ones(4, dtype=DOUBLE)))
    with torch.no_grad():
        layer.scale[1] = 0
        layer.pre[2] = 0
    x = torch.randn(6, 4, dtype=DOUBLE)
    arguments = (layer.weight, layer.bias, layer.scale, layer.shift, layer.pre)
    ours = torch.autograd.grad(layer(x).square().sum(), [layer.scale, layer.pre])
    theirs = torch.autograd.grad(plain(x, *arguments).square().sum(), [layer.scale, layer.pre])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_the_weight_never_gets_a_gradient() -> None:
    layer = ScaledLinear(nn.Linear(4, 3))
    layer(torch.randn(2, 4)).sum().backward()
    assert layer.scale.grad is not None
    assert layer.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_beside_a_shift_in_lower_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = ScaledLinear(nn.Linear(64, 48), shift=True, pre=nn.Parameter(torch.rand(64) + 0.5)), torch.randn(200, 64)
    with torch.no_grad():
        layer.shift.normal_()
    wanted = torch.randn(200, 48)
    parameters = [layer.scale, layer.shift, layer.pre]
    tensors = [t.detach().double().requires_grad_() for t in parameters]
    exact = plain(x.double(), layer.weight.double(), layer.bias.double(), *tensors)
    theirs = torch.autograd.grad((exact * wanted).sum(), tensors)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        y = layer(x)
    ours = torch.autograd.grad((y.float() * wanted).sum(), parameters)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype] * b.abs().max()


def test_mixed_precision_is_close_and_keeps_float32_gradients() -> None:
    torch.manual_seed(0)
    layer, x = ScaledLinear(nn.Linear(64, 64)), torch.randn(32, 64)
    full = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), full, atol=0.05)
    half.float().square().sum().backward()
    assert layer.scale.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("base", "shape"),
    [
        (nn.Linear(4, 6), (2, 4)),
        (nn.Linear(4, 6, bias=False), (2, 4)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8)),
        (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 8, 8)),
        (nn.LayerNorm(4), (2, 4)),
    ],
)
def test_merged_layers_compute_the_same(base: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = scaled(base.double(), shift=True)
    if not isinstance(layer, ScaledNorm):
        layer.pre = nn.Parameter(torch.ones(shape[1], dtype=DOUBLE))
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if name in ("scale", "shift", "pre"):
                p.copy_(torch.randn(p.shape))
    x = torch.randn(shape, dtype=DOUBLE)
    merged = layer.merged()
    assert type(merged) is type(base)
    assert torch.allclose(merged(x), layer(x), atol=1e-12)


def test_a_copy_keeps_what_is_shared() -> None:
    first = ScaledConv2d(nn.Conv2d(3, 4, 1))
    pair = copy.deepcopy(nn.ModuleList([first, ScaledLinear(nn.Linear(4, 4), pre=first.scale)]))
    assert pair[1].pre is pair[0].scale
    assert pair[0].scale is not first.scale


def test_other_layers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Cannot scale a GELU; allowed: Linear, Conv2d, LayerNorm"):
        scaled(nn.GELU())
