"""Adapter+: a bottleneck with scaled channels on the stream after every block (Steitz & Roth, CVPR 2024).

    x + scale * drop_path(up(gelu(down(x))))        x: the stream; scale: one per channel, ones at the start

visinf/adapter_plus at d0e7cb4, conf/adapter/adapter_plus.yaml: position post, down and up drawn within two standard
deviations of N(0, 0.01) (Houlsby), biases zero, stochastic depth 0.1 on the adapter, no dropout, no norm. Trainable on
ViT-B/16 without the head, width 8: 165,984. It starts near the pre-trained function, and cannot be merged: the
bottleneck is not linear.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from san.backbones import Site, branches
from san.layers.bottleneck import Bottleneck


class PostAdapter(Bottleneck):
    """A bottleneck on a block's output; `drop_path` is the share of images that skip it while training."""

    def __init__(
        self, channels: int, width: int, bias: bool, dropout: float, axis: int, like: Tensor
    ) -> None:
        super().__init__(channels, width, "gelu", bias, dropout, axis, like)
        self.scale = nn.Parameter(like.new_ones(channels))
        self.drop_path = 0.0

    def after_block(self, block: nn.Module, inputs: tuple[Any, ...], x: Tensor) -> Tensor:
        """Forward hook of a block: its output `(B, ..., C)`, or `(B, C, H, W)` in ConvNeXt, plus the adapter."""
        y: Tensor = self(x, self.scale)
        if self.training and self.drop_path > 0:
            kept = y.new_empty(len(y), *[1] * (y.ndim - 1)).bernoulli_(1 - self.drop_path)
            y = y * kept / (1 - self.drop_path)
        return x + y


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    width: int = 8,
    std: float = 0.01,
    bias: bool = True,
    dropout: float = 0.0,
    drop_path: float = 0.1,
) -> Iterable[str]:
    """Add a bottleneck of `width` after every block. Raises ValueError out of range."""
    if not 0 <= drop_path < 1:
        raise ValueError(f"adapter_plus.drop_path came as {drop_path}; allowed: 0 to below 1.")
    ends = {branch.block: branch for branch in branches(model)}
    like = next(model.parameters())
    made = {
        name: PostAdapter(b.channels, width, bias, dropout, b.axis, like)
        for name, b in ends.items()
    }
    for name, adapter in made.items():
        adapter.init_weights(std)
        adapter.drop_path = drop_path
        block = model.get_submodule(name)
        block.add_module("adapter", adapter)
        block.register_forward_hook(adapter.after_block)
    return []
