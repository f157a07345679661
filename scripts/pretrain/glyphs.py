"""Glyphs as if written by hand: a few quadratic curves each, warped anew in every drawing."""

import math
from dataclasses import dataclass

import torch
from canvas import SIZE, chance, pixel_centers, uniform
from torch import Tensor

GLYPHS = 128
TEXTURES = 32
STROKES = 3  # quadratic curves of a glyph
SEGMENTS = 4  # straight pieces as which a curve is drawn
CHUNK = 16  # glyphs at a time, as every pixel is compared with every segment


@dataclass(frozen=True)
class Alphabet:
    """The classes of glyphs and textures.

    curves: control points `(GLYPHS, STROKES, 3, 2)` of quadratic Bezier curves;
    waves: `(TEXTURES, 3, 3)`: wave vector (x, y) and weight of three plane waves.
    """

    curves: Tensor
    waves: Tensor


@dataclass(frozen=True)
class Drawings:
    """Drawn glyphs; number n is of class `n % GLYPHS`.

    masks: uint8 `(N, 32, 32)`, opacities times 255; centers: `(N, 2)`.
    """

    masks: Tensor
    centers: Tensor


def make_alphabet(seed: int = 0) -> Alphabet:
    """Invent the glyphs and textures; the same seed gives the same classes."""
    g = torch.Generator().manual_seed(seed)
    curves = _draw_curves(g)
    angle = uniform(g, 0, math.pi, TEXTURES, 3)
    cycles = uniform(g, 1, 6, TEXTURES, 3)
    weight = torch.randn(TEXTURES, 3, generator=g)
    kx = cycles * angle.cos()
    ky = cycles * angle.sin()
    return Alphabet(curves, torch.stack([kx, ky, weight], dim=-1))


def draw_glyphs(alphabet: Alphabet, hardness: float, g: torch.Generator) -> Drawings:
    """Draw every glyph of the alphabet once.

    hardness: from 0 (large and clean) to 1 (down to half the size, warped, anywhere).
    """
    points, size, centers = _warp(alphabet.curves, hardness, g)
    distance = _distance_to_curves(points)
    width = size[:, None] * uniform(g, 0.1, 0.2, GLYPHS, 1)
    blur = uniform(g, 0.02, 0.06, GLYPHS, 1)
    masks = torch.sigmoid((width - distance) / blur)
    pixels = (255 * masks).byte()
    return Drawings(pixels.view(GLYPHS, SIZE, SIZE), centers)


def _draw_curves(g: torch.Generator) -> Tensor:
    """Draw control points near the nodes of a 3 x 3 lattice."""
    shape = (GLYPHS, STROKES, 3, 2)
    lattice = torch.randint(0, 3, shape, generator=g).float() - 1
    curves = 0.85 * lattice + 0.15 * torch.randn(shape, generator=g)
    for i in range(1, STROKES):
        # Most strokes start where the one before ended, as in writing.
        joined = chance(g, 0.65, GLYPHS)
        curves[joined, i, 0] = curves[joined, i - 1, 2]
    # A glyph of two strokes repeats its second.
    has_two = chance(g, 0.4, GLYPHS)
    curves[has_two, 2] = curves[has_two, 1]
    return curves


def _warp(points: Tensor, hardness: float, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Jitter, shear, turn, scale and shift glyphs `(B, STROKES, 3, 2)`.

    Returns the new points, the sizes `(B,)` and the centers `(B, 2)`.
    """
    b = len(points)
    points = points + 0.13 * hardness * torch.randn(points.shape, generator=g)
    limit = 0.35 * hardness  # radians of the turn, and of the shear
    turn = uniform(g, -limit, limit, b)
    shear = uniform(g, -limit, limit, b)
    stretch = 0.3 * hardness
    size = uniform(g, 0.8 - stretch, 0.9, b)
    aspect = uniform(g, 1 - stretch, 1 + stretch, b)
    matrices = _turn_and_shear(turn, shear, aspect) * size[:, None, None]
    room = (0.95 - 0.9 * size).clamp(min=0)
    centers = uniform(g, -1, 1, b, 2) * room[:, None]
    warped = torch.einsum("bij,bskj->bski", matrices, points)
    return warped + centers[:, None, None], size, centers


def _turn_and_shear(turn: Tensor, shear: Tensor, aspect: Tensor) -> Tensor:
    """Return the 2 x 2 matrices `(B, 2, 2)` that stretch and shear, then turn."""
    cos = turn.cos()
    sin = turn.sin()
    entries = [
        cos * aspect,
        shear * cos - sin,
        sin * aspect,
        shear * sin + cos,
    ]
    return torch.stack(entries, dim=-1).view(-1, 2, 2)


def _distance_to_curves(points: Tensor) -> Tensor:
    """Return the distance `(B, 1024)` of every pixel to the nearest of a glyph's curves.

    points: `(B, STROKES, 3, 2)`. The curves are approximated by straight segments.
    """
    t = torch.linspace(0, 1, SEGMENTS + 1)
    bezier = torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2])
    line = torch.einsum("kt,bskj->bstj", bezier, points)
    start = line[:, :, :-1].flatten(1, 2)
    segment = line.diff(dim=2).flatten(1, 2)
    chunks = zip(
        torch.split(start, CHUNK),
        torch.split(segment, CHUNK),
        strict=True,
    )
    return torch.cat([_distance_to_segments(*chunk) for chunk in chunks])


def _distance_to_segments(start: Tensor, segment: Tensor) -> Tensor:
    """Return the distance `(B, 1024)` of every pixel to the nearest segment.

    start, segment: `(B, S, 2)`, the first point, and the vector from it to the last one.
    """
    x, y = pixel_centers().view(-1, 2).T
    start_x, start_y = torch.split(start, 1, dim=-1)
    sx, sy = torch.split(segment, 1, dim=-1)
    dx = x - start_x
    dy = y - start_y
    # The nearest point of a segment, as a fraction of its length.
    length_squared = (sx * sx + sy * sy).clamp(min=1e-6)
    fraction = ((dx * sx + dy * sy) / length_squared).clamp(0, 1)
    rest_x = dx - fraction * sx
    rest_y = dy - fraction * sy
    squared: Tensor = rest_x.square() + rest_y.square()
    return squared.amin(dim=1).sqrt()
