"""Low-rank updates of frozen linear layers: what LoRA, DoRA and SAN on top of them share.

    W + scale * B A      A: (rank, inputs), Kaiming-uniform (a = sqrt 5); B: (outputs, rank), zero

On timm's fused qkv weight an update may be of the whole (`qkv`: one A for q, k and v, as NOAH and HF peft do) or of its
slices (`q`, `k`, `v`: an A and a B each, as JieShibo/PETL-ViT does on q and v).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site
from san.errors import choose
from san.layers.scaled_op import scaled_op

SLICES = ("q", "k", "v")
TARGETS = (*SLICES, "qkv", "proj", "fc1", "fc2")
DROPOUT_AT = ("between", "input")


@dataclass(frozen=True)
class LowRankConfig:
    """Settings of an update. dropout_at: on what A reads (`input`), or `between` A and B."""

    rank: int
    scale: float
    dropout: float
    dropout_at: str

    def __post_init__(self) -> None:
        choose(self.dropout_at, DROPOUT_AT, "dropout_at")
        if self.rank < 1 or not 0 <= self.dropout < 1:
            allowed = "a rank of 1 or more, a dropout from 0 to below 1"
            raise ValueError(
                f"rank came as {self.rank}, dropout as {self.dropout}; allowed: {allowed}."
            )


def scaling(rank: int, scale: float, alpha: float | None) -> float:
    """Return the factor of B A: `scale`, or alpha / rank where alpha is given; raise ValueError where both are."""
    if alpha is None:
        return scale
    if scale != 1:
        raise ValueError(
            f"scale came as {scale} and alpha as {alpha}; give one of them (scale = alpha / rank)."
        )
    return alpha / max(rank, 1)


class LowRankLinear(nn.Linear):
    """An `nn.Linear` with updates of some slices of its outputs; weight and bias are shared with `base`.

    starts: where each slice begins; size: its outputs. lora_a: `(slices, rank, I)`; lora_b: `(slices, size, rank)`.
    """

    def __init__(
        self, base: nn.Linear, starts: Sequence[int], size: int, update: LowRankConfig
    ) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.starts, self.size, self.scaling = tuple(starts), size, update.scale
        like: dict[str, Any] = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.lora_a = nn.Parameter(torch.empty(len(starts), update.rank, base.in_features, **like))
        self.lora_b = nn.Parameter(torch.zeros(len(starts), size, update.rank, **like))
        for a in self.lora_a:
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        self.dropout, self.dropout_at = nn.Dropout(update.dropout), update.dropout_at

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Take from `(O,)` what belongs to the slices: `(slices * size,)`."""
        return torch.cat([rows[start : start + self.size] for start in self.starts])

    def scatter_rows(self, updated: Tensor, fill: float) -> Tensor:
        """Lay what belongs to the slices, `(slices * size,)`, at their places among the outputs: `(O,)`."""
        index = torch.cat(
            [torch.arange(start, start + self.size, device=updated.device) for start in self.starts]
        )
        return updated.new_full((self.out_features,), fill).index_copy(0, index, updated)

    def scaled_b(self) -> Tensor:
        """Lay every slice's B at its rows and its own columns, times the factor: `(O, slices * rank)`."""
        rank, count = self.lora_b.shape[-1], len(self.starts)
        placed = [
            F.pad(
                b, (i * rank, (count - 1 - i) * rank, start, self.out_features - start - self.size)
            )
            for i, (b, start) in enumerate(zip(self.lora_b, self.starts, strict=True))
        ]
        return self.scaling * (torch.stack(placed).sum(0) if count > 1 else placed[0])

    def down_project(self, x: Tensor, input_scale: Tensor | None) -> Tensor:
        """Return A (input_scale * x) with dropout: `(..., slices * rank)`."""
        down = (
            self.lora_a.flatten(0, 1)
            if input_scale is None
            else self.lora_a.flatten(0, 1) * input_scale
        )
        if self.dropout_at == "input":
            return F.linear(self.dropout(x), down)
        low: Tensor = self.dropout(F.linear(x, down))
        return low

    def compute(
        self,
        x: Tensor,
        bias: Tensor | None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        input_scale: Tensor | None = None,
    ) -> Tensor:
        """Return scale * ((W + factor * B A) (input_scale * x) + bias) + shift; with dropout, A and B act on activations."""
        if not self.training or self.dropout.p == 0:
            return scaled_op(
                x,
                self.weight,
                bias,
                scale,
                shift,
                input_scale,
                self.lora_a.flatten(0, 1),
                self.scaled_b(),
            )
        up = self.scaled_b() if scale is None else scale[:, None] * self.scaled_b()
        return scaled_op(x, self.weight, bias, scale, shift, input_scale) + F.linear(
            self.down_project(x, input_scale), up
        )

    def updated_weight(self) -> Tensor:
        """Return W + factor * B A `(O, I)`, formed; training never needs it."""
        return self.weight + self.scaled_b() @ self.lora_a.flatten(0, 1)

    def to_linear(self, weight: Tensor, bias: Tensor | None) -> nn.Linear:
        """Return a plain layer of this shape with the given weight and a copy of the bias."""
        layer = nn.Linear(self.in_features, self.out_features, device="meta")
        layer.weight = nn.Parameter(weight.detach())
        layer.register_parameter(
            "bias", None if bias is None else nn.Parameter(bias.detach().clone())
        )
        return layer

    @torch.no_grad()
    def row_norms(self) -> tuple[Tensor, Tensor]:
        """Return the Euclidean norms of the rows of W and of W + factor * B A, both `(O,)`, constant for autograd.

        From |w + b A|^2 = |w|^2 + 2 b . (A w) + b (A A^T) b^T, which costs no more than `rank` tokens do.
        """
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(self.weight.device.type, enabled=False):
            weight, a, b = (
                t.to(dtype) for t in (self.weight, self.lora_a.flatten(0, 1), self.scaled_b())
            )
            before = weight.square().sum(1)
            change = 2 * (b * (weight @ a.T)).sum(1) + (b @ (a @ a.T) * b).sum(1)
        tiny = torch.finfo(dtype).tiny  # a row of zeros has a direction, too: none
        norms = before.clamp_min(tiny).sqrt(), (before + change).clamp_min(tiny).sqrt()
        return norms[0].to(self.weight.dtype), norms[1].to(self.weight.dtype)


def incompatibility(family: str, options: Mapping[str, Any]) -> str | None:
    """Refuse targets in an attention that is not there."""
    absent = [
        target
        for target in options["targets"]
        if target in TARGETS and target not in ("fc1", "fc2")
    ]
    if family != "ConvNeXt" or not absent:
        return None
    return (
        f"it has no {', '.join(absent)}; method.targets=[fc1,fc2] is allowed where they are linear"
    )


def find_targets(
    sites: Sequence[Site], targets: Sequence[str]
) -> Mapping[str, tuple[tuple[int, ...], int]]:
    """Return, by the names of the linear sites that `targets` mean, where the updated slices start and their size.

    targets: any of q, k, v (slices), qkv (fused), proj, fc1, fc2, in every block. Raises LookupError on an unknown one,
    ValueError on both kinds at once, on none, and on one that this backbone does not have as a linear layer.
    """
    for target in targets:
        choose(target, TARGETS, "target")
    if not targets or ("qkv" in targets and set(targets) & set(SLICES)):
        raise ValueError(
            f"targets came as {list(targets)}; allowed: some; qkv or slices of it, not both."
        )
    linears = {site.name: site for site in sites if site.kind == "linear" and site.part == "block"}
    ends = {name.rpartition(".")[-1] for name in linears}
    present = ends | (set(SLICES) if "qkv" in ends else set())
    absent = [target for target in targets if target not in present]
    if absent:
        has = ", ".join(target for target in TARGETS if target in present) or "none"
        here = f"{', '.join(absent)}; targets that it has: {has}"
        raise ValueError(
            f"No linear layer of this backbone is called {here} (a 1 x 1 convolution is none)."
        )
    slices = [SLICES.index(target) for target in SLICES if target in targets]
    found: dict[str, tuple[tuple[int, ...], int]] = {}
    for name, site in linears.items():
        end = name.rpartition(".")[-1]
        if end in targets:
            found[name] = ((0,), site.channels)
        elif end == "qkv" and slices:
            third = site.channels // 3
            found[name] = (tuple(i * third for i in slices), third)
    return found
