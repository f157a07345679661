"""Layers with scaled inputs and scaled, shifted outputs: y = s * ((W + U D) (p * x) + b) + t.

They are stock layers with the same parameter names plus `scale`, `shift` and `pre`; the low-rank update U D is that of
`san.layers.low_rank`. All of it lives in the folded weight W' = diag(s) (W + U D) diag(p), so a forward pass is the
plain layer's. The gradients come from what the backward pass has anyway, never from a dense weight gradient:

    dx = W'^T dy     dt = sum_n dy_n     ds = sum_n dy_n * (y_n - t) / s     dp = sum_n dx_n * x_n / p
    dU = diag(s) sum_n dy_n (D (p * x_n))^T     dD = sum_n (U^T (s * dy_n)) (p * x_n)^T

where W may be a matrix or, without an update, a convolution. A channel whose scale is exactly zero would lose its
gradient by that division; it is run at TINY instead, which float64, float32 and bfloat16 carry at full relative
precision and which is far below the rounding error of its neighbours. That holds for p, and for s without a shift;
beside a shift t, ds keeps its precision while |y - t| is not tiny against |t|.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from san.backbones import scale_stream

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


def over_channels(product: Tensor, axis: int) -> Tensor:
    """Sum over all axes but `axis`, in float32 at least."""
    axes = [i for i in range(product.ndim) if i != axis % product.ndim]
    return product.sum(axes, dtype=torch.promote_types(product.dtype, torch.float32))


def along(scale: Tensor, axis: int) -> Tensor:
    """View `(C,)` so that it multiplies channels on axis -1, or on axis 1 of `(N, C, H, W)`."""
    return scale if axis == -1 else scale.view(-1, 1, 1)


def fold(weight: Tensor, scale: Tensor | None, pre: Tensor | None, groups: int = 1) -> Tensor:
    """Return diag(scale) W diag(pre) for `(O, I / groups, ...)`; each group of outputs reads its own part of `pre`."""
    rest = [1] * (weight.ndim - 2)
    if scale is not None:
        weight = weight * scale.view(-1, 1, *rest)
    if pre is None:
        return weight
    columns = pre if groups == 1 else pre.view(groups, -1).repeat_interleave(len(weight) // groups, 0)
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
        pre: Tensor | None,
        down: Tensor | None,
        up: Tensor | None,
        conv: Conv | None,
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        s = None if scale is None else nonzero(scale)
        p = None if pre is None else nonzero(pre)
        with torch.autocast(kind, enabled=False):  # the update is added before anything is rounded
            updated = weight if down is None or up is None else torch.addmm(weight, up, down)
        folded = fold(updated, s, p, conv.groups if conv else 1).to(dtype)
        offset = folded_bias(bias, s, shift)
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
        dy = dy if conv else dy.contiguous()  # ConvNeXt's comes permuted, and products of such are slow
        needs_x, _, _, needs_scale, needs_shift, needs_pre, needs_update, _, _ = ctx.needs_input_grad
        dx = ds = dp = dd = du = None
        if needs_x or needs_pre:
            dx = conv2d_input(ctx.shape, folded, dy, *conv) if conv else dy @ folded  # type: ignore[no-untyped-call]
        dt = over_channels(dy, axis) if needs_shift else None
        if needs_scale:
            unshifted = y.to(s.dtype) if shift is None else y - along(shift, axis)
            ds = over_channels(dy * unshifted, axis) / s
        if needs_pre and dx is not None:
            dp = over_channels(dx * x.to(p.dtype), axis) / p
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


def folded_bias(bias: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
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
    pre: Tensor | None = None,
    down: Tensor | None = None,
    up: Tensor | None = None,
    conv: Conv | None = None,
) -> Tensor:
    """Call `ScaledFunction`, by keywords."""
    out: Tensor = ScaledFunction.apply(x, weight, bias, scale, shift, pre, down, up, conv)
    return out


class Scales(nn.Module):
    """What scaled layers share: perhaps a trained `scale` and `shift`, perhaps `pre`, which gives the input scale."""

    scale: nn.Parameter | None
    shift: nn.Parameter | None
    pre: nn.Module | None

    def add_scales(self, channels: int, like: Tensor, scale: bool, shift: bool, pre: nn.Module | None) -> None:
        """Register ones, zeros and the module that gives the input scale `(inputs,)`."""
        ones = torch.ones(channels, dtype=like.dtype, device=like.device)
        self.scale = nn.Parameter(ones) if scale else None
        self.shift = nn.Parameter(torch.zeros_like(ones)) if shift else None
        self.pre = pre

    def ones(self) -> nn.Parameter:
        """Return a new scale of the outputs that this layer itself does not apply: ones `(channels,)`."""
        weight = cast(Tensor, self.weight)
        return nn.Parameter(torch.ones(len(weight), dtype=weight.dtype, device=weight.device))

    def affine(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return scale and shift, both `(C,)`, of a layer that has both."""
        assert self.scale is not None
        assert self.shift is not None
        return self.scale, self.shift

    def input_scale(self) -> Tensor | None:
        """Return p `(inputs,)`, None for ones."""
        return None if self.pre is None else self.pre()


def fill(plain: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Give a plain layer, made on the meta device, its folded tensors."""
    plain.weight = nn.Parameter(weight.detach().clone())
    plain.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
    return plain


class ScaledLinear(nn.Linear, Scales):
    """An `nn.Linear` under scales; its own weight and bias are shared with `base` and stay as they are."""

    def __init__(self, base: nn.Linear, scale: bool = True, shift: bool = False, pre: nn.Module | None = None) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.add_scales(base.out_features, base.weight, scale, shift, pre)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        return scaled_op(x, self.weight, self.bias, self.scale, self.shift, self.input_scale())

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        weight = fold(self.weight, self.scale, self.input_scale())
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        return fill(plain, weight, folded_bias(self.bias, self.scale, self.shift))


class ScaledConv2d(nn.Conv2d, Scales):
    """An `nn.Conv2d` under scales, on `(N, I, H, W)`."""

    def __init__(self, base: nn.Conv2d, scale: bool = True, shift: bool = False, pre: nn.Module | None = None) -> None:
        super().__init__(**bare_conv(base), bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.add_scales(base.out_channels, base.weight, scale, shift, pre)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, I, H, W)` to `(N, O, H', W')`."""
        conv = Conv(self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]
        return scaled_op(x, self.weight, self.bias, self.scale, self.shift, self.input_scale(), conv=conv)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        weight = fold(self.weight, self.scale, self.input_scale(), self.groups)
        return fill(nn.Conv2d(**bare_conv(self), device="meta"), weight, folded_bias(self.bias, self.scale, self.shift))


def bare_conv(like: nn.Conv2d) -> dict[str, Any]:
    """Return the constructor arguments of a convolution."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    return {name: getattr(like, name) for name in names}


class ScaledNorm(nn.LayerNorm, Scales):
    """An `nn.LayerNorm` over the channels under a scale and shift, folded into its own affine: no extra pass."""

    def __init__(self, base: nn.LayerNorm, axis: int, scale: bool = True, shift: bool = True) -> None:
        super().__init__(base.normalized_shape, base.eps, device="meta")
        self.stock, self.axis = type(base), axis  # timm has its own subclasses
        self.weight, self.bias = base.weight, base.bias
        self.add_scales(base.normalized_shape[-1], base.weight, scale, shift, None)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)`, or `(N, C, H, W)` where the axis is 1, to the same."""
        weight = self.weight if self.scale is None else self.weight * self.scale
        bias = folded_bias(self.bias, self.scale, self.shift)
        y = F.layer_norm(x.movedim(self.axis, -1), self.normalized_shape, weight, bias, self.eps)
        return y.movedim(-1, self.axis)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        plain = self.stock(self.normalized_shape, eps=self.eps)
        weight = self.weight if self.scale is None else self.weight * self.scale
        return fill(plain, weight, folded_bias(self.bias, self.scale, self.shift))


class ScaledStream(nn.Identity, Scales):
    """Scale and shift of a residual stream, where no layer is that they could be folded into.

    What makes the stream has to take them in when they are merged.
    """

    def __init__(self, channels: int, axis: int, like: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.add_scales(channels, like, True, True, None)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)`, or `(N, C, H, W)` where the axis is 1, to the same."""
        return x * along(self.affine()[0], self.axis) + along(self.affine()[1], self.axis)

    def merged(self) -> nn.Module:
        """Return what is left when the stream has taken in scale and shift; raise ValueError where it cannot."""
        if not torch.all(self.affine()[0]):
            raise ValueError("A stream's scale has a zero: what later layers read of that channel would be lost.")
        return nn.Identity()

    def settle(self, model: nn.Module) -> None:
        """Let the layers that make the stream, plain ones by now, take in scale and shift."""
        scale_stream(model, *self.affine())


Scaled = ScaledLinear | ScaledConv2d | ScaledNorm


def scaled(
    base: nn.Module, scale: bool = True, shift: bool = False, pre: nn.Module | None = None, axis: int = -1
) -> Scaled:
    """Return the scaled form of a stock layer whose output channels are on `axis`; `pre` gives the input scale, if any.

    Raises TypeError on a layer that has none.
    """
    if isinstance(base, nn.Linear):
        return ScaledLinear(base, scale, shift, pre)
    if type(base) is nn.Conv2d and base.padding_mode == "zeros" and not isinstance(base.padding, str):
        return ScaledConv2d(base, scale, shift, pre)
    if isinstance(base, nn.LayerNorm):
        return ScaledNorm(base, axis, scale, shift)
    raise TypeError(f"Cannot scale a {type(base).__name__}; allowed: Linear, Conv2d (zero padding), LayerNorm.")
