"""ARC: adapters that share their projections and scale them anew (Dong et al., NeurIPS 2023).

    a + P diag(c) P^T a + b     a: the output of norm1, on its way into the attention;
                                P: (channels, rank), shared by the layers of one width, Xavier-
                                uniform; c: (rank,), zero; b: (channels,), zero
    the same with Q for the MLP, whose c is Xavier-uniform: of the output of norm2; in Swin of the
    residual stream between attention and MLP, in place of the stream itself

As in DavidYanAnDe/ARC at 8227d57, Model/ARC_ViT.py and ARC_swin_b.py; dropout stands before P.
Trainable without the head at rank 50: ViT-B/16 96,432, with the attention alone 48,216; Swin-B
218,464. With the MLP it does not start at the pre-trained function.

What follows a norm folds into qkv and fc1, which alone read it, and merges exactly. The stream goes
on past the MLP, too, where no layer could take in Q: ARC cannot be merged on Swin, but for
`placement` attention.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from san.backbones import Branch, Site, branches, family
from san.layers.hook_slot import HookSlot
from san.layers.scaled_op import scaled_op
from san.layers.shared_linear import SharedLinear
from san.schema import DropoutRate, PositiveInt


def incompatibility(family: str, options: Mapping[str, Any]) -> str | None:
    """Refuse a family without attention."""
    if family != "ConvNeXt":
        return None
    return "it has no attention, and the authors say nothing of convolutions"


class RecomposedAdapter(nn.Module):
    """x + P diag(c) P^T x + b. projection: P `(C, rank)`, shared; coefficients: c; shift: b."""

    def __init__(self, projection: nn.Parameter, dropout: float) -> None:
        super().__init__()
        channels, rank = projection.shape
        self.projection = projection
        self.coefficients = nn.Parameter(projection.new_zeros(rank))
        self.shift = nn.Parameter(projection.new_zeros(channels))
        self.dropout = nn.Dropout(dropout)

    def draw_coefficients(self) -> None:
        """Draw c Xavier-uniform, as a matrix of one row."""
        bound = math.sqrt(6 / (1 + len(self.coefficients)))
        nn.init.uniform_(self.coefficients, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)` to the same."""
        return x + self.added(x)

    def added(self, x: Tensor) -> Tensor:
        """Return P diag(c) P^T x + b: `(..., C)`, as x."""
        low = self.dropout(x @ (self.projection * self.coefficients))
        added: Tensor = low @ self.projection.T + self.shift
        return added

    @property
    def is_random(self) -> bool:
        """Whether what it adds is drawn anew in each pass."""
        return self.training and self.dropout.p > 0


class ArcLinear(SharedLinear):
    """An `nn.Linear` that reads its input through an adapter."""

    def __init__(self, base: nn.Linear, arc: RecomposedAdapter) -> None:
        super().__init__(base)
        self.arc = arc

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        if self.arc.is_random:
            return scaled_op(self.arc(x), self.weight, self.bias)
        down, up, bias = self.folded()
        return scaled_op(x, self.weight, shift=bias, down=down, up=up)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same; it has a bias."""
        down, up, bias = self.folded()
        return self.to_linear(self.weight + up @ down, bias)

    def folded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the adapter behind the weight: P^T, W P diag(c), and the bias with W b in it."""
        # In full precision, as the update is added before anything is rounded.
        with torch.autocast(self.weight.device.type, enabled=False):
            projection = self.arc.projection
            up = self.weight @ (projection * self.arc.coefficients)
            bias = self.weight @ self.arc.shift
            if self.bias is not None:
                bias = bias + self.bias
            return projection.T, up, bias


class StreamAdapter(RecomposedAdapter):
    """An adapter of the residual stream, where a branch begins: what it adds stays in the stream.

    It adds twice: to what the branch reads, and to the branch's output in place of the stream.
    """

    def __init__(self, projection: nn.Parameter, dropout: float) -> None:
        super().__init__(projection, dropout)
        self.slot = HookSlot()  # what it has added, until the branch ends

    def at_entry(self, entry: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward pre-hook of the branch's entry: let it read the adapted stream."""
        x = inputs[0]
        added = self.added(x)
        self.slot.put(added)
        return (x + added, *inputs[1:])

    def at_exit(self, branch_exit: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> Tensor:
        """Forward hook of the branch's exit: add the same to its output."""
        return y + self.slot.take()


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    rank: PositiveInt = 50,
    placement: Literal["both", "attention"] = "both",
    dropout: DropoutRate = 0.1,
) -> Iterable[str]:
    """Adapt what the attention reads, and what the MLP reads unless `placement` is attention.

    dropout: 0.1 there on ViT, 0.5 on Swin.
    """
    readers = {site.writer: site.name for site in sites}
    adapted = [b for b in branches(model) if placement == "both" or b.kind == "attention"]
    projections = _draw_projections(adapted, rank, next(model.parameters()))
    has_stages = family(model) == "Swin"
    for branch in adapted:
        projection = projections[branch.kind, branch.channels]
        arc: RecomposedAdapter
        if branch.kind == "mlp" and has_stages:
            arc = StreamAdapter(projection, dropout)
            model.get_submodule(branch.block).add_module("arc", arc)
            model.get_submodule(branch.entry).register_forward_pre_hook(arc.at_entry)
            model.get_submodule(branch.exit).register_forward_hook(arc.at_exit)
        else:
            arc = RecomposedAdapter(projection, dropout)
            reader = readers[branch.entry]
            base = cast(nn.Linear, model.get_submodule(reader))
            model.set_submodule(reader, ArcLinear(base, arc))
        if branch.kind == "mlp":
            arc.draw_coefficients()
    return []


def _draw_projections(
    adapted: Sequence[Branch], rank: int, like: Tensor
) -> dict[tuple[str, int], nn.Parameter]:
    """Return P by the kind and width of the branches that share it."""
    projections: dict[tuple[str, int], nn.Parameter] = {}
    for branch in adapted:
        group = (branch.kind, branch.channels)
        if group not in projections:
            projections[group] = nn.Parameter(like.new_empty(branch.channels, rank))
            nn.init.xavier_uniform_(projections[group])
    return projections
