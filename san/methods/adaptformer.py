"""AdaptFormer: a bottleneck beside the MLP of every block (Chen et al., NeurIPS 2022).

    x' = x + MLP(norm2(x)) + scale * (up relu(down x))        x is not normalised; down Kaiming-uniform, up zero

The side branch sees neither LayerScale nor DropPath, as in ShoufaChen/AdaptFormer at 6967d67 (scale 0.1, with biases,
dropout 0.1) and JieShibo/PETL-ViT (scale 1, no biases). In ConvNeXt, whose block is an MLP that begins with a depthwise
convolution, it stands beside the whole block. Trainable on ViT-B/16 without the head, width 8: 156,768 with biases and
147,456 without. It starts at the pre-trained function, and cannot be merged: the branch is not linear.
"""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from san.backbones import Site, branches
from san.layers.bottleneck import Bottleneck
from san.layers.hook_slot import HookSlot


class SideBranch(Bottleneck):
    """A bottleneck that reads what a branch reads, and adds to what it ends with."""

    def __init__(
        self, channels: int, width: int, bias: bool, dropout: float, axis: int, like: Tensor
    ) -> None:
        super().__init__(channels, width, "relu", bias, dropout, axis, like)
        self.scale = 1.0
        self.stream = HookSlot()  # what the branch read, until it ends
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.up.weight, self.up.bias, self.down.bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def at_entry(self, entry: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook of a branch's entry: remember the stream."""
        self.stream[:] = inputs[:1]

    def at_exit(self, exit_: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> Tensor:
        """Forward hook of a branch's exit: add the side branch."""
        out: Tensor = y + self.scale * self(self.stream.pop())
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
    """Add a bottleneck of `width` beside every MLP (paper's default: 64). dropout: after the relu."""
    found = [branch for branch in branches(model) if branch.kind == "mlp"]
    like = next(model.parameters())
    made = [SideBranch(b.channels, width, bias, dropout, b.axis, like) for b in found]
    for branch, side in zip(found, made, strict=True):
        side.scale = scale
        model.get_submodule(branch.block).add_module("adaptformer", side)
        model.get_submodule(branch.entry).register_forward_pre_hook(side.at_entry)
        model.get_submodule(branch.exit).register_forward_hook(side.at_exit)
    return []
