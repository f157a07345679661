"""The exponential moving average of the weights that train."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average, by parameter: `decay * average + (1 - decay) * weight` after each step.

    It begins with the weights that training begins with, as timm's ModelEmaV2 does. Frozen weights
    are their own average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.tensors: dict[str, Tensor] = {}
        for name, weight in self._weights.items():
            self.tensors[name] = weight.detach().clone()

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after a step in."""
        for name, weight in self._weights.items():
            self.tensors[name].mul_(self.decay).add_(weight, alpha=1 - self.decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Give the model the average for its weights."""
        for name, weight in self._weights.items():
            weight.copy_(self.tensors[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the average for a while; then it has its weights again."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(kept[name])
