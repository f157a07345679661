"""Layers with scaled inputs and scaled, shifted outputs: y = s * ((W + U D) (p * x) + b) + t.

They are stock layers with the same parameter names plus `scale`, `shift` and `pre`, the module that
gives p; the low-rank update U D is that of `san.layers.low_rank`. All of it is in the folded weight
W' = diag(s) (W + U D) diag(p), so a forward pass is the plain layer's. The gradients come from what
the backward pass has anyway, never from a dense weight gradient:

    dx = W'^T dy    ds = sum_n dy_n * (y_n - t) / s    dt = sum_n dy_n    dp = sum_n dx_n * x_n / p
    dD = sum_n (U^T (s * dy_n)) (p * x_n)^T    dU = diag(s) sum_n dy_n (D (p * x_n))^T

where W may be a matrix or, without an update, a convolution. A channel whose scale is exactly zero
would lose its gradient by that division; it is run at a tiny scale instead, which float64, float32
and bfloat16 carry at full relative precision and which is far below the rounding error of its
neighbours. That holds for p, and for s without a shift; beside a shift t, ds keeps its precision
while |y - t| is not tiny against |t|.
"""

from typing import Any, Literal, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.errors import InvalidValueError, UnsupportedModelError
from san.layers.scaled_op import (
    Conv,
    broadcast_channels,
    fold_bias,
    fold_weight,
    scaled_op,
)
from san.layers.shared_linear import SharedLinear, with_parameters


class ScaleMixin(nn.Module):
    """The scales of a layer, each of which may be absent.

    scale, shift: of the outputs, trained. pre: the module that gives the scale of the inputs.
    writer: of the inputs, where it takes part: a norm `applies` that scale, an activation
    `differentiates` by it. See `read_from`.
    """

    scale: nn.Parameter | None
    shift: nn.Parameter | None
    pre: nn.Module | None
    writer: Literal["applies", "differentiates"] | None = None

    def add_scales(
        self, channels: int, like: Tensor, scale: bool, shift: bool, input_scale: nn.Module | None
    ) -> None:
        """Register ones, zeros and the module that gives the input scale `(inputs,)`."""
        ones = torch.ones(channels, dtype=like.dtype, device=like.device)
        self.scale = nn.Parameter(ones) if scale else None
        self.shift = nn.Parameter(torch.zeros_like(ones)) if shift else None
        self.pre = input_scale

    def new_scale(self) -> nn.Parameter:
        """Return ones `(channels,)`, for a scale of the outputs that this layer does not apply."""
        weight = cast(Tensor, self.weight)
        ones = torch.ones(len(weight), dtype=weight.dtype, device=weight.device)
        return nn.Parameter(ones)

    def scale_and_shift(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return scale and shift, both `(channels,)`, of a layer that has both."""
        assert self.scale is not None
        assert self.shift is not None
        return self.scale, self.shift

    def input_scale(self) -> Tensor | None:
        """Return p `(inputs,)` as this layer applies it, None for ones."""
        if self.pre is None or self.writer == "applies":
            return None
        p: Tensor = self.pre()
        return p.detach() if self.writer == "differentiates" else p


class ScaledLinear(SharedLinear, ScaleMixin):
    """An `nn.Linear` under scales; its weight and bias are shared with `base` and do not change."""

    def __init__(
        self,
        base: nn.Linear,
        scale: bool = True,
        shift: bool = False,
        input_scale: nn.Module | None = None,
    ) -> None:
        super().__init__(base)
        self.add_scales(base.out_features, base.weight, scale, shift, input_scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        return scaled_op(x, self.weight, self.bias, self.scale, self.shift, self.input_scale())

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        weight = fold_weight(self.weight, self.scale, self.input_scale())
        bias = fold_bias(self.bias, self.scale, self.shift)
        return self.to_linear(weight, bias)


class ScaledConv2d(nn.Conv2d, ScaleMixin):
    """An `nn.Conv2d` under scales, on `(N, I, H, W)`."""

    def __init__(
        self,
        base: nn.Conv2d,
        scale: bool = True,
        shift: bool = False,
        input_scale: nn.Module | None = None,
    ) -> None:
        super().__init__(**_conv_kwargs(base), bias=base.bias is not None, device="meta")
        self.weight = base.weight
        self.bias = base.bias
        self.add_scales(base.out_channels, base.weight, scale, shift, input_scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, I, H, W)` to `(N, O, H', W')`."""
        p = self.input_scale()
        conv = self.geometry()
        return scaled_op(x, self.weight, self.bias, self.scale, self.shift, p, conv=conv)

    def geometry(self) -> Conv:
        """Return what `F.conv2d` takes beside weight and bias."""
        return Conv(self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        weight = fold_weight(self.weight, self.scale, self.input_scale(), self.groups)
        bias = fold_bias(self.bias, self.scale, self.shift)
        plain = nn.Conv2d(**_conv_kwargs(self), device="meta")
        return with_parameters(plain, weight, bias)


class ConvWithTrainedBias(ScaledConv2d):
    """An `nn.Conv2d` of which the bias trains, and the weight does not.

    Asked for the gradient of a bias, torch on a CPU computes that of the weight with it, which in
    ConvNeXt's depthwise convolutions takes six times as long as the rest of the backward pass.
    """

    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__(base, scale=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, I, H, W)` to `(N, O, H', W')`."""
        return scaled_op(x, self.weight, shift=self.bias, conv=self.geometry())


def _conv_kwargs(like: nn.Conv2d) -> dict[str, Any]:
    """Return the constructor arguments of a convolution without its bias."""
    return {
        "in_channels": like.in_channels,
        "out_channels": like.out_channels,
        "kernel_size": like.kernel_size,
        "stride": like.stride,
        "padding": like.padding,
        "dilation": like.dilation,
        "groups": like.groups,
    }


class ScaledNorm(nn.LayerNorm, ScaleMixin):
    """An `nn.LayerNorm` over the channels under a scale and shift.

    They are folded into its own affine, so that there is no extra pass. So is the input scale of
    its reader, the one layer that reads it: its gradient is then one of the affine's, and takes no
    activation.
    """

    def __init__(
        self,
        base: nn.LayerNorm,
        axis: int,
        scale: bool = True,
        shift: bool = True,
        reader: Any = None,
    ) -> None:
        super().__init__(base.normalized_shape, base.eps, device="meta")
        self.base_class = type(base)  # timm has its own subclasses
        self.axis = axis
        self.weight = base.weight
        self.bias = base.bias
        channels = base.normalized_shape[-1]
        self.add_scales(channels, base.weight, scale, shift, input_scale=None)
        # In a tuple, as it is no part of the norm.
        self.readers: tuple[Any, ...] = () if reader is None else (reader,)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)`, or `(N, C, H, W)` where the axis is 1, to the same."""
        weight, bias = self._folded()
        if self.axis == -1:
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
        channels_last = x.movedim(self.axis, -1)
        y = F.layer_norm(channels_last, self.normalized_shape, weight, bias, self.eps)
        return y.movedim(-1, self.axis)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        plain = self.base_class(self.normalized_shape, eps=self.eps)
        return with_parameters(plain, *self._folded())

    def _folded(self) -> tuple[Tensor, Tensor | None]:
        weight = self.weight if self.scale is None else self.weight * self.scale
        bias = fold_bias(self.bias, self.scale, self.shift)
        for reader in self.readers:
            p = reader.pre()
            weight = weight * p
            bias = fold_bias(bias, p, None)
        return weight, bias


class ScaledStream(nn.Identity, ScaleMixin):
    """Scale and shift of a residual stream that ends in no layer to fold them into.

    On a merge they are folded into the layers that make the stream.
    """

    def __init__(self, channels: int, axis: int, like: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.add_scales(channels, like, scale=True, shift=True, input_scale=None)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)`, or `(N, C, H, W)` where the axis is 1, to the same."""
        scale, shift = self.scale_and_shift()
        return x * broadcast_channels(scale, self.axis) + broadcast_channels(shift, self.axis)

    def merged(self) -> nn.Module:
        """Return an identity, for `finish_merge` does the rest.

        Raises InvalidValueError where it could not: later layers would lose a channel of scale 0.
        """
        scale, _ = self.scale_and_shift()
        if not torch.all(scale):
            raise InvalidValueError(
                "The scale of a residual stream has a zero, so it cannot be merged: "
                "the blocks of the last stage would lose that channel. Use the model unmerged."
            )
        return nn.Identity()

    def finish_merge(self, model: nn.Module) -> None:
        """Fold scale and shift into the layers that make the stream, plain ones by now."""
        fold_into_last_stage(model, *self.scale_and_shift())


Scaled = ScaledLinear | ScaledConv2d | ScaledNorm


def scale_layer(
    base: nn.Module,
    scale: bool = True,
    shift: bool = False,
    input_scale: nn.Module | None = None,
    axis: int = -1,
) -> Scaled:
    """Return the scaled form of a stock layer whose output channels are on `axis`.

    input_scale: the module that gives the scale of its inputs, if any.
    Raises UnsupportedModelError on a layer that has no scaled form.
    """
    if isinstance(base, nn.Linear):
        return ScaledLinear(base, scale, shift, input_scale)
    if is_plain_conv(base):
        return ScaledConv2d(base, scale, shift, input_scale)
    if isinstance(base, nn.LayerNorm):
        return ScaledNorm(base, axis, scale, shift)
    raise UnsupportedModelError(
        f"Cannot scale a {type(base).__name__}; allowed: Linear, Conv2d (zero padding), LayerNorm."
    )


def is_plain_conv(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tell whether a layer is a convolution that pads with zeros, as many as it says in numbers."""
    # Exactly Conv2d: a subclass may standardize its weight, or pad in another way.
    if type(layer) is not nn.Conv2d:
        return False
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


@torch.no_grad()
def fold_into_last_stage(model: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Make the last stage of a plain ConvNeXt return scale * x + shift in place of its output x.

    Both are `(C,)`. The scale enters with the stage's downsampling and with all that its blocks
    add, and is taken out again before the depthwise convolutions, so none may be zero; the shift
    enters with the last block.
    """
    stage: Any = cast(Any, model).stages[-1]
    downsampling = stage.downsample[1]
    _scale_outputs(downsampling, scale)
    for block in stage.blocks:
        depthwise = block.conv_dw.weight
        depthwise.div_(scale.view(-1, 1, 1, 1))
        if block.gamma is None:
            _scale_outputs(block.mlp.fc2, scale)
        else:
            # The layer scale moves into fc2 along with ours.
            _scale_outputs(block.mlp.fc2, scale * block.gamma)
            block.gamma.fill_(1)
    last = stage.blocks[-1].mlp.fc2
    bias = shift.clone() if last.bias is None else last.bias + shift
    last.bias = nn.Parameter(bias, requires_grad=False)


def _scale_outputs(layer: nn.Linear | nn.Conv2d, scale: Tensor) -> None:
    """Multiply the outputs of a plain layer by `scale` `(O,)`, in place."""
    ones = [1] * (layer.weight.ndim - 1)
    layer.weight.mul_(scale.view(-1, *ones))
    if layer.bias is not None:
        layer.bias.mul_(scale)
