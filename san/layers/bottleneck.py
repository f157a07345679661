"""The bottleneck that adapters share: up(act(down(x))), on channels last or on axis 1."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.errors import choose
from san.schema import DropoutRate, NonNegativeFloat, PositiveInt, check_value


def quick_gelu(x: Tensor) -> Tensor:
    """Return x * sigmoid(1.702 x), the approximation of OpenAI's CLIP, which NOAH uses."""
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
}


class Bottleneck(nn.Module):
    """Two linears with an activation, and dropout, between them.

    It takes `(..., C)`, or `(B, C, H, W)` where `axis`, the place of the channels, is 1, and
    returns the same shape. Parameters have the type and device of `like`.
    """

    def __init__(
        self,
        channels: int,
        bottleneck_dim: int,
        activation: str,
        bias: bool,
        dropout: float,
        axis: int,
        like: Tensor,
    ) -> None:
        super().__init__()
        check_value(bottleneck_dim, PositiveInt, "bottleneck_dim")
        check_value(dropout, DropoutRate, "dropout")
        choose(activation, _ACTIVATIONS, "activation")
        dtype = like.dtype
        device = like.device
        self.act = _ACTIVATIONS[activation]
        self.axis = axis
        self.down = nn.Linear(channels, bottleneck_dim, bias=bias, dtype=dtype, device=device)
        self.up = nn.Linear(bottleneck_dim, channels, bias=bias, dtype=dtype, device=device)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self, std: float) -> None:
        """Draw both weights from N(0, std) within two standard deviations; set biases to zero."""
        check_value(std, NonNegativeFloat, "init_std")
        for linear in (self.down, self.up):
            if std > 0:
                nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
            else:
                # trunc_normal_ would divide by zero.
                nn.init.zeros_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the bottleneck of x, its channels times `scale` `(C,)` if given."""
        channels_last = x.movedim(self.axis, -1)
        low = self.dropout(self.act(self.down(channels_last)))
        y: Tensor = self.up(low)
        if scale is not None:
            y = y * scale
        return y.movedim(-1, self.axis)
