"""LoRA: a trained low-rank update beside frozen weights (Hu et al., ICLR 2022).

    y = W x + b + scale * B A x       A: (rank, inputs), Kaiming-uniform (a = sqrt 5);
                                      B: (outputs, rank), zero

On timm's fused qkv weight an update may be of the whole (`qkv`: one A for q, k and v, as NOAH and
HF peft do) or of its slices (`q`, `k`, `v`: an A and a B each, as JieShibo/PETL-ViT does on q and
v). Trainable on ViT-B/16 without the head at rank 8, on qkv or on q and v: 294,912 (the same
number, not the same model). On ConvNeXt, which has no attention, fc1 and fc2 are updated by
default. It starts at the pre-trained function and merges exactly.
"""

from collections.abc import Iterable
from typing import Literal, cast

from torch import Tensor, nn

from san.backbones import Site
from san.layers.low_rank import (
    FAMILY_DEFAULTS,
    LowRankConfig,
    LowRankLinear,
    find_targets,
    incompatibility,
    scaling,
)
from san.schema import DropoutRate, PositiveInt

__all__ = ["FAMILY_DEFAULTS", "attach", "incompatibility"]


class LoraLinear(LowRankLinear):
    """An `nn.Linear` with low-rank updates."""

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        return self.compute(x, self.bias)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        return self.to_linear(self.updated_weight(), self.bias)


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    rank: PositiveInt = 8,
    scale: float = 1.0,
    alpha: float | None = None,
    dropout: DropoutRate = 0.0,
    dropout_at: Literal["between", "input"] = "between",
    targets: tuple[str, ...] = ("q", "v"),
) -> Iterable[str]:
    """Update the linears named in `targets`: any of q, k, v (slices), qkv (fused), proj, fc1, fc2.

    scale: a plain factor (1 in NOAH and PETL-ViT); or give alpha, for alpha / rank (loralib, HF
    peft: 16 / 8). dropout: while training, on the `input` (NOAH: 0.1) or `between` A and B
    (PETL-ViT: 0.1).
    """
    update = LowRankConfig(rank, scaling(rank, scale, alpha), dropout, dropout_at)
    for name, (starts, size) in find_targets(sites, targets).items():
        base = cast(nn.Linear, model.get_submodule(name))
        model.set_submodule(name, LoraLinear(base, starts, size, update))
    return []
