"""The bottleneck that adapters share: up(act(down(x))), on channels last or on axis 1."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.errors import choose


def quick_gelu(x: Tensor) -> Tensor:
    """X * sigmoid(1.702 x), the approximation of OpenAI's CLIP, which NOAH uses."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
}


class Bottleneck(nn.Module):
    """Two linears with an activation, and dropout, between them: `(..., C)` to the same, or `(B, C, H, W)`.

    axis: where the channels are, -1 or 1. Parameters have the type and device of `like`.
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
        if bottleneck_dim < 1 or not 0 <= dropout < 1:
            allowed = "a bottleneck_dim of 1 or more, a dropout from 0 to below 1"
            raise ValueError(
                f"bottleneck_dim came as {bottleneck_dim}, dropout as {dropout}; allowed: {allowed}."
            )
        self.act = ACTIVATIONS[choose(activation, ACTIVATIONS, "activation")]
        self.axis = axis
        self.down = nn.Linear(
            channels, bottleneck_dim, bias=bias, dtype=like.dtype, device=like.device
        )
        self.up = nn.Linear(
            bottleneck_dim, channels, bias=bias, dtype=like.dtype, device=like.device
        )
        self.dropout = nn.Dropout(dropout)

    def init_weights(self, std: float) -> None:
        """Draw both weights from N(0, std) within two standard deviations, and set the biases to zero."""
        if not std >= 0:
            raise ValueError(f"std came as {std}; allowed: 0 or more.")
        for linear in (self.down, self.up):
            if std > 0:
                nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
            else:
                nn.init.zeros_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the bottleneck of x, its channels times `scale` `(C,)` if given."""
        low = self.dropout(self.act(self.down(x.movedim(self.axis, -1))))
        y: Tensor = self.up(low)
        y = y if scale is None else y * scale
        return y.movedim(-1, self.axis)
