"""Adapter: a bottleneck after the MLP of every block (Houlsby et al., ICML 2019).

    y + scale * up(act(down(y)))    y: the output of the branch, before it is added to the stream;
                                    down and up drawn within two standard deviations of
                                    N(0, init_std), biases zero

`placement` mlp is where KMnP/vpt at 4410440 and NOAH put it; `houlsby` adds one after the
attention. Trainable on ViT-B/16 without the head: 156,768 at bottleneck_dim 8 (NOAH), 1,779,840 at
96 (vpt's reduction of 8), mlp alone. It starts near the pre-trained function, at it if init_std is
0; at vpt's own start (init_std 0) only the last bias ever learns. It cannot be merged: the
bottleneck is not linear.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from san.backbones import Branch, Site, branches
from san.layers.bottleneck import Bottleneck
from san.schema import DropoutRate, NonNegativeFloat, PositiveInt


class BranchAdapter(Bottleneck):
    """A bottleneck that adds to the output of a branch."""

    def __init__(
        self,
        branch: Branch,
        bottleneck_dim: int,
        activation: str,
        scale: float,
        bias: bool,
        dropout: float,
        like: Tensor,
    ) -> None:
        super().__init__(
            branch.channels, bottleneck_dim, activation, bias, dropout, branch.axis, like
        )
        self.scale = scale

    def before_exit(self, branch_exit: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward pre-hook of a branch's exit: add the bottleneck.

        `(B, ..., C)`, or `(B, C, H, W)` in ConvNeXt, to the same.
        """
        y = inputs[0]
        return (torch.add(y, self(y), alpha=self.scale), *inputs[1:])


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    bottleneck_dim: PositiveInt = 8,
    activation: Literal["gelu", "quick_gelu", "relu"] = "gelu",
    placement: Literal["mlp", "houlsby"] = "mlp",
    scale: float = 1.0,
    init_std: NonNegativeFloat = 0.01,
    bias: bool = True,
    dropout: DropoutRate = 0.0,
) -> Iterable[str]:
    """Add a bottleneck after every MLP, and after every attention where `placement` is houlsby.

    activation: gelu (vpt), quick_gelu (NOAH) or relu. scale: Mai et al. (OSU-MLB/PETL_Vision at
    245d262) tune it from 0.01 to 10. init_std: Houlsby et al. 0.01. dropout: in the bottleneck
    (NOAH: 0.1).
    """
    places = [b for b in branches(model) if placement == "houlsby" or b.kind == "mlp"]
    like = next(model.parameters())
    # All are made before the first is initialised: a seed gives the weights that it always gave.
    adapters = [
        BranchAdapter(branch, bottleneck_dim, activation, scale, bias, dropout, like)
        for branch in places
    ]
    for branch, adapter in zip(places, adapters, strict=True):
        adapter.init_weights(init_std)
        model.get_submodule(branch.block).add_module(f"adapter_{branch.kind}", adapter)
        model.get_submodule(branch.exit).register_forward_pre_hook(adapter.before_exit)
    return []
