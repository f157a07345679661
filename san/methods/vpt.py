"""VPT: trained tokens among the patches (Jia et al., ECCV 2022).

    [cls, prompts, patches] enters the first block; deep: each later block gets prompts of its own in the same places

As KMnP/vpt at 4410440: prompts have no position embedding; initial values uniform within +-sqrt(6 / (3 * patch^2 +
width)). Trainable on ViT-B/16 without the head, 5 prompts: 3,840 shallow, 46,080 deep. It does not start at the
pre-trained function, and cannot be merged: the tokens are extra input.
"""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from san.backbones import Site


class Prompts(nn.Module):
    """Trained tokens `(1, length, width)` behind the `before` prefix tokens of a sequence."""

    def __init__(self, length: int, like: Tensor, bound: float, dropout: float, before: int, replace: bool) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(1, length, like.shape[0], dtype=like.dtype, device=like.device))
        nn.init.uniform_(self.tokens, -bound, bound)
        self.dropout, self.before, self.replace = nn.Dropout(dropout), before, replace

    def forward(self, x: Tensor) -> Tensor:
        """Insert the tokens into `(B, T, width)`, or put them in the place of those inserted before."""
        tokens = self.dropout(self.tokens).expand(len(x), -1, -1)
        rest = self.before + (tokens.shape[1] if self.replace else 0)
        return torch.cat([x[:, : self.before], tokens, x[:, rest:]], dim=1)


def read_prompts(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook of a block: its tokens join the sequence."""
    return (cast(Prompts, block.prompts)(inputs[0]), *inputs[1:])


def attach(
    model: nn.Module, sites: tuple[Site, ...], *, length: int = 5, deep: bool = True, dropout: float = 0.0
) -> Iterable[str]:
    """Insert `length` prompts before the first block and, if `deep`, new ones before each later block.

    Raises ValueError on a length below 1, TypeError on a model whose blocks do not read one sequence of tokens.
    """
    vit = cast(Any, model)
    if not hasattr(vit, "num_prefix_tokens"):
        raise TypeError(f"vpt needs a sequence of tokens; a {type(model).__name__} has none. Allowed: ViT.")
    if length < 1:
        raise ValueError(f"vpt.length came as {length}; allowed: 1 or more.")
    patch = sites[0].inputs * math.prod(vit.patch_embed.proj.kernel_size)
    bound = math.sqrt(6 / (patch + sites[0].channels))
    for i, block in enumerate(vit.blocks if deep else vit.blocks[:1]):
        block.prompts = Prompts(length, block.norm1.weight, bound, dropout, vit.num_prefix_tokens, replace=i > 0)
        block.register_forward_pre_hook(read_prompts)
    return [name for name, _ in model.named_parameters() if name.endswith("prompts.tokens")]
