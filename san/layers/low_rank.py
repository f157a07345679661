"""Low-rank updates of frozen linear layers: what LoRA, DoRA and SAN on top of them share.

    W + scaling * B A       A: (rank, inputs), Kaiming-uniform (a = sqrt 5);
                            B: (outputs, rank), zero

On timm's fused qkv weight an update may be of the whole (`qkv`: one A for q, k and v, as NOAH and
HF peft do) or of its slices (`q`, `k`, `v`: an A and a B each, as JieShibo/PETL-ViT does on q
and v).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site
from san.errors import InvalidValueError, choose
from san.layers.scaled_op import scaled_op
from san.layers.shared_linear import SharedLinear
from san.schema import DropoutRate, PositiveInt, check_fields

_SLICES = ("q", "k", "v")
_MLP_TARGETS = ("fc1", "fc2")
_TARGETS = (*_SLICES, "qkv", "proj", *_MLP_TARGETS)
FAMILY_DEFAULTS = {"ConvNeXt": {"targets": _MLP_TARGETS}}  # which has no attention


@dataclass(frozen=True)
class LowRankConfig:
    """Settings of an update. dropout_at: on what A reads (`input`), or `between` A and B."""

    rank: PositiveInt
    scale: float
    dropout: DropoutRate
    dropout_at: Literal["between", "input"]

    def __post_init__(self) -> None:
        check_fields(self)


class UpdatedRows(NamedTuple):
    """Which outputs of a linear layer are updated: slices of `size`, and where each begins."""

    starts: tuple[int, ...]
    size: int


def scaling(rank: int, scale: float, alpha: float | None) -> float:
    """Return the factor of B A: `scale`, or alpha / rank if alpha is given.

    Raises InvalidValueError if both are.
    """
    if alpha is None:
        return scale
    if scale != 1:
        raise InvalidValueError(
            f"scale came as {scale} and alpha as {alpha}; give one of them (scale = alpha / rank)."
        )
    return alpha / max(rank, 1)


class LowRankLinear(SharedLinear):
    """An `nn.Linear` with updates of some slices of its outputs.

    Weight and bias are shared with `base`. starts: where each slice begins; size: its outputs.
    lora_a: `(slices, rank, I)`; lora_b: `(slices, size, rank)`.
    """

    def __init__(
        self, base: nn.Linear, starts: Sequence[int], size: int, update: LowRankConfig
    ) -> None:
        super().__init__(base)
        self.starts = tuple(starts)
        self.size = size
        self.scaling = update.scale
        slices = len(self.starts)
        self.lora_a = nn.Parameter(base.weight.new_empty(slices, update.rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(slices, size, update.rank))
        # Slice by slice: in three dimensions the initializer would take another fan-in.
        for a in self.lora_a:
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        self.dropout = nn.Dropout(update.dropout)
        self.dropout_at = update.dropout_at

    def compute(
        self,
        x: Tensor,
        bias: Tensor | None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        input_scale: Tensor | None = None,
    ) -> Tensor:
        """Return scale * ((W + scaling * B A) (input_scale * x) + bias) + shift.

        With dropout, A and B act on activations.
        """
        up = self.stacked_b()
        if not self.training or self.dropout.p == 0:
            down = self.stacked_a()
            return scaled_op(x, self.weight, bias, scale, shift, input_scale, down, up)
        # The dropout is between A and B or before A, so the update cannot join the frozen weight.
        if scale is not None:
            up = scale[:, None] * up
        frozen = scaled_op(x, self.weight, bias, scale, shift, input_scale)
        return frozen + F.linear(self.down_project(x, input_scale), up)

    def down_project(self, x: Tensor, input_scale: Tensor | None) -> Tensor:
        """Return A (input_scale * x) with dropout: `(..., slices * rank)`."""
        down = self.stacked_a()
        if input_scale is not None:
            down = down * input_scale
        if self.dropout_at == "input":
            return F.linear(self.dropout(x), down)
        low: Tensor = self.dropout(F.linear(x, down))
        return low

    def stacked_a(self) -> Tensor:
        """Return A of all slices, one below the other: `(slices * rank, I)`."""
        return self.lora_a.flatten(0, 1)

    def stacked_b(self) -> Tensor:
        """Return scaling * B of all slices, each at its rows and columns: `(O, slices * rank)`."""
        rank = self.lora_b.shape[-1]
        slices = len(self.starts)
        placed = []
        for i, b in enumerate(self.lora_b):
            # Columns of the other slices beside it, rows of the other outputs above and below.
            left = i * rank
            right = (slices - 1 - i) * rank
            above = self.starts[i]
            below = self.out_features - above - self.size
            placed.append(F.pad(b, (left, right, above, below)))
        stacked = placed[0] if slices == 1 else torch.stack(placed).sum(0)
        return self.scaling * stacked

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the values of the slices `(slices * size,)` out of those of all outputs `(O,)`."""
        return torch.cat([rows[start : start + self.size] for start in self.starts])

    def scatter_rows(self, updated: Tensor, fill: float) -> Tensor:
        """Scatter values of the slices `(slices * size,)` into `(O,)`; the rest is `fill`."""
        device = updated.device
        rows = [torch.arange(start, start + self.size, device=device) for start in self.starts]
        filled = updated.new_full((self.out_features,), fill)
        return filled.index_copy(0, torch.cat(rows), updated)

    def updated_weight(self) -> Tensor:
        """Return W + scaling * B A `(O, I)`, which training never needs to form."""
        return self.weight + self.stacked_b() @ self.stacked_a()

    @torch.no_grad()
    def row_norms(self) -> tuple[Tensor, Tensor]:
        """Return the Euclidean norms of the rows of W and of W + scaling * B A.

        Both are `(O,)` and constant for autograd. From

            |w + b A|^2 = |w|^2 + 2 b . (A w) + b (A A^T) b^T

        which costs no more than `rank` tokens do.
        """
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(self.weight.device.type, enabled=False):
            weight = self.weight.to(dtype)
            a = self.stacked_a().to(dtype)
            b = self.stacked_b().to(dtype)
            before = weight.square().sum(1)
            mixed = (b * (weight @ a.T)).sum(1)
            quadratic = (b @ (a @ a.T) * b).sum(1)
            after = before + (2 * mixed + quadratic)
        # A row of zeros has no direction, but its norm is divided by.
        tiny = torch.finfo(dtype).tiny
        norm_before = before.clamp_min(tiny).sqrt()
        norm_after = after.clamp_min(tiny).sqrt()
        return norm_before.to(self.weight.dtype), norm_after.to(self.weight.dtype)


def incompatibility(family: str, options: Mapping[str, Any]) -> str | None:
    """Return why the targets make no sense on a family: ConvNeXt has no attention."""
    if family != "ConvNeXt":
        return None
    absent = [
        target for target in options["targets"] if target in _TARGETS and target not in _MLP_TARGETS
    ]
    if not absent:
        return None
    return (
        f"it has no {', '.join(absent)}; method.targets=[fc1,fc2] is allowed where they are linear"
    )


def find_targets(sites: Sequence[Site], targets: Sequence[str]) -> dict[str, UpdatedRows]:
    """Return the updated rows by the names of the linear sites that `targets` mean.

    targets: any of q, k, v (slices), qkv (fused), proj, fc1, fc2, in every block. Raises
    UnknownNameError on an unknown one, InvalidValueError on none, on qkv with slices of it, and on
    one that this backbone does not have as a linear layer.
    """
    _check_targets(targets)
    linears = [site for site in sites if site.kind == "linear" and site.part == "block"]
    _check_present(linears, targets)
    slices = [i for i, name in enumerate(_SLICES) if name in targets]
    found: dict[str, UpdatedRows] = {}
    for site in linears:
        layer = _layer_name(site)
        if layer in targets:
            found[site.name] = UpdatedRows((0,), site.channels)
        elif layer == "qkv" and slices:
            third = site.channels // 3
            starts = tuple(i * third for i in slices)
            found[site.name] = UpdatedRows(starts, third)
    return found


def _check_targets(targets: Sequence[str]) -> None:
    """Raise on an unknown target, on none, and on qkv with slices of it."""
    for target in targets:
        choose(target, _TARGETS, "target")
    mixes_slices = "qkv" in targets and not set(targets).isdisjoint(_SLICES)
    if not targets or mixes_slices:
        raise InvalidValueError(
            f"targets came as {list(targets)}; allowed: one or more, and not qkv with slices of it."
        )


def _check_present(linears: Sequence[Site], targets: Sequence[str]) -> None:
    """Raise InvalidValueError unless the linear sites have all targets."""
    present = {_layer_name(site) for site in linears}
    if "qkv" in present:
        present.update(_SLICES)
    absent = [target for target in targets if target not in present]
    if absent:
        available = [target for target in _TARGETS if target in present]
        raise InvalidValueError(
            f"No linear layer of this backbone is called {', '.join(absent)}; targets that it has: "
            f"{', '.join(available) or 'none'} (a 1 x 1 convolution is not a linear layer)."
        )


def _layer_name(site: Site) -> str:
    """Return the last part of a site's name."""
    return site.name.rpartition(".")[-1]
