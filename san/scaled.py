"""Layers with scaled inputs and scaled, shifted outputs: y = s * (W (p * x) + b) + t.

They are stock layers with the same parameter names plus `scale`, `shift` and `pre`. The scales live in the folded
weight W' = diag(s) W diag(p), so a forward pass is the plain layer's. Their gradients come from what the backward pass
has anyway, never from a dense weight gradient:

    dx = W'^T dy     dt = sum_n dy_n     ds = sum_n dy_n * (y_n - t) / s     dp = sum_n dx_n * x_n / p

A channel whose scale is exactly zero would lose its gradient by that division; it is run at TINY instead, which
floating point carries at full relative precision and which is far below the rounding error of its neighbours. That
holds for p, and for s without a shift; beside a shift t, ds keeps its precision while |y - t| is not tiny against |t|.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = {torch.float64: 1e-14, torch.float32: 1e-8}


def nonzero(scale: Tensor) -> Tensor:
    """Replace exact zeros by a value too small to matter."""
    return torch.where(scale == 0, torch.full_like(scale, TINY.get(scale.dtype, 1e-6)), scale)


def over_channels(product: Tensor, axis: int) -> Tensor:
    """Sum over all axes but `axis`, in float32 at least."""
    axes = [i for i in range(product.ndim) if i != axis % product.ndim]
    return product.sum(axes, dtype=torch.promote_types(product.dtype, torch.float32))


class ScaledLinearFunction(torch.autograd.Function):
    """y = s * (W (p * x) + b) + t on `(..., I)`, with gradients for x, s, t, p; W and b are constants."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor,
        shift: Tensor | None,
        pre: Tensor | None,
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        s = nonzero(scale)
        p = None if pre is None else nonzero(pre)
        folded = weight * s[:, None] if p is None else weight * s[:, None] * p
        offset = shift if bias is None else s * bias if shift is None else torch.addcmul(shift, s, bias)
        x, folded = x.to(dtype), folded.to(dtype)
        y = F.linear(x, folded, None if offset is None else offset.to(dtype))
        ctx.save_for_backward(x, folded, y, s, shift, p)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # noqa: D102
        x, folded, y, s, shift, p = ctx.saved_tensors
        needs_x, _, _, needs_scale, needs_shift, needs_pre = ctx.needs_input_grad
        dx = dy @ folded if needs_x or needs_pre else None
        dt = over_channels(dy, -1) if needs_shift else None
        ds = dp = None
        if needs_scale:
            ds = over_channels(dy * (y.to(s.dtype) if shift is None else y - shift), -1) / s
        if needs_pre and dx is not None:
            dp = over_channels(dx * x.to(p.dtype), -1) / p
        return dx if needs_x else None, None, None, ds, dt, dp


class Scales(nn.Module):
    """What scaled layers share: a trainable `scale`, perhaps a `shift`, perhaps `pre`, the scale of the inputs."""

    scale: nn.Parameter
    shift: nn.Parameter | None
    pre: nn.Parameter | None

    def add_scales(self, channels: int, like: Tensor, shift: bool, pre: nn.Parameter | None) -> None:
        """Register ones, zeros and the given (shared) input scale."""
        self.scale = nn.Parameter(torch.ones(channels, dtype=like.dtype, device=like.device))
        self.shift = nn.Parameter(torch.zeros_like(self.scale)) if shift else None
        self.pre = pre

    def folded_bias(self, bias: Tensor | None) -> Tensor | None:
        """Return s * b + t, None where the layer has neither bias nor shift."""
        if bias is None:
            return self.shift
        return self.scale * bias if self.shift is None else self.scale * bias + self.shift


def fill(plain: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Give a plain layer, made on the meta device, its folded tensors."""
    plain.weight = nn.Parameter(weight.detach())
    plain.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
    return plain


class ScaledLinear(nn.Linear, Scales):
    """An `nn.Linear` under scales; its own weight and bias are shared with `base` and stay as they are."""

    def __init__(self, base: nn.Linear, shift: bool = False, pre: nn.Parameter | None = None) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.add_scales(base.out_features, base.weight, shift, pre)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        out: Tensor = ScaledLinearFunction.apply(x, self.weight, self.bias, self.scale, self.shift, self.pre)
        return out

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        weight = self.weight * self.scale[:, None]
        weight = weight if self.pre is None else weight * self.pre
        return fill(nn.Linear(self.in_features, self.out_features, device="meta"), weight, self.folded_bias(self.bias))


def bare_conv(like: nn.Conv2d) -> dict[str, Any]:
    """Return the constructor arguments of a convolution."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(like, name) for name in names}


class ScaledConv2d(nn.Conv2d, Scales):
    """An `nn.Conv2d` under scales, on `(N, I, H, W)`. It scales activations: one such layer feeds a whole ViT."""

    def __init__(self, base: nn.Conv2d, shift: bool = False, pre: nn.Parameter | None = None) -> None:
        super().__init__(**bare_conv(base), bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.add_scales(base.out_channels, base.weight, shift, pre)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, I, H, W)` to `(N, O, H', W')`."""
        x = x if self.pre is None else x * self.pre.view(-1, 1, 1)
        y = super().forward(x) * self.scale.view(-1, 1, 1)
        return y if self.shift is None else y + self.shift.view(-1, 1, 1)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        weight = self.weight * self.scale.view(-1, 1, 1, 1)
        if self.pre is not None:  # each group of outputs reads its own part of the inputs
            columns = self.pre.view(self.groups, 1, -1).expand(-1, self.out_channels // self.groups, -1)
            weight = weight * columns.reshape(self.out_channels, -1, 1, 1)
        return fill(nn.Conv2d(**bare_conv(self), device="meta"), weight, self.folded_bias(self.bias))


class ScaledNorm(nn.LayerNorm, Scales):
    """An `nn.LayerNorm` over the last axis under a scale and shift, folded into its own affine: no extra pass."""

    def __init__(self, base: nn.LayerNorm, shift: bool = True) -> None:
        super().__init__(base.normalized_shape, base.eps, device="meta")
        self.stock = type(base)  # timm has its own subclass
        self.weight, self.bias = base.weight, base.bias
        self.add_scales(base.normalized_shape[-1], base.weight, shift, None)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)` to `(..., C)`."""
        weight, bias = self.weight * self.scale, self.folded_bias(self.bias)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        plain = self.stock(self.normalized_shape, self.eps, device="meta")
        return fill(plain, self.weight * self.scale, self.folded_bias(self.bias))


Scaled = ScaledLinear | ScaledConv2d | ScaledNorm


def scaled(base: nn.Module, shift: bool = False, pre: nn.Parameter | None = None) -> Scaled:
    """Return the scaled form of a stock layer; `pre` is the (shared) scale of its input channels, if any.

    Raises TypeError on a layer that has none.
    """
    if isinstance(base, nn.Linear):
        return ScaledLinear(base, shift, pre)
    if isinstance(base, nn.Conv2d):
        return ScaledConv2d(base, shift, pre)
    if isinstance(base, nn.LayerNorm):
        return ScaledNorm(base, shift)
    raise TypeError(f"Cannot scale a {type(base).__name__}; allowed: Linear, Conv2d, LayerNorm.")
