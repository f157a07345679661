"""The exponential moving average of the weights that train."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from san.backbones import persistent_buffers


class WeightAverage:
    """The average, by parameter: `decay * average + (1 - decay) * weight` after each step.

    It begins with the weights that training begins with, and takes in the statistics of batch
    norms, as timm's ModelEmaV2 does. Frozen weights are their own average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self._weights[name] = parameter
        for name, buffer in persistent_buffers(model).items():
            if buffer.is_floating_point():
                self._weights[name] = buffer
        self.tensors: dict[str, Tensor] = {}
        for name, weight in self._weights.items():
            self.tensors[name] = weight.detach().clone()

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after a step in."""
        for name, weight in self._weights.items():
            average = self.tensors[name]
            if weight.requires_grad:
                average.mul_(self.decay).add_(weight, alpha=1 - self.decay)
            else:
                average.lerp_(weight, 1 - self.decay)  # exact where statistics stay as they are

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
