"""The square that everything is drawn on, and the random numbers that things are drawn with.

Coordinates are (x, y) in [-1, 1]. A *mask* is an opacity `(B, 32, 32)` in [0, 1].
"""

import torch
from torch import Tensor

SIZE = 32  # pixels along each side


def pixel_centers() -> Tensor:
    """Return the coordinates `(32, 32, 2)` of all pixel centers."""
    axis = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1)


def over_pixels(values: Tensor) -> Tensor:
    """Append two axes of size one, so that `(B, ...)` broadcasts over masks."""
    return values[..., None, None]


def uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Draw from [low, high)."""
    return low + (high - low) * torch.rand(*shape, generator=g)


def chance(g: torch.Generator, probability: float, b: int) -> Tensor:
    """Draw `(B,)` booleans that are true with this probability."""
    return torch.rand(b, generator=g) < probability


def draw_class(g: torch.Generator, classes: int, b: int) -> Tensor:
    """Draw `(B,)` class numbers from 0 to `classes - 1`."""
    return torch.randint(0, classes, (b,), generator=g)
