"""Partial tuning: the last blocks and the final norm train (`partial-k` of KMnP/vpt at 4410440, Yosinski et al. 2014).

Trainable on ViT-B/16 without the head, one block: 7,089,408. Nothing to fold.
"""

import re
from collections.abc import Iterable

from torch import nn

from san.backbones import Site


def attach(model: nn.Module, sites: tuple[Site, ...], *, blocks: int = 1) -> Iterable[str]:
    """Add nothing, train the last `blocks` blocks and whatever comes after them. Raises ValueError out of range."""
    found = [match.group() for site in sites if (match := re.match(r".*blocks\.\d+\.", site.name))]
    prefixes = list(dict.fromkeys(found))
    if not 1 <= blocks <= len(prefixes):
        raise ValueError(f"partial.blocks came as {blocks}; allowed: 1 to {len(prefixes)}.")
    trained = (*prefixes[-blocks:], f"{sites[-1].name}.")
    return [name for name, _ in model.named_parameters() if name.startswith(trained)]
