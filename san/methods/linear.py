"""Linear probing: the head alone trains (in ConvNeXt the norm before the classifier, too), on frozen features."""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site


def attach(model: nn.Module, sites: tuple[Site, ...]) -> Iterable[str]:
    """Add nothing, train nothing but the head."""
    return []
