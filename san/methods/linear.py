"""Linear probing: the head alone trains, on frozen features.

In ConvNeXt the norm before the classifier belongs to the head. Nothing to fold.
"""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site


def attach(model: nn.Module, sites: tuple[Site, ...]) -> Iterable[str]:
    """Add nothing, train nothing but the head."""
    return []
