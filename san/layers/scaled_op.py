"""y = s * ((W + U D) (p * x) + b) + t as one operation with gradients for all but W and b."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

TINY = {torch.float64: 1e-14, torch.float32: 1e-8}


class Conv(NamedTuple):
    """Geometry of a convolution, in the order of `F.conv2d`."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def nonzero(scale: Tensor) -> Tensor:
    """Replace exact zeros by a value too small to matter."""
    return torch.where(scale == 0, torch.full_like(scale, TINY.get(scale.dtype, 1e-6)), scale)


def sum_except_channels(product: Tensor, axis: int) -> Tensor:
    """Sum over all axes but `axis`, in float32 at least."""
    axes = [i for i in range(product.ndim) if i != axis % product.ndim]
    return product.sum(axes, dtype=torch.promote_types(product.dtype, torch.float32))


def broadcast_channels(scale: Tensor, axis: int) -> Tensor:
    """View `(C,)` so that it multiplies channels on axis -1, or on axis 1 of `(N, C, H, W)`."""
    return scale if axis == -1 else scale.view(-1, 1, 1)


def fold_weight(
    weight: Tensor, scale: Tensor | None, input_scale: Tensor | None, groups: int = 1
) -> Tensor:
    """Return diag(scale) W diag(input_scale) for `(O, I / groups, ...)`; each group of outputs reads its own part of `input_scale`."""
    rest = [1] * (weight.ndim - 2)
    if scale is not None:
        weight = weight * scale.view(-1, 1, *rest)
    if input_scale is None:
        return weight
    columns = (
        input_scale
        if groups == 1
        else input_scale.view(groups, -1).repeat_interleave(len(weight) // groups, 0)
    )
    return weight * columns.view(-1 if groups > 1 else 1, weight.shape[1], *rest)


class ScaledFunction(torch.autograd.Function):
    """y = s * ((W + U D) (p * x) + b) + t, with gradients for x, s, t, p, D, U; W and b are constants.

    x: `(..., I)`, or `(N, I, H, W)` where `conv` is given. down: D `(R, I)`; up: U `(O, R)`; both or neither.
    """

    @staticmethod
    def forward(  # noqa: D102, PLR0913, PLR0917
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor | None,
        shift: Tensor | None,
        input_scale: Tensor | None,
        down: Tensor | None,
        up: Tensor | None,
        conv: Conv | None,
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        s = None if scale is None else nonzero(scale)
        p = None if input_scale is None else nonzero(input_scale)
        with torch.autocast(kind, enabled=False):  # the update is added before anything is rounded
            updated = weight if down is None or up is None else torch.addmm(weight, up, down)
        folded = fold_weight(updated, s, p, conv.groups if conv else 1).to(dtype)
        offset = fold_bias(bias, s, shift)
        x, offset = x.to(dtype), None if offset is None else offset.to(dtype)
        y = F.conv2d(x, folded, offset, *conv) if conv else F.linear(x, folded, offset)
        _, _, _, needs_scale, _, needs_pre, needs_update, _, _ = ctx.needs_input_grad
        kept = x if needs_pre or needs_update else None, y if needs_scale else None
        ctx.save_for_backward(*kept, folded, s, shift, p, down, up)
        ctx.conv, ctx.shape = conv, x.shape
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # noqa: D102
        x, y, folded, s, shift, p, down, up = ctx.saved_tensors
        conv, axis = ctx.conv, 1 if ctx.conv else -1
        dy = (
            dy if conv else dy.contiguous()
        )  # ConvNeXt's comes permuted, and products of such are slow
        needs_x, _, _, needs_scale, needs_shift, needs_pre, needs_update, _, _ = (
            ctx.needs_input_grad
        )
        dx = ds = dp = dd = du = None
        if needs_x or needs_pre:
            dx = conv2d_input(ctx.shape, folded, dy, *conv) if conv else dy @ folded  # type: ignore[no-untyped-call]
        dt = sum_except_channels(dy, axis) if needs_shift else None
        if needs_scale:
            unshifted = y.to(s.dtype) if shift is None else y - broadcast_channels(shift, axis)
            ds = sum_except_channels(dy * unshifted, axis) / s
        if needs_pre and dx is not None:
            dp = sum_except_channels(dx * x.to(p.dtype), axis) / p
        if needs_update:
            dd, du = update_gradients(x.flatten(0, -2), dy.flatten(0, -2), down, up, s, p)
        return dx if needs_x else None, None, None, ds, dt, dp, dd, du, None


def update_gradients(
    x: Tensor, dy: Tensor, down: Tensor, up: Tensor, s: Tensor | None, p: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return dD `(R, I)` and dU `(O, R)` for x `(N, I)` and dy `(N, O)`."""
    down = down if p is None else down * p
    up = up if s is None else up * s[:, None]
    dd, du = (dy @ up.to(dy.dtype)).T @ x, dy.T @ (x @ down.to(x.dtype).T)
    return dd if p is None else dd * p, du if s is None else du * s[:, None]


def fold_bias(bias: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
    """Return s * b + t, None where there is neither a bias nor a shift."""
    if bias is None:
        return shift
    scaled_bias = bias if scale is None else scale * bias
    return scaled_bias if shift is None else scaled_bias + shift


def scaled_op(  # noqa: PLR0913, PLR0917
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    input_scale: Tensor | None = None,
    down: Tensor | None = None,
    up: Tensor | None = None,
    conv: Conv | None = None,
) -> Tensor:
    """Call `ScaledFunction`, by keywords."""
    out: Tensor = ScaledFunction.apply(x, weight, bias, scale, shift, input_scale, down, up, conv)
    return out
