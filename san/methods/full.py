"""Full fine-tuning: every parameter trains."""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site


def attach(model: nn.Module, sites: tuple[Site, ...]) -> Iterable[str]:
    """Add nothing, train everything."""
    return [name for name, _ in model.named_parameters()]
