"""LoRA: a trained low-rank update beside frozen weights (Hu et al., ICLR 2022).

    y = W x + b + scale * B A x       A: (rank, inputs), Kaiming-uniform (a = sqrt 5); B: (outputs, rank), zero

On timm's fused qkv weight an update may be of the whole (`qkv`: one A for q, k and v, as NOAH and HF peft do) or of its
slices (`q`, `k`, `v`: an A and a B each, as JieShibo/PETL-ViT does on q and v). Trainable on ViT-B/16 without the head
at rank 8, on qkv or on q and v: 294,912 (the same number, not the same model). It starts at the pre-trained function
and merges exactly.

The scale is a plain factor: 1 in NOAH and PETL-ViT; alpha / rank where alpha is spoken of (loralib, HF peft).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site
from san.tasks import lookup

SLICES = ("q", "k", "v")
TARGETS = (*SLICES, "qkv", "proj", "fc1", "fc2")


class LoraLinear(nn.Linear):
    """An `nn.Linear` with updates of some slices of its outputs; weight and bias are shared with `base`.

    starts: where each slice begins; size: its outputs. lora_a: `(slices, rank, I)`; lora_b: `(slices, size, rank)`.
    """

    def __init__(
        self, base: nn.Linear, starts: Sequence[int], size: int, rank: int, scale: float, dropout: float
    ) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.starts, self.size, self.scale = tuple(starts), size, scale
        like: dict[str, Any] = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.lora_a = nn.Parameter(torch.empty(len(starts), rank, base.in_features, **like))
        self.lora_b = nn.Parameter(torch.zeros(len(starts), size, rank, **like))
        for a in self.lora_a:
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        self.dropout = nn.Dropout(dropout)

    def spread_b(self) -> Tensor:
        """Lay every slice's B at its rows and its own columns: `(O, slices * rank)`."""
        rank = self.lora_b.shape[-1]
        placed = [
            F.pad(b, (i * rank, (len(self.starts) - 1 - i) * rank, start, self.out_features - start - self.size))
            for i, (b, start) in enumerate(zip(self.lora_b, self.starts, strict=True))
        ]
        return torch.stack(placed).sum(0) if len(placed) > 1 else placed[0]

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        low = self.dropout(F.linear(x, self.lora_a.flatten(0, 1)))
        return F.linear(x, self.weight, self.bias) + F.linear(low, self.scale * self.spread_b())

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        update = self.scale * self.spread_b() @ self.lora_a.flatten(0, 1)
        plain.weight = nn.Parameter((self.weight + update).detach())
        plain.bias = self.bias
        return plain


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    rank: int = 8,
    scale: float = 1.0,
    dropout: float = 0.0,
    targets: tuple[str, ...] = ("q", "v"),
) -> Iterable[str]:
    """Update the linears named in `targets`: any of q, k, v (slices), qkv (fused), proj, fc1, fc2, in every block.

    dropout: between A and B while training (PETL-ViT: 0.1).
    """
    for target in targets:
        lookup(target, TARGETS, "target of lora")
    if rank < 1 or not targets or ("qkv" in targets and set(targets) & set(SLICES)):
        allowed = "a rank of 1 or more; qkv or slices of it, not both"
        raise ValueError(f"lora came with rank {rank} and targets {list(targets)}; allowed: {allowed}.")
    names = []
    for site in sites:
        kind = site.name.rsplit(".", 1)[-1]
        whole, size = site.kind == "linear" and kind in targets, site.channels // 3
        starts = [0] if whole else [i * size for i, part in enumerate(SLICES) if kind == "qkv" and part in targets]
        if site.kind == "linear" and starts:
            base = model.get_submodule(site.name)
            assert isinstance(base, nn.Linear)
            layer = LoraLinear(base, starts, site.channels if whole else size, rank, scale, dropout)
            model.set_submodule(site.name, layer)
            names += [f"{site.name}.lora_a", f"{site.name}.lora_b"]
    return names
