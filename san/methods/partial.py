"""Partial tuning: the last blocks and all that comes after them train.

`partial-k` of KMnP/vpt at 4410440: the last k blocks, the final norm and the head. In Swin and
ConvNeXt blocks are counted through the stages. Where they reach into an earlier one, the
downsampling on the way trains too: on Swin-B partial-2 is the blocks of the last stage, partial-4
its downsampling and two blocks more. For ConvNeXt that code has the last block alone, as partial-0.

Trainable without the head, 1, 2 and 4 blocks: 7,089,408, 14,177,280 and 28,353,024 on ViT-B/16;
12,603,680, 25,205,312 and 33,616,736 on Swin-B. Nothing to fold.
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
