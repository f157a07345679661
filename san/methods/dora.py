"""DoRA: magnitude and direction of the weights trained apart (Liu et al., ICML 2024).

    y = m * (W + scale * B A) / |W + scale * B A| x + b     rows; m: |W| at the start, trained;
                                                            B A: as in LoRA

The norm is a constant for the gradient (section 4.3 of the paper; HF peft does the same). Only rows
that are updated have a magnitude. Trainable on ViT-B/16 without the head at rank 8, on q and v:
294,912 and 18,432 magnitudes. It starts at the pre-trained function and merges exactly.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
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


class DoraLinear(LowRankLinear):
    """An `nn.Linear` with low-rank updates and a trained length of each updated row.

    magnitude: `(slices * size,)`.
    """

    def __init__(
        self, base: nn.Linear, starts: Sequence[int], size: int, update: LowRankConfig
    ) -> None:
        super().__init__(base, starts, size, update)
        lengths = torch.linalg.vector_norm(base.weight.detach(), dim=1)
        # One axis: weight decay, which is for matrices, leaves it alone.
        self.magnitude = nn.Parameter(self.gather_rows(lengths))

    def gain(self) -> Tensor:
        """Return m / |W + scale * B A|, ones in rows that are not updated: `(O,)`."""
        _, lengths = self.row_norms()
        gain = self.magnitude / self.gather_rows(lengths)
        return self.scatter_rows(gain, fill=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        return self.compute(x, None, scale=self.gain(), shift=self.bias)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        weight = self.gain()[:, None] * self.updated_weight()
        return self.to_linear(weight, self.bias)


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
    """Update the linears named in `targets`; all options as in `lora`."""
    update = LowRankConfig(rank, scaling(rank, scale, alpha), dropout, dropout_at)
    for name, (starts, size) in find_targets(sites, targets).items():
        base = cast(nn.Linear, model.get_submodule(name))
        model.set_submodule(name, DoraLinear(base, starts, size, update))
    return []
