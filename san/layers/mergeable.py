"""Layers that plain ones can take the place of."""

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Mergeable(Protocol):
    """A layer that a plain one equals, weights and all."""

    def merged(self) -> nn.Module:
        """Return a plain layer that computes the same; raise InvalidValueError where none does."""
        ...


@runtime_checkable
class FinishesMerge(Protocol):
    """A mergeable layer that needs other layers to change as well."""

    def finish_merge(self, model: nn.Module) -> None:
        """Change them, once all layers of the model are plain."""
        ...
