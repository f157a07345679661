"""Partial tuning: the last blocks and all that comes after them train (`partial-k` of KMnP/vpt at 4410440).

Trainable on ViT-B/16 without the head, one block: 7,089,408. Nothing to fold.
"""

from collections.abc import Iterable
from itertools import dropwhile

from torch import nn

from san.backbones import Site, branches


def attach(model: nn.Module, sites: tuple[Site, ...], *, blocks: int = 1) -> Iterable[str]:
    """Add nothing, train the last `blocks` blocks and what comes after. Raises ValueError out of range."""
    found = list(dict.fromkeys(branch.block for branch in branches(model)))
    if not 1 <= blocks <= len(found):
        raise ValueError(f"partial.blocks came as {blocks}; allowed: 1 to {len(found)}.")
    first = f"{found[-blocks]}."
    return dropwhile(
        lambda name: not name.startswith(first), [name for name, _ in model.named_parameters()]
    )
