"""What writes the inputs of a scaled layer takes over from it what it can of the input scale p.

A layer that differentiates by its p keeps its inputs for that. A norm or a GELU before it has what
is needed anyway, so that nothing more is kept:

    norm    p * (x_hat * w + b) = x_hat * (p w) + (p b): it applies p, whose gradient is one of its
            affine's, whether that trains or not
    GELU    p stays folded into the layer's weight; dp = sum_n gelu(u_n) * dg_n / p, from its input
"""

from typing import Any

from torch import Tensor, nn

from san.layers.scaled import ScaledConv2d, ScaledLinear, ScaledNorm
from san.layers.scaled_op import ReadGELUFunction

_TIMM_GELUS = {"GELU": "none", "GELUTanh": "tanh"}  # timm's own, by class


class ReadGELU(nn.Module):
    """A GELU that one scaled layer reads; it gives the gradient of that layer's input scale.

    axis: of the channels.
    """

    def __init__(self, base: nn.Module, approximate: str, axis: int, reader: nn.Module) -> None:
        super().__init__()
        # In tuples, as they are no parts of it.
        self.base = (base,)
        self.readers: tuple[Any, ...] = (reader,)
        self.approximate = approximate
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)`, or `(N, C, H, W)` where the axis is 1, to the same."""
        (reader,) = self.readers
        y: Tensor = ReadGELUFunction.apply(x, reader.pre(), self.approximate, self.axis)
        return y

    def merged(self) -> nn.Module:
        """Return the plain activation."""
        return self.base[0]


def read_from(writer: nn.Module, layer: ScaledLinear | ScaledConv2d) -> nn.Module | None:
    """Return the form of a module that takes over from its one reader, `layer`, what it can of p.

    None where it is neither a layer norm nor a GELU; then the layer does all of it.
    """
    axis = 1 if isinstance(layer, ScaledConv2d) else -1
    if isinstance(writer, nn.LayerNorm):
        layer.writer = "applies"
        return ScaledNorm(writer, axis, scale=False, shift=False, reader=layer)
    approximate = _approximation(writer)
    if approximate is None:
        return None
    layer.writer = "differentiates"
    return ReadGELU(writer, approximate, axis, layer)


def _approximation(activation: nn.Module) -> str | None:
    """Return the `approximate` of a GELU, None of another activation."""
    if isinstance(activation, nn.GELU):
        return activation.approximate
    return _TIMM_GELUS.get(type(activation).__name__)
