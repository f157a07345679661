"""RepAdapter: a linear adapter before attention and MLP (Luo et al., arXiv 2302.08106).

    R(x) = x + scale * (B drop(A x + a) + b)        A: (bottleneck_dim, channels), Xavier-uniform;
                                                    B: zero, in `groups` groups, each of which
                                                    reads its own part of the bottleneck; a, b zero

    placement both        attn(R1(norm1(x)))   mlp(R2(norm2(x)))
    placement attention   attn(R1(norm1(x)))   in ConvNeXt conv_dw(R1(x)), shortcut not adapted

As luogen1996/RepAdapter at 360992f, repadapter.py, which runs in ConvNeXt with placement attention
alone. Trainable on ViT-B/16 without the head at bottleneck_dim 8: 239,808 (of these 221,184 are
weights, the paper's 0.22 M), before attention alone 119,904. It starts at the pre-trained function.
It merges exactly into qkv and fc1: W' = W + scale W B A, bias' = bias + scale W (B a + b). It
cannot be merged on ConvNeXt: R mixes all channels, of which a depthwise convolution reads one at a
time.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site
from san.errors import InvalidValueError
from san.layers.shared_linear import SharedLinear
from san.schema import DropoutRate, PositiveInt

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "repadapter": {},
    "repadapter_attn": {"placement": "attention"},
}
# What reads adapted inputs, by the last part of its name.
_ADAPTED = {"both": ("qkv", "fc1"), "attention": ("qkv", "conv_dw")}


def incompatibility(family: str, options: Mapping[str, Any]) -> str | None:
    """Refuse two places a block in ConvNeXt, whose blocks have one branch."""
    if family != "ConvNeXt" or options["placement"] == "attention":
        return None
    return "its blocks have no attention; with method.placement=attention conv_dw is adapted"


class GroupedLinear(nn.Module):
    """A linear layer whose outputs, in `groups` equal parts, read the inputs in as many parts.

    weight: `(outputs, inputs / groups)`, bias: `(outputs,)`, both zero.
    """

    def __init__(self, inputs: int, outputs: int, groups: int, like: Tensor) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(like.new_zeros(outputs, inputs // groups))
        self.bias = nn.Parameter(like.new_zeros(outputs))

    def dense_weight(self) -> Tensor:
        """Return the weight with zeros where an output does not read: `(outputs, inputs)`."""
        blocks = self.weight.chunk(self.groups)
        dense: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
        return dense

    def forward(self, x: Tensor) -> Tensor:
        """`(..., inputs)` to `(..., outputs)`."""
        return F.linear(x, self.dense_weight(), self.bias)


class RepAdapter(nn.Module):
    """R on `channels`, which are the last axis."""

    def __init__(
        self,
        channels: int,
        bottleneck_dim: int,
        groups: int,
        scale: float,
        dropout: float,
        like: Tensor,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(channels, bottleneck_dim, dtype=like.dtype, device=like.device)
        self.dropout = nn.Dropout(dropout)
        self.up = GroupedLinear(bottleneck_dim, channels, groups, like)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)` to the same."""
        added = self.up(self.dropout(self.down(x)))
        return torch.add(x, added, alpha=self.scale)

    def before_conv(self, conv: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward pre-hook of a convolution: adapt what it reads, `(B, C, H, W)`."""
        channels_last = inputs[0].movedim(1, -1)
        return (self(channels_last).movedim(-1, 1), *inputs[1:])


class RepLinear(SharedLinear):
    """An `nn.Linear` of adapted inputs; its weight and bias are shared with `base`."""

    def __init__(self, base: nn.Linear, adapter: RepAdapter) -> None:
        super().__init__(base)
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        return F.linear(self.adapter(x), self.weight, self.bias)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        down = self.adapter.down
        up = self.adapter.up
        read = self.adapter.scale * (self.weight @ up.dense_weight())
        weight = self.weight + read @ down.weight
        bias = read @ down.bias + self.adapter.scale * (self.weight @ up.bias)
        if self.bias is not None:
            bias = bias + self.bias
        return self.to_linear(weight, bias)


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    placement: Literal["both", "attention"] = "both",
    bottleneck_dim: PositiveInt = 8,
    groups: PositiveInt = 2,
    scale: float = 1.0,
    dropout: DropoutRate = 0.1,
) -> Iterable[str]:
    """Adapt what every attention reads and, where `placement` is both, what every MLP does.

    scale: the authors tune it from 0.1 to 10. groups: of the way up (official 2); they divide
    bottleneck_dim and all widths. dropout: between A and B.
    """
    blocks = [site for site in sites if site.part == "block"]
    places = [s for s in blocks if s.name.rpartition(".")[-1] in _ADAPTED[placement]]
    _check_groups(groups, [bottleneck_dim, *(site.inputs for site in places)])
    like = next(model.parameters())
    for site in places:
        adapter = RepAdapter(site.inputs, bottleneck_dim, groups, scale, dropout, like)
        base = model.get_submodule(site.name)
        if isinstance(base, nn.Linear):
            model.set_submodule(site.name, RepLinear(base, adapter))
        else:
            block = model.get_submodule(site.name.rpartition(".")[0])
            block.add_module("repadapter", adapter)
            base.register_forward_pre_hook(adapter.before_conv)
    return []


def _check_groups(groups: int, widths: Sequence[int]) -> None:
    """Raise InvalidValueError unless `groups` divides all widths, the bottleneck's first."""
    largest = math.gcd(*widths)
    others = sorted(set(widths[1:]))
    if largest % groups:
        raise InvalidValueError(
            f"method.groups came as {groups}; allowed: what divides method.bottleneck_dim "
            f"({widths[0]}) and all widths of this backbone ({', '.join(map(str, others))}): "
            f"a divisor of {largest}."
        )
