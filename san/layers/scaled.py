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

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.layers.scaled_op import Conv, broadcast_channels, fold_bias, fold_weight, scaled_op


class ScaleMixin(nn.Module):
    """What scaled layers share: perhaps a trained `scale` and `shift`, perhaps `pre`, which gives the input scale."""

    scale: nn.Parameter | None
    shift: nn.Parameter | None
    pre: nn.Module | None

    def add_scales(
        self, channels: int, like: Tensor, scale: bool, shift: bool, input_scale: nn.Module | None
    ) -> None:
        """Register ones, zeros and the module that gives the input scale `(inputs,)`."""
        ones = torch.ones(channels, dtype=like.dtype, device=like.device)
        self.scale = nn.Parameter(ones) if scale else None
        self.shift = nn.Parameter(torch.zeros_like(ones)) if shift else None
        self.pre = input_scale

    def new_scale(self) -> nn.Parameter:
        """Return a new scale of the outputs that this layer itself does not apply: ones `(channels,)`."""
        weight = cast(Tensor, self.weight)
        return nn.Parameter(torch.ones(len(weight), dtype=weight.dtype, device=weight.device))

    def scale_and_shift(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return scale and shift, both `(C,)`, of a layer that has both."""
        assert self.scale is not None
        assert self.shift is not None
        return self.scale, self.shift

    def input_scale(self) -> Tensor | None:
        """Return p `(inputs,)`, None for ones."""
        return None if self.pre is None else self.pre()


def with_parameters(plain: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Give a plain layer, made on the meta device, its folded tensors."""
    plain.weight = nn.Parameter(weight.detach().clone())
    plain.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
    return plain


class ScaledLinear(nn.Linear, ScaleMixin):
    """An `nn.Linear` under scales; its own weight and bias are shared with `base` and stay as they are."""

    def __init__(
        self,
        base: nn.Linear,
        scale: bool = True,
        shift: bool = False,
        input_scale: nn.Module | None = None,
    ) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.add_scales(base.out_features, base.weight, scale, shift, input_scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        return scaled_op(x, self.weight, self.bias, self.scale, self.shift, self.input_scale())

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        weight = fold_weight(self.weight, self.scale, self.input_scale())
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        return with_parameters(plain, weight, fold_bias(self.bias, self.scale, self.shift))


class ScaledConv2d(nn.Conv2d, ScaleMixin):
    """An `nn.Conv2d` under scales, on `(N, I, H, W)`."""

    def __init__(
        self,
        base: nn.Conv2d,
        scale: bool = True,
        shift: bool = False,
        input_scale: nn.Module | None = None,
    ) -> None:
        super().__init__(**conv_kwargs(base), bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.add_scales(base.out_channels, base.weight, scale, shift, input_scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, I, H, W)` to `(N, O, H', W')`."""
        conv = Conv(self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]
        return scaled_op(
            x, self.weight, self.bias, self.scale, self.shift, self.input_scale(), conv=conv
        )

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        weight = fold_weight(self.weight, self.scale, self.input_scale(), self.groups)
        return with_parameters(
            nn.Conv2d(**conv_kwargs(self), device="meta"),
            weight,
            fold_bias(self.bias, self.scale, self.shift),
        )


def conv_kwargs(like: nn.Conv2d) -> dict[str, Any]:
    """Return the constructor arguments of a convolution."""
    names = (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
    )
    return {name: getattr(like, name) for name in names}


class ScaledNorm(nn.LayerNorm, ScaleMixin):
    """An `nn.LayerNorm` over the channels under a scale and shift, folded into its own affine: no extra pass."""

    def __init__(
        self, base: nn.LayerNorm, axis: int, scale: bool = True, shift: bool = True
    ) -> None:
        super().__init__(base.normalized_shape, base.eps, device="meta")
        self.stock, self.axis = type(base), axis  # timm has its own subclasses
        self.weight, self.bias = base.weight, base.bias
        self.add_scales(base.normalized_shape[-1], base.weight, scale, shift, None)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)`, or `(N, C, H, W)` where the axis is 1, to the same."""
        weight = self.weight if self.scale is None else self.weight * self.scale
        bias = fold_bias(self.bias, self.scale, self.shift)
        y = F.layer_norm(x.movedim(self.axis, -1), self.normalized_shape, weight, bias, self.eps)
        return y.movedim(-1, self.axis)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        plain = self.stock(self.normalized_shape, eps=self.eps)
        weight = self.weight if self.scale is None else self.weight * self.scale
        return with_parameters(plain, weight, fold_bias(self.bias, self.scale, self.shift))


class ScaledStream(nn.Identity, ScaleMixin):
    """Scale and shift of a residual stream, where no layer is that they could be folded into.

    What makes the stream has to take them in when they are merged.
    """

    def __init__(self, channels: int, axis: int, like: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.add_scales(channels, like, True, True, None)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)`, or `(N, C, H, W)` where the axis is 1, to the same."""
        return x * broadcast_channels(self.scale_and_shift()[0], self.axis) + broadcast_channels(
            self.scale_and_shift()[1], self.axis
        )

    def merged(self) -> nn.Module:
        """Return what is left when the stream has taken in scale and shift; raise ValueError where it cannot."""
        if not torch.all(self.scale_and_shift()[0]):
            raise ValueError(
                "A stream's scale has a zero: what later layers read of that channel would be lost."
            )
        return nn.Identity()

    def finish_merge(self, model: nn.Module) -> None:
        """Let the layers that make the stream, plain ones by now, take in scale and shift."""
        fold_into_last_stage(model, *self.scale_and_shift())

    settle = finish_merge


Scaled = ScaledLinear | ScaledConv2d | ScaledNorm


def scale_layer(
    base: nn.Module,
    scale: bool = True,
    shift: bool = False,
    input_scale: nn.Module | None = None,
    axis: int = -1,
) -> Scaled:
    """Return the scaled form of a stock layer whose output channels are on `axis`; `input_scale` gives that of its inputs.

    Raises TypeError on a layer that has none.
    """
    if isinstance(base, nn.Linear):
        return ScaledLinear(base, scale, shift, input_scale)
    if (
        type(base) is nn.Conv2d
        and base.padding_mode == "zeros"
        and not isinstance(base.padding, str)
    ):
        return ScaledConv2d(base, scale, shift, input_scale)
    if isinstance(base, nn.LayerNorm):
        return ScaledNorm(base, axis, scale, shift)
    raise TypeError(
        f"Cannot scale a {type(base).__name__}; allowed: Linear, Conv2d (zero padding), LayerNorm."
    )


@torch.no_grad()
def fold_into_last_stage(model: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Make the last stage of a plain ConvNeXt compute scale * x + shift in place of its output x; both `(C,)`.

    The scale enters with the stage's downsampling and with all that its blocks add, and is taken out again before the
    depthwise convolutions, so none may be zero; the shift enters with the last block.
    """
    stage: Any = cast(Any, model).stages[-1]
    opening = stage.downsample[1]
    opening.weight.mul_(scale.view(-1, 1, 1, 1))
    if opening.bias is not None:
        opening.bias.mul_(scale)
    for block in stage.blocks:
        block.conv_dw.weight.div_(scale.view(-1, 1, 1, 1))
        gain = scale if block.gamma is None else scale * block.gamma
        block.mlp.fc2.weight.mul_(gain.view(-1, *[1] * (block.mlp.fc2.weight.ndim - 1)))
        if block.mlp.fc2.bias is not None:
            block.mlp.fc2.bias.mul_(gain)
        if block.gamma is not None:
            block.gamma.fill_(1)
    last = stage.blocks[-1].mlp.fc2
    last.bias = nn.Parameter(
        shift.clone() if last.bias is None else last.bias + shift, requires_grad=False
    )
