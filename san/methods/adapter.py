"""Adapter: a bottleneck after the MLP of every block (Houlsby et al., ICML 2019).

    y + up(act(down(y)))        y: what the branch is about to add to the stream; down and up drawn within two standard
                                deviations of N(0, std), biases zero

`placement` mlp is where KMnP/vpt at 4410440 and NOAH put it; `houlsby` adds one after the attention. Trainable on
ViT-B/16 without the head: 156,768 at width 8 (NOAH), 1,779,840 at width 96 (vpt's reduction of 8), mlp alone. It starts
near the pre-trained function, at it if std is 0; at vpt's own start (std 0) only the last bias ever learns. It cannot
be merged: the bottleneck is not linear.
"""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site, branches
from san.errors import choose
from san.layers.bottleneck import Bottleneck


class BranchAdapter(Bottleneck):
    """A bottleneck that adds to what a branch ends with."""

    def before_exit(self, exit_: nn.Module, inputs: tuple) -> tuple:  # type: ignore[type-arg]
        """Forward pre-hook of a branch's exit: `(B, ..., C)`, or `(B, C, H, W)` in ConvNeXt, plus its bottleneck."""
        return (inputs[0] + self(inputs[0]), *inputs[1:])


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    width: int = 8,
    activation: str = "gelu",
    placement: str = "mlp",
    std: float = 0.01,
    bias: bool = True,
    dropout: float = 0.0,
) -> Iterable[str]:
    """Add a bottleneck of `width` after every MLP, and after every attention where `placement` is houlsby.

    activation: gelu (vpt), quick_gelu (NOAH) or relu. std: Houlsby et al. 0.01. dropout: in the bottleneck (NOAH: 0.1).
    """
    choose(placement, ("mlp", "houlsby"), "placement")
    found = [branch for branch in branches(model) if placement == "houlsby" or branch.kind == "mlp"]
    like = next(model.parameters())
    made = [
        BranchAdapter(b.channels, width, activation, bias, dropout, b.axis, like) for b in found
    ]
    for branch, adapter in zip(found, made, strict=True):
        adapter.draw(std)
        model.get_submodule(branch.block).add_module(f"adapter_{branch.kind}", adapter)
        model.get_submodule(branch.exit).register_forward_pre_hook(adapter.before_exit)
    return []
