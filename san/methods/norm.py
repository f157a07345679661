"""Norm tuning: the weights and biases of all norm layers train, and nothing else.

The control of SAN, which trains them too. Trainable on ViT-B/16 without the head: 38,400. Nothing
to fold.
"""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site
from san.methods import norm_parameters


def attach(model: nn.Module, sites: tuple[Site, ...]) -> Iterable[str]:
    """Add nothing, train the norm layers."""
    return norm_parameters(model, sites)
