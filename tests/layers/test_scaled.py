"""The scaled layers: gradients against autograd, zeros, mixed precision, merging."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import nn

from san.errors import InvalidValueError, UnsupportedModelError
from san.layers.mergeable import FinishesMerge, Mergeable
from san.layers.scaled import ScaledConv2d, ScaledLinear, ScaledStream, scale_layer
from san.layers.scaled_op import Conv, ScaledFunction, scaled_op

DOUBLE = torch.float64


class Given(nn.Module):
    """An input scale that is its own."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(value)

    def forward(self) -> torch.Tensor:
        return self.scale


def plain(x, weight, bias, scale, shift, input_scale):
    if input_scale is not None:
        x = x * input_scale
    y = F.linear(x, weight, bias)
    if scale is not None:
        y = y * scale
    return y if shift is None else y + shift


def plain_conv(x, weight, bias, scale, shift, input_scale, conv):
    if input_scale is not None:
        x = x * input_scale[:, None, None]
    y = F.conv2d(x, weight, bias, *conv)
    if scale is not None:
        y = y * scale[:, None, None]
    return y if shift is None else y + shift[:, None, None]


def draw(*shape: int, grad: bool = True) -> torch.Tensor:
    return torch.randn(*shape, dtype=DOUBLE).requires_grad_(grad)


def draw_if(wanted: bool, *shape: int) -> torch.Tensor | None:
    return draw(*shape) if wanted else None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("input_scale", [True, False])
def test_gradients_equal_autograd(bias: bool, scale: bool, shift: bool, input_scale: bool) -> None:
    torch.manual_seed(0)
    x = draw(2, 5, 4)
    weight = draw(3, 4, grad=False)
    arguments = (
        draw(3, grad=False) if bias else None,
        draw_if(scale, 3),
        draw_if(shift, 3),
        draw_if(input_scale, 4),
    )
    assert torch.autograd.gradcheck(ScaledFunction.apply, (x, weight, *arguments, None, None, None))
    ours = scaled_op(x, weight, *arguments)
    assert torch.allclose(ours, plain(x, weight, *arguments), atol=1e-14)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("input_scale", [True, False])
def test_gradients_of_updates_equal_autograd(scale: bool, input_scale: bool) -> None:
    torch.manual_seed(0)
    x = draw(2, 5, 4)
    weight = draw(3, 4, grad=False)
    bias = draw(3, grad=False)
    down, up = draw(2, 4), draw(3, 2)
    arguments = (bias, draw_if(scale, 3), draw(3), draw_if(input_scale, 4))
    assert torch.autograd.gradcheck(ScaledFunction.apply, (x, weight, *arguments, down, up, None))
    ours = scaled_op(x, weight, *arguments, down, up)
    assert torch.allclose(ours, plain(x, weight + up @ down, *arguments), atol=1e-14)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("input_scale", [True, False])
def test_gradients_of_convolutions_equal_autograd(
    groups: int, stride: int, input_scale: bool
) -> None:
    torch.manual_seed(0)
    conv = Conv((stride, stride), (1, 1), (1, 1), groups)

    def function(*tensors):
        return ScaledFunction.apply(*tensors, None, None, conv)

    x = draw(2, 4, 5, 6)
    weight = draw(8, 4 // groups, 3, 3, grad=False)
    arguments = (draw(8, grad=False), draw(8), draw(8), draw_if(input_scale, 4))
    assert torch.autograd.gradcheck(function, (x, weight, *arguments))
    ours = function(x, weight, *arguments)
    assert torch.allclose(ours, plain_conv(x, weight, *arguments, conv), atol=1e-13)


def test_a_scale_of_zero_still_learns() -> None:
    torch.manual_seed(0)
    base = nn.Linear(4, 3).double()
    layer = ScaledLinear(base, shift=True, input_scale=Given(torch.ones(4, dtype=DOUBLE)))
    with torch.no_grad():
        layer.scale[1] = 0
        layer.pre.scale[2] = 0
    x = torch.randn(6, 4, dtype=DOUBLE)
    arguments = (layer.weight, layer.bias, layer.scale, layer.shift, layer.pre.scale)
    scales = [layer.scale, layer.pre.scale]
    ours = torch.autograd.grad(layer(x).square().sum(), scales)
    theirs = torch.autograd.grad(plain(x, *arguments).square().sum(), scales)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_the_weight_never_gets_a_gradient() -> None:
    layer = ScaledLinear(nn.Linear(4, 3))
    layer(torch.randn(2, 4)).sum().backward()
    assert layer.scale.grad is not None
    assert layer.weight.grad is None


def test_a_second_derivative_is_refused() -> None:
    """The backward pass uses what the forward pass computed, as constants."""
    layer = ScaledLinear(nn.Linear(4, 3))
    (first,) = torch.autograd.grad(
        layer(torch.randn(2, 4)).square().sum(), [layer.scale], create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_gradients_beside_a_shift_in_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    layer = ScaledLinear(nn.Linear(64, 48), shift=True, input_scale=Given(torch.rand(64) + 0.5))
    x = torch.randn(200, 64)
    with torch.no_grad():
        layer.shift.normal_()
    wanted = torch.randn(200, 48)
    parameters = [layer.scale, layer.shift, layer.pre.scale]
    tensors = [t.detach().double().requires_grad_() for t in parameters]
    exact = plain(x.double(), layer.weight.double(), layer.bias.double(), *tensors)
    theirs = torch.autograd.grad((exact * wanted).sum(), tensors)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        y = layer(x)
    ours = torch.autograd.grad((y.float() * wanted).sum(), parameters)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < tolerance * b.abs().max()


def test_mixed_precision_is_close_and_keeps_float32_gradients() -> None:
    torch.manual_seed(0)
    layer = ScaledLinear(nn.Linear(64, 64))
    x = torch.randn(32, 64)
    full = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), full, atol=0.05)
    half.float().square().sum().backward()
    assert layer.scale.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("base", "shape", "axis"),
    [
        (nn.Linear(4, 6), (2, 4), -1),
        (nn.Linear(4, 6, bias=False), (2, 4), -1),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8), 1),
        (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 8, 8), 1),
        (nn.LayerNorm(4), (2, 4), -1),
        (LayerNorm2d(4), (2, 4, 3, 3), 1),
    ],
)
def test_merged_layers_compute_the_same(base: nn.Module, shape: tuple[int, ...], axis: int) -> None:
    torch.manual_seed(0)
    is_norm = isinstance(base, nn.LayerNorm)
    input_scale = None if is_norm else Given(torch.ones(4, dtype=DOUBLE))
    x = torch.randn(shape, dtype=DOUBLE)
    before = base.double()(x)
    layer = scale_layer(base, shift=True, input_scale=input_scale, axis=axis)
    assert torch.allclose(layer(x), before, atol=1e-14)
    scales = {"scale", "shift"} if is_norm else {"scale", "shift", "pre.scale"}
    parameters = dict(layer.named_parameters())
    assert parameters.keys() == dict(base.named_parameters()).keys() | scales
    for name in scales:
        nn.init.normal_(parameters[name])
    merged = layer.merged()
    assert type(merged) is type(base)
    assert torch.allclose(merged(x), layer(x), atol=1e-12)
    assert not torch.allclose(merged(x), before, atol=1e-2)


def test_a_copy_keeps_what_is_shared() -> None:
    first = ScaledConv2d(nn.Conv2d(3, 4, 1))
    second = ScaledLinear(nn.Linear(4, 4), input_scale=Given(torch.ones(4)))
    second.pre.scale = first.scale
    pair = copy.deepcopy(nn.ModuleList([first, second]))
    assert pair[1].pre.scale is pair[0].scale
    assert pair[0].scale is not first.scale


@pytest.mark.parametrize(
    "base",
    [nn.GELU(), nn.Conv2d(1, 1, 3, padding="same"), nn.Conv2d(1, 1, 3, padding_mode="reflect")],
)
def test_other_layers_are_refused(base: nn.Module) -> None:
    allowed = r"Cannot scale a \w+; allowed: Linear, Conv2d \(zero padding\), LayerNorm"
    with pytest.raises(UnsupportedModelError, match=allowed):
        scale_layer(base)


def test_only_a_stream_needs_other_layers_to_merge() -> None:
    layer = scale_layer(nn.Linear(4, 3))
    stream = ScaledStream(4, 1, torch.ones(1))
    assert isinstance(layer, Mergeable)
    assert isinstance(stream, Mergeable)
    assert isinstance(stream, FinishesMerge)
    assert not isinstance(layer, FinishesMerge)
    assert not isinstance(nn.Linear(4, 3), Mergeable)


def test_a_stream_with_a_scale_of_zero_cannot_be_merged() -> None:
    stream = ScaledStream(4, 1, torch.ones(1))
    assert type(stream.merged()) is nn.Identity
    with torch.no_grad():
        stream.scale[2] = 0
    with pytest.raises(InvalidValueError, match="has a zero, so it cannot be merged"):
        stream.merged()


def test_a_small_scale_beside_a_shift_keeps_its_gradient() -> None:
    """Where dy has a mean, the sums of dy * y and t * dy are far larger than their difference."""
    torch.manual_seed(0)
    layer = ScaledLinear(nn.Linear(32, 16), shift=True)
    x = torch.randn(8192, 32)
    with torch.no_grad():
        layer.scale.fill_(0.01)
        layer.shift.fill_(1.0)
    wanted = 1 + torch.randn(8192, 16)

    def gradient(layer: ScaledLinear, x: torch.Tensor) -> torch.Tensor:
        weighted = layer(x) * wanted.to(x.dtype)
        (ds,) = torch.autograd.grad(weighted.sum(), [layer.scale])
        return ds

    ours = gradient(layer, x)
    exact = gradient(copy.deepcopy(layer).double(), x.double())
    torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-2)


def test_scales_of_float32_on_a_model_of_bfloat16() -> None:
    layer = ScaledLinear(nn.Linear(8, 4).bfloat16())
    layer.scale = nn.Parameter(torch.ones(4))
    assert layer(torch.randn(2, 8).bfloat16()).dtype == torch.bfloat16
