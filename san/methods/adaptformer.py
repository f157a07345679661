"""AdaptFormer: a bottleneck beside the MLP of every block (Chen et al., NeurIPS 2022).

    x' = x + MLP(norm2(x)) + scale * (up relu(down x))        x is not normalised; down Kaiming-uniform, up zero

The side branch sees neither LayerScale nor DropPath, as in ShoufaChen/AdaptFormer at 6967d67 (scale 0.1, with biases,
dropout 0.1) and JieShibo/PETL-ViT (scale 1, no biases). Trainable on ViT-B/16 without the head, width 8: 156,768 with
biases and 147,456 without. It starts at the pre-trained function, and cannot be merged: the branch is not linear.
"""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from san.backbones import Site


class Fork(nn.LayerNorm):
    """The norm before the MLP; it keeps what it read until the branch takes it."""

    def __init__(self, base: nn.LayerNorm) -> None:
        super().__init__(base.normalized_shape, base.eps, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.read: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, C)` to the same."""
        self.read.append(x)
        return super().forward(x)


class Branch(nn.Module):
    """What the block adds after its MLP, plus the bottleneck of what the fork read."""

    def __init__(self, after: nn.Module, fork: Fork, width: int, scale: float, bias: bool, dropout: float) -> None:
        super().__init__()
        like = {"dtype": fork.weight.dtype, "device": fork.weight.device}
        channels = fork.normalized_shape[0]
        self.after, self.scale = after, scale
        self.down = nn.Linear(channels, width, bias=bias, **like)  # type: ignore[arg-type]
        self.up = nn.Linear(width, channels, bias=bias, **like)  # type: ignore[arg-type]
        self.dropout = nn.Dropout(dropout)
        self.taken = fork.read  # the very list: not the module, whose parameters have a place already
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.up.weight, self.up.bias, self.down.bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def forward(self, y: Tensor) -> Tensor:
        """Add the side branch to the MLP's output `(B, T, C)`."""
        low = self.dropout(torch.relu(self.down(self.taken.pop())))
        out: Tensor = self.after(y) + self.scale * self.up(low)
        return out


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    width: int = 8,
    scale: float = 0.1,
    bias: bool = True,
    dropout: float = 0.1,
) -> Iterable[str]:
    """Add a bottleneck of `width` beside every MLP. Raises ValueError on a width below 1."""
    if width < 1:
        raise ValueError(f"adaptformer.width came as {width}; allowed: 1 or more.")
    before = {name for name, _ in model.named_parameters()}
    for block in cast(Any, model).blocks:
        block.norm2 = Fork(block.norm2)
        block.drop_path2 = Branch(block.drop_path2, block.norm2, width, scale, bias, dropout)
    return {name for name, _ in model.named_parameters()} - before
