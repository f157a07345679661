"""Adapter+: a bottleneck with scaled channels on the stream after every block.

    x + scale * drop_path(up(gelu(down(x))))        x: the stream; scale: one per channel, ones at
                                                    the start

Steitz & Roth, CVPR 2024; visinf/adapter_plus at d0e7cb4, conf/adapter/adapter_plus.yaml: position
post, down and up drawn within two standard deviations of N(0, 0.01) (Houlsby), biases zero,
stochastic depth 0.1 on the adapter, no dropout, no norm. Trainable on ViT-B/16 without the head at
bottleneck_dim 8: 165,984. It starts near the pre-trained function, at it if init_std is 0, and
cannot be merged: the bottleneck is not linear.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from san.backbones import Branch, Site, branches
from san.layers.bottleneck import Bottleneck
from san.schema import DropoutRate, NonNegativeFloat, PositiveInt


class PostAdapter(Bottleneck):
    """A bottleneck on a block's output; `drop_path`: share of images that skip it in training."""

    def __init__(
        self,
        branch: Branch,
        bottleneck_dim: int,
        bias: bool,
        dropout: float,
        drop_path: float,
        like: Tensor,
    ) -> None:
        channels = branch.channels
        super().__init__(channels, bottleneck_dim, "gelu", bias, dropout, branch.axis, like)
        self.scale = nn.Parameter(like.new_ones(channels))
        self.drop_path = drop_path

    def after_block(self, block: nn.Module, inputs: tuple[Any, ...], x: Tensor) -> Tensor:
        """Forward hook of a block: add the adapter to its output.

        `(B, ..., C)`, or `(B, C, H, W)` in ConvNeXt, to the same.
        """
        y: Tensor = self(x, self.scale)
        if self.training and self.drop_path > 0:
            one_per_image = y.new_empty(len(y), *[1] * (y.ndim - 1))
            kept = one_per_image.bernoulli_(1 - self.drop_path)
            y = y * kept / (1 - self.drop_path)
        return x + y


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    bottleneck_dim: PositiveInt = 8,
    init_std: NonNegativeFloat = 0.01,
    bias: bool = True,
    dropout: DropoutRate = 0.0,
    drop_path: DropoutRate = 0.1,
) -> Iterable[str]:
    """Add a bottleneck after every block. dropout: in the bottleneck."""
    last_branches = {branch.block: branch for branch in branches(model)}
    like = next(model.parameters())
    # All are made before the first is initialised: a seed gives the weights that it always gave.
    adapters = {
        name: PostAdapter(branch, bottleneck_dim, bias, dropout, drop_path, like)
        for name, branch in last_branches.items()
    }
    for name, adapter in adapters.items():
        adapter.init_weights(init_std)
        block = model.get_submodule(name)
        block.add_module("adapter", adapter)
        block.register_forward_hook(adapter.after_block)
    return []
