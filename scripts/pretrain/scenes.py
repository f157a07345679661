"""Procedural images on which `vit_nano` is pre-trained: warped glyphs and solid shapes on periodic textures.

Everything is drawn by formula from a seed. The labels (which glyph, which texture, hues, where, which shape on which
side) are none of the demo suite's: no digits, no counting, no angles, no distances, and textures of another family.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 32
GLYPHS, TEXTURES, HUES, CELLS, SHAPES, SIDES = 128, 32, 8, 6, 9, 8
STROKES, PIECES = 3, 4  # a glyph: two or three curves, each drawn as four straight pieces
HEADS = {
    "glyph": GLYPHS,
    "texture": TEXTURES,
    "glyph_hue": HUES,
    "ground_hue": HUES,
    "glyph_x": CELLS,
    "glyph_y": CELLS,
    "shape": SHAPES,
    "shape_side": SIDES,
}
IGNORE = -100  # the label of a head that an image says nothing about (torch's default ignore_index)


@dataclass(frozen=True)
class Alphabet:
    """Control points `(GLYPHS, STROKES, 3, 2)` of quadratic curves in [-1, 1], and texture waves `(TEXTURES, 3, 3)`."""

    curves: Tensor
    waves: Tensor


def alphabet(seed: int = 0) -> Alphabet:
    """Invent the glyphs and textures; the same seed gives the same classes."""
    g = torch.Generator().manual_seed(seed)
    lattice = torch.randint(0, 3, (GLYPHS, STROKES, 3, 2), generator=g).float() - 1
    curves = 0.85 * lattice + 0.15 * torch.randn(lattice.shape, generator=g)
    for i in range(1, STROKES):  # most strokes start where the one before ended, as in writing
        joined = torch.rand(GLYPHS, generator=g) < 0.65
        curves[joined, i, 0] = curves[joined, i - 1, 2]
    two = torch.rand(GLYPHS, generator=g) < 0.4  # a glyph of two strokes repeats its second
    curves[two, 2] = curves[two, 1]
    angle = torch.rand(TEXTURES, 3, generator=g) * math.pi
    cycles = 1 + 5 * torch.rand(TEXTURES, 3, generator=g)
    weight = torch.randn(TEXTURES, 3, generator=g)
    return Alphabet(
        curves, torch.stack([cycles * angle.cos(), cycles * angle.sin(), weight], dim=-1)
    )


def uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Draw from [low, high)."""
    return low + (high - low) * torch.rand(*shape, generator=g)


def glyph_masks(points: Tensor, hardness: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw glyphs `(B, STROKES, 3, 2)` warped as by hand; return opacity `(B, 32, 32)` and centres `(B, 2)`.

    hardness: from 0 (large and clean) to 1 (down to half the size, warped, anywhere).
    """
    b, h = len(points), hardness
    points = points + 0.13 * h * torch.randn(points.shape, generator=g)
    turn, shear = uniform(g, -0.35 * h, 0.35 * h, b), uniform(g, -0.35 * h, 0.35 * h, b)
    size, aspect = uniform(g, 0.8 - 0.3 * h, 0.9, b), uniform(g, 1 - 0.3 * h, 1 + 0.3 * h, b)
    cos, sin = turn.cos(), turn.sin()
    affine = torch.stack(
        [cos * aspect, shear * cos - sin, sin * aspect, shear * sin + cos], dim=-1
    ).view(b, 2, 2)
    room = (0.95 - 0.9 * size).clamp(min=0)
    centre = uniform(g, -1, 1, b, 2) * room[:, None]
    points = (
        torch.einsum("bij,bskj->bski", affine * size[:, None, None], points) + centre[:, None, None]
    )

    t = torch.linspace(0, 1, PIECES + 1)
    basis = torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2])
    line = torch.einsum("kt,bskj->bstj", basis, points)
    start, along = line[:, :, :-1].reshape(b, -1, 2), line.diff(dim=2).reshape(b, -1, 2)
    distance = torch.cat(
        [to_line(s, a) for s, a in zip(start.split(16), along.split(16), strict=True)]
    )
    width, blur = size[:, None] * uniform(g, 0.1, 0.2, b, 1), uniform(g, 0.02, 0.06, b, 1)
    return torch.sigmoid((width - distance) / blur).view(b, SIZE, SIZE), centre


def to_line(start: Tensor, along: Tensor) -> Tensor:
    """Distance `(B, 1024)` of every pixel to the nearest of the straight pieces `start`, `along` `(B, P, 2)`."""
    x, y = grid().view(-1, 2).T
    dx, dy = x - start[..., :1], y - start[..., 1:]
    ax, ay = along[..., :1], along[..., 1:]
    share = ((dx * ax + dy * ay) / (ax * ax + ay * ay).clamp(min=1e-6)).clamp(0, 1)
    return ((dx - share * ax).square() + (dy - share * ay).square()).amin(dim=1).sqrt()


def grid() -> Tensor:
    """Pixel centres `(32, 32, 2)` as (x, y) in [-1, 1]."""
    axis = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1)


def texture(waves: Tensor, g: torch.Generator) -> Tensor:
    """Sum of three plane waves per image, `(B, 3, 3)` to `(B, 32, 32)` in [0, 1], at random phase and slight zoom."""
    b = len(waves)
    zoom = uniform(g, 0.85, 1.15, b, 1)
    kx, ky = waves[..., 0] * zoom, waves[..., 1] * zoom
    xy = grid()
    phase = kx[..., None, None] * xy[..., 0] + ky[..., None, None] * xy[..., 1]
    phase = math.pi * phase + uniform(g, 0, 2 * math.pi, b, 3, 1, 1)
    value = (phase.sin() * waves[..., 2, None, None]).sum(1)
    return torch.sigmoid(2.5 * value)


def solid_masks(kind: Tensor, centre: Tensor, g: torch.Generator) -> Tensor:
    """Draw solid shapes given by their radius as a function of the angle; opacity `(B, 32, 32)`."""
    b = len(kind)
    offset = grid()[None] - centre[:, None, None]
    radius = offset.square().sum(-1).sqrt()
    angle = torch.atan2(offset[..., 1], offset[..., 0]) + uniform(g, -math.pi, math.pi, b, 1, 1)
    k = kind[:, None, None]
    sides = (k % 3 + 3).float()  # polygons, stars and flowers with 3, 4 or 5 corners
    wedge = angle.remainder(2 * math.pi / sides) - math.pi / sides
    polygon = (math.pi / sides).cos() / wedge.cos()
    star = 0.65 + 0.55 * (wedge.abs() * sides / math.pi)
    flower = 0.75 + 0.3 * (sides * angle).cos()
    outline = torch.where(k < 3, polygon, torch.where(k < 6, star, flower))
    size = uniform(g, 0.15, 0.34, b, 1, 1)
    return torch.sigmoid((size * outline - radius) / 0.04)


def colours(g: torch.Generator, b: int) -> tuple[Tensor, Tensor]:
    """Random RGB `(B, 3)` with the index of its hue; a third of them are grey and have no hue."""
    hue = torch.randint(0, HUES, (b,), generator=g)
    turn = (hue + uniform(g, 0.15, 0.85, b)) / HUES
    rgb = 0.5 + 0.5 * (2 * math.pi * (turn[:, None] + torch.tensor([0, 1 / 3, 2 / 3]))).cos()
    saturation = uniform(g, 0.45, 1, b, 1)
    grey = torch.rand(b, generator=g) < 0.33
    saturation[grey] = 0
    value = uniform(g, 0.15, 1, b, 1)
    hue[grey] = IGNORE
    return value * (1 - saturation * (1 - rgb)), hue


def lay(image: Tensor, opacity: Tensor, colour: Tensor) -> Tensor:
    """Paint `colour` `(B, 3)` over `image` `(B, 3, 32, 32)` where `opacity` `(B, 32, 32)` says."""
    return torch.lerp(image, colour[:, :, None, None].expand_as(image), opacity[:, None])


def scenes(
    classes: Alphabet,
    masks: Tensor,
    centres: Tensor,
    pick: Tensor,
    hardness: float,
    g: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Compose images from drawn glyphs.

    masks: `(N, 32, 32)` uint8 opacities of glyph `n % GLYPHS`; centres: `(N, 2)`; pick: `(B,)` which to use;
    hardness: from 0 (one glyph on a plain ground) to 1 (textures, a second shape, blur and noise).
    Returns images `(B, 3, 32, 32)` in [-1, 1], one label vector per head, and the layers `(B, 3, 32, 32)` in [0, 1]
    of which each image is made: opacity of the glyph, of the solid shape, of the texture.
    """
    b = len(pick)
    ground, ground_hue = colours(g, b)
    second, _ = colours(g, b)
    ink, glyph_hue = colours(g, b)
    paint, _ = colours(g, b)
    kind = torch.randint(0, TEXTURES, (b,), generator=g)
    plain = torch.rand(b, generator=g) < 1 - 0.65 * hardness
    contrast = uniform(g, 0.2, 0.7, b, 1, 1)
    contrast[plain] = 0
    # Ink must be seen: where its brightness is too close to the ground's, mirror it.
    close = (ink.mean(1) - ground.mean(1)).abs() < 0.3
    ink[close] = (
        ink[close] + torch.where(ground[close].mean(1, keepdim=True) > 0.5, -0.5, 0.5)
    ).clamp(0, 1)

    image = ground[:, :, None, None].expand(b, 3, SIZE, SIZE)
    waves = contrast * texture(classes.waves[kind], g)
    image = lay(image, waves, second)
    shape = torch.randint(0, SHAPES, (b,), generator=g)
    where = uniform(g, -0.75, 0.75, b, 2)
    hidden = torch.rand(b, generator=g) < 1 - 0.55 * hardness
    solid = solid_masks(shape, where, g)
    solid[hidden] = 0
    image = lay(image, solid, paint)
    written = masks[pick].float() / 255
    image = lay(image, written, ink)

    centre = centres[pick]
    offset = where - centre
    side = (
        ((torch.atan2(offset[:, 1], offset[:, 0]) / (2 * math.pi)) * SIDES)
        .floor()
        .long()
        .remainder(SIDES)
    )
    cell = ((centre + 1) / 2 * CELLS).long().clamp(0, CELLS - 1)
    labels = {
        "glyph": pick % GLYPHS,
        "texture": kind.masked_fill(plain, IGNORE),
        "glyph_hue": glyph_hue.masked_fill(close, IGNORE),
        "ground_hue": ground_hue.masked_fill(~plain, IGNORE),
        "glyph_x": cell[:, 0],
        "glyph_y": cell[:, 1],
        "shape": shape.masked_fill(hidden, IGNORE),
        "shape_side": side.masked_fill(hidden, IGNORE),
    }
    return camera(image, hardness, g), labels, torch.stack([written, solid, waves], dim=1)


def camera(image: Tensor, hardness: float, g: torch.Generator) -> Tensor:
    """Spoil images as cameras do: some colourless, some enlarged from 8 or 16 pixels, all a little noisy."""
    b = len(image)
    image = image.clone()
    for side in (8, 16):
        coarse = torch.rand(b, generator=g) < 0.15 * hardness
        small = torch.nn.functional.avg_pool2d(image[coarse], SIZE // side)
        image[coarse] = torch.nn.functional.interpolate(small, size=SIZE, mode="bilinear")
    grey = torch.rand(b, generator=g) < 0.25
    image[grey] = image[grey].mean(1, keepdim=True)
    noise = uniform(g, 0, 0.06 * hardness, b, 1, 1, 1)
    image = (image + noise * torch.randn(image.shape, generator=g)).clamp(0, 1)
    return image * 2 - 1
