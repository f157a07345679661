"""Partial tuning: the last blocks and all that comes after them train.

`partial-k` of KMnP/vpt at 4410440. Trainable on ViT-B/16 without the head, one block: 7,089,408.
Nothing to fold.
"""

from collections.abc import Iterable
from itertools import dropwhile

from torch import nn

from san.backbones import Site, branches
from san.errors import InvalidValueError
from san.schema import PositiveInt


def attach(model: nn.Module, sites: tuple[Site, ...], *, blocks: PositiveInt = 1) -> Iterable[str]:
    """Add nothing, train the last `blocks` blocks and the layers after them.

    Raises InvalidValueError if the model has fewer.
    """
    all_blocks = list(dict.fromkeys(branch.block for branch in branches(model)))
    if blocks > len(all_blocks):
        raise InvalidValueError(
            f"method.blocks came as {blocks}; allowed: 1 to {len(all_blocks)} on this backbone."
        )
    first = f"{all_blocks[-blocks]}."
    names = [name for name, _ in model.named_parameters()]
    return dropwhile(lambda name: not name.startswith(first), names)
