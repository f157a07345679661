"""Linear probing: the classifier alone trains, on frozen features."""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site


def attach(model: nn.Module, sites: tuple[Site, ...]) -> Iterable[str]:
    """Add nothing, train nothing but the head."""
    return []
