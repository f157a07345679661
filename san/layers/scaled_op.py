"""y = s * ((W + U D) (p * x) + b) + t as one operation with gradients for all but W and b."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

# In place of a scale of exactly zero; `san.layers.scaled` says why.
_TINY = {torch.float64: 1e-14, torch.float32: 1e-8}
_TINY_OF_HALF = 1e-6
_BLOCKS = 32  # of rows, in a sum of products
_BLOCKED_FROM = 2**17  # numbers; below, the product is in the cache as a whole


class Conv(NamedTuple):
    """Geometry of a convolution, in the order of `F.conv2d`."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class _Needed(NamedTuple):
    """Of which arguments of `ScaledFunction.forward`, in their order, a gradient is needed."""

    x: bool
    weight: bool
    bias: bool
    scale: bool
    shift: bool
    input_scale: bool
    down: bool
    up: bool
    conv: bool


class ScaledFunction(torch.autograd.Function):
    """y = s * ((W + U D) (p * x) + b) + t, with gradients for x, s, t, p, D, U.

    W and b are constants. x: `(..., I)`, or `(N, I, H, W)` where `conv` is given. down: D `(R, I)`;
    up: U `(O, R)`; both or neither.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917
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
        """Return y, in the precision of autocast, computed with one folded weight."""
        device = x.device.type
        s = None if scale is None else _nonzero(scale)
        p = None if input_scale is None else _nonzero(input_scale)
        if down is not None and up is not None:
            # The update is added before anything is rounded.
            with torch.autocast(device, enabled=False):
                weight = torch.addmm(weight, up, down)
        folded = fold_weight(weight, s, p, 1 if conv is None else conv.groups)
        folded_bias = fold_bias(bias, s, shift)
        dtype = x.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        # Asked before it is done, as most of the time there is nothing to do.
        if x.dtype != dtype:
            x = x.to(dtype)
        if folded.dtype != dtype:
            folded = folded.to(dtype)
        if folded_bias is not None and folded_bias.dtype != dtype:
            folded_bias = folded_bias.to(dtype)
        if conv is None:
            y = F.linear(x, folded, folded_bias)
        else:
            y = F.conv2d(x, folded, folded_bias, *conv)

        # An activation is kept only if a gradient that is needed reads it.
        needed = _Needed(*ctx.needs_input_grad)
        kept_x = x if needed.input_scale or needed.down else None
        kept_y = y if needed.scale else None
        ctx.save_for_backward(kept_x, kept_y, folded, s, shift, p, down, up)
        ctx.conv = conv
        ctx.axis = -1 if conv is None else 1
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, dy: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of forward's arguments, in their order; None where not needed."""
        return _forbid_double_backward(ScaledFunction._gradients, ctx, dy)

    @staticmethod
    def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, y, folded, s, t, p, down, up = ctx.saved_tensors
        needed = _Needed(*ctx.needs_input_grad)
        if ctx.conv is None:
            dy = dy.contiguous()  # ConvNeXt's comes permuted, and products of such are slow
        dx = ds = dt = dp = None
        update_gradients: tuple[Tensor | None, Tensor | None] = (None, None)
        if needed.x or needed.input_scale:
            dx = _input_gradient(dy, folded, ctx.shape, ctx.conv)
        if needed.scale:
            ds = _sum_of_products(dy, y, ctx.axis, t) / s
        if needed.shift:
            dt = _sum_except_channels(dy, ctx.axis)
        if needed.input_scale and dx is not None:
            dp = _input_scale_gradient(dx, x, p, ctx.axis)
        if needed.down:
            update_gradients = _update_gradients(x, dy, down, up, s, p)
        if not needed.x:
            dx = None  # it was computed for dp alone
        return dx, None, None, ds, dt, dp, *update_gradients, None


class ReadGELUFunction(torch.autograd.Function):
    """GELU(u), with gradients for u and for the scale p at which the next weight reads it.

    p changes nothing here: that weight W' = W diag(p) holds it, and treats it as a constant. Its
    gradient comes from what a GELU keeps anyway, u: with dg, the gradient of the GELU's output,

        dp = sum_n gelu(u_n) * dg_n / p
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, p: Tensor, approximate: str, axis: int) -> Tensor:
        """Return GELU(u); p `(C,)`: of the channels on `axis`."""
        ctx.save_for_backward(u, p)
        ctx.approximate = approximate
        ctx.axis = axis
        return F.gelu(u, approximate=approximate)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, dg: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return du and dp."""
        return _forbid_double_backward(ReadGELUFunction._gradients, ctx, dg)

    @staticmethod
    def _gradients(ctx: Any, dg: Tensor) -> tuple[Tensor | None, ...]:
        u, p = ctx.saved_tensors
        du = dp = None
        if ctx.needs_input_grad[0]:
            du = torch.ops.aten.gelu_backward(dg, u, approximate=ctx.approximate)
        if ctx.needs_input_grad[1]:
            gelu = F.gelu(u, approximate=ctx.approximate)
            dp = _sum_of_products(gelu, dg, ctx.axis) / _nonzero(p)
        return du, dp, None, None


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
    """Apply `ScaledFunction`, whose arguments can then be left out or given by name."""
    y: Tensor = ScaledFunction.apply(x, weight, bias, scale, shift, input_scale, down, up, conv)
    return y


def _forbid_double_backward(
    gradients: Callable[[Any, Tensor], tuple[Tensor | None, ...]], ctx: Any, dy: Tensor
) -> tuple[Tensor | None, ...]:
    """Return gradients that raise an error where they are differentiated again.

    `once_differentiable` costs time at each call, so it is left out where no graph is made of the
    backward pass, as in training.
    """
    if torch.is_grad_enabled():
        gradients = once_differentiable(gradients)
    return gradients(ctx, dy)


def _nonzero(scale: Tensor) -> Tensor:
    """Replace zeros, and what is smaller than that, by a value too small to matter."""
    tiny = _TINY.get(scale.dtype, _TINY_OF_HALF)
    return scale.abs().clamp_min_(tiny).copysign_(scale)


def fold_weight(
    weight: Tensor, scale: Tensor | None, input_scale: Tensor | None, groups: int = 1
) -> Tensor:
    """Return diag(scale) W diag(input_scale) for W `(O, I / groups, ...)`.

    Each group of outputs reads its own part of `input_scale` `(I,)`.
    """
    kernel = [1] * (weight.ndim - 2)
    if scale is not None:
        weight = weight * scale.view(-1, 1, *kernel)
    if input_scale is None:
        return weight
    if groups == 1:
        factor = input_scale.view(1, -1, *kernel)
    else:
        outputs, inputs = weight.shape[:2]
        by_group = input_scale.view(groups, inputs)
        by_output = by_group.repeat_interleave(outputs // groups, 0)
        factor = by_output.view(outputs, inputs, *kernel)
    # The product with the scale is a new tensor already.
    return weight * factor if scale is None else weight.mul_(factor)


def fold_bias(bias: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
    """Return s * b + t, None if there is neither a bias nor a shift."""
    if bias is None:
        return shift
    if scale is not None:
        bias = scale * bias
    return bias if shift is None else bias + shift


def broadcast_channels(scale: Tensor, axis: int) -> Tensor:
    """View `(C,)` so that it multiplies channels on axis -1, or on axis 1 of `(N, C, H, W)`."""
    if axis == -1:
        return scale
    return scale.view(-1, 1, 1)


def _sum_except_channels(product: Tensor, axis: int) -> Tensor:
    """Sum over all axes but `axis`, in float32 at least."""
    others = tuple(range(product.ndim - 1)) if axis == -1 else (0, 2, 3)
    dtype = torch.float32 if product.itemsize < 4 else product.dtype
    return product.sum(others, dtype=dtype)


def _sum_of_products(a: Tensor, b: Tensor, axis: int, shift: Tensor | None = None) -> Tensor:
    """Sum a * (b - shift) over all axes but `axis`, in float32 at least; shift `(C,)`.

    On a CPU large ones are summed in blocks of rows that stay in the cache: two to four times
    faster than the product in memory (`benchmarks/speed/NOTES.md`).
    """
    is_large = a.numel() >= _BLOCKED_FROM and axis == -1 and a.device.type == "cpu"
    if not is_large or torch.compiler.is_compiling():
        a = a.float() if a.itemsize < 4 else a
        return _sum_except_channels(a * _without(b, shift, axis), axis)
    a = a.reshape(-1, a.shape[-1])
    b = b.reshape(-1, b.shape[-1])
    dtype = torch.promote_types(a.dtype, torch.float32)
    sums = a.new_zeros(len(a) // _BLOCKS, a.shape[-1], dtype=dtype)
    rows = len(sums)
    for start in range(0, len(a), rows):
        block = a[start : start + rows]
        sums[: len(block)].addcmul_(block, _without(b[start : start + rows], shift, axis))
    return sums.sum(0)


def _without(y: Tensor, shift: Tensor | None, axis: int) -> Tensor:
    """Return y - shift, before anything is summed: the two may be nearly equal."""
    return y if shift is None else y - broadcast_channels(shift, axis)


def _input_gradient(dy: Tensor, folded: Tensor, shape: torch.Size, conv: Conv | None) -> Tensor:
    """Return dx = W'^T dy, of the given shape; folded: W'."""
    if conv is None:
        return dy @ folded
    dx: Tensor = conv2d_input(shape, folded, dy, *conv)  # type: ignore[no-untyped-call]
    return dx


def _input_scale_gradient(dx: Tensor, x: Tensor, p: Tensor, axis: int) -> Tensor:
    """Return dp = sum_n dx_n * x_n / p."""
    return _sum_of_products(dx, x, axis) / p


def _update_gradients(
    x: Tensor,
    dy: Tensor,
    down: Tensor,
    up: Tensor,
    s: Tensor | None,
    p: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return dD `(R, I)` and dU `(O, R)`.

    dD = sum_n (U^T (s * dy_n)) (p * x_n)^T     dU = diag(s) sum_n dy_n (D (p * x_n))^T
    """
    x = x.flatten(0, -2)
    dy = dy.flatten(0, -2)
    scaled_down = down if p is None else down * p
    scaled_up = up if s is None else up * s[:, None]
    dd = (dy @ scaled_up.to(dy.dtype)).T @ x
    du = dy.T @ (x @ scaled_down.to(x.dtype).T)
    if p is not None:
        dd = dd * p
    if s is not None:
        du = du * s[:, None]
    return dd, du
