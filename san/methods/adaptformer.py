"""AdaptFormer: a bottleneck beside the MLP of every block (Chen et al., NeurIPS 2022).

    x' = x + MLP(norm2(x)) + scale * (up relu(down x))        x is not normalised;
                                                              down Kaiming-uniform, up zero

The side branch sees neither LayerScale nor DropPath, as in ShoufaChen/AdaptFormer at 6967d67
(scale 0.1, with biases, dropout 0.1) and JieShibo/PETL-ViT (scale 1, no biases). In ConvNeXt, whose
block is an MLP that begins with a depthwise convolution, it stands beside the whole block.
Trainable on ViT-B/16 without the head at bottleneck_dim 8: 156,768 with biases and 147,456 without.
It starts at the pre-trained function, and cannot be merged: the branch is not linear.
"""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from san.backbones import Branch, Site, branches
from san.layers.bottleneck import Bottleneck
from san.layers.hook_slot import HookSlot
from san.schema import DropoutRate, PositiveInt


class SideBranch(Bottleneck):
    """A bottleneck that reads the input of a branch and adds to its output."""

    def __init__(
        self,
        branch: Branch,
        bottleneck_dim: int,
        scale: float,
        bias: bool,
        dropout: float,
        like: Tensor,
    ) -> None:
        super().__init__(branch.channels, bottleneck_dim, "relu", bias, dropout, branch.axis, like)
        self.scale = scale
        self.stream = HookSlot()  # the input of the branch, until the branch ends
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.up.weight, self.up.bias, self.down.bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def at_entry(self, entry: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook of a branch's entry: remember the stream."""
        self.stream.put(inputs[0])

    def at_exit(self, branch_exit: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> Tensor:
        """Forward hook of a branch's exit: add the side branch."""
        side: Tensor = self(self.stream.take())
        return y + self.scale * side


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    bottleneck_dim: PositiveInt = 8,
    scale: float = 0.1,
    bias: bool = True,
    dropout: DropoutRate = 0.1,
) -> Iterable[str]:
    """Add a bottleneck beside every MLP.

    bottleneck_dim: the paper's default is 64. scale: paper 0.1. dropout: after the relu.
    """
    like = next(model.parameters())
    for branch in branches(model):
        if branch.kind != "mlp":
            continue
        side = SideBranch(branch, bottleneck_dim, scale, bias, dropout, like)
        model.get_submodule(branch.block).add_module("adaptformer", side)
        model.get_submodule(branch.entry).register_forward_pre_hook(side.at_entry)
        model.get_submodule(branch.exit).register_forward_hook(side.at_exit)
    return []
