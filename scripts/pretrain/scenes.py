"""Procedural images on which `vit_nano` is pre-trained: warped glyphs and solids over textures.

Everything is drawn by formula from a seed. The labels (which glyph, which texture, hues, positions,
which solid shape on which side) are none of the demo suite's: no digits, no counting, no angles, no
distances, and textures of another family.

The order of the random draws is part of the result: the same seed gives the same images.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from canvas import SIZE, chance, draw_class, over_pixels, pixel_centers, uniform
from glyphs import GLYPHS, TEXTURES, Alphabet, Drawings
from torch import Tensor

HUES = 8
CELLS = 6  # into which each axis is divided for the label of a position
SHAPES = 9
SIDES = 8  # sectors in which a shape can lie, as seen from the glyph

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
IGNORE = -100  # label of a head that does not apply to an image (torch's default ignore_index)


@dataclass(frozen=True)
class Scenes:
    """A batch of images with their labels.

    images: `(B, 3, 32, 32)` in [-1, 1]; labels: of each head, `(B,)`;
    layers: the masks `(B, 3, 32, 32)` of glyph, solid and texture that each image is made of.
    """

    images: Tensor
    labels: dict[str, Tensor]
    layers: Tensor


def compose_scenes(
    alphabet: Alphabet,
    drawings: Drawings,
    pick: Tensor,
    hardness: float,
    g: torch.Generator,
) -> Scenes:
    """Compose images from drawn glyphs.

    pick: the numbers `(B,)` of the drawings to use; hardness: from 0 (one glyph on a plain ground)
    to 1 (textures, a second shape, blur and noise).
    """
    b = len(pick)
    palette = _draw_palette(b, g)
    texture = _draw_textures(alphabet, b, hardness, g)
    solid = _draw_solids(b, hardness, g)
    glyph = drawings.masks[pick].float() / 255
    centers = drawings.centers[pick]

    image = over_pixels(palette.ground).expand(b, 3, SIZE, SIZE)
    image = _paint_over(image, texture.mask, palette.texture)
    image = _paint_over(image, solid.mask, palette.solid)
    image = _paint_over(image, glyph, palette.glyph)

    cell = ((centers + 1) / 2 * CELLS).long()
    cell_x, cell_y = cell.clamp(0, CELLS - 1).unbind(1)
    side = _sector(solid.centers - centers)
    labels = {
        "glyph": pick % GLYPHS,
        "texture": texture.kind.masked_fill(texture.absent, IGNORE),
        "glyph_hue": palette.glyph_hue,
        # Under a texture the color of the ground cannot be seen.
        "ground_hue": palette.ground_hue.masked_fill(~texture.absent, IGNORE),
        "glyph_x": cell_x,
        "glyph_y": cell_y,
        "shape": solid.kind.masked_fill(solid.absent, IGNORE),
        "shape_side": side.masked_fill(solid.absent, IGNORE),
    }
    layers = torch.stack([glyph, solid.mask, texture.mask], dim=1)
    return Scenes(_degrade(image, hardness, g), labels, layers)


@dataclass(frozen=True)
class _Palette:
    """RGB colors `(B, 3)` in [0, 1], and the hues `(B,)` that are labels."""

    ground: Tensor
    texture: Tensor
    glyph: Tensor
    solid: Tensor
    ground_hue: Tensor
    glyph_hue: Tensor


@dataclass(frozen=True)
class _Textures:
    """mask: zero where the texture is absent; kind, absent: `(B,)`."""

    mask: Tensor
    kind: Tensor
    absent: Tensor


@dataclass(frozen=True)
class _Solids:
    """mask: zero where the shape is absent; kind, absent: `(B,)`; centers: `(B, 2)`."""

    mask: Tensor
    kind: Tensor
    absent: Tensor
    centers: Tensor


def _draw_palette(b: int, g: torch.Generator) -> _Palette:
    """Draw colors; a glyph too close in brightness to its ground is made brighter or darker."""
    ground, ground_hue = _random_colors(b, g)
    texture, _ = _random_colors(b, g)
    glyph, glyph_hue = _random_colors(b, g)
    solid, _ = _random_colors(b, g)
    ground_brightness = ground.mean(1)
    close = (glyph.mean(1) - ground_brightness).abs() < 0.3
    shift = torch.where(ground_brightness > 0.5, -0.5, 0.5)
    shifted = (glyph + shift[:, None]).clamp(0, 1)
    return _Palette(
        ground=ground,
        texture=texture,
        glyph=torch.where(close[:, None], shifted, glyph),
        solid=solid,
        ground_hue=ground_hue,
        # Cut off at black and white, a shifted color may have another hue.
        glyph_hue=glyph_hue.masked_fill(close, IGNORE),
    )


def _random_colors(b: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw RGB `(B, 3)` and the index of its hue `(B,)`; a third is gray and has no hue."""
    hue = draw_class(g, HUES, b)
    turn = (hue + uniform(g, 0.15, 0.85, b)) / HUES
    saturation = uniform(g, 0.45, 1, b, 1)
    gray = chance(g, 0.33, b)
    saturation[gray] = 0
    value = uniform(g, 0.15, 1, b, 1)
    rgb = value * (1 - saturation * (1 - _pure_colors(turn)))
    return rgb, hue.masked_fill(gray, IGNORE)


def _pure_colors(turn: Tensor) -> Tensor:
    """Return RGB `(B, 3)` at positions `(B,)` in [0, 1) of the color wheel."""
    channel_turn = torch.tensor([0, 1 / 3, 2 / 3])
    phase = turn[:, None] + channel_turn
    return 0.5 + 0.5 * (2 * math.pi * phase).cos()


def _draw_textures(alphabet: Alphabet, b: int, hardness: float, g: torch.Generator) -> _Textures:
    """Draw a texture for up to 65 % of the images."""
    kind = draw_class(g, TEXTURES, b)
    absent = chance(g, 1 - 0.65 * hardness, b)
    contrast = uniform(g, 0.2, 0.7, b, 1, 1)
    contrast[absent] = 0
    mask = contrast * _add_waves(alphabet.waves[kind], g)
    return _Textures(mask, kind, absent)


def _add_waves(waves: Tensor, g: torch.Generator) -> Tensor:
    """Add up three plane waves `(B, 3, 3)`, at random phase and slight zoom, to a mask."""
    b = len(waves)
    zoom = uniform(g, 0.85, 1.15, b, 1)
    kx, ky, weight = waves.unbind(-1)
    x, y = pixel_centers().unbind(-1)
    phase = over_pixels(kx * zoom) * x + over_pixels(ky * zoom) * y
    phase = math.pi * phase + uniform(g, 0, 2 * math.pi, b, 3, 1, 1)
    value = phase.sin() * over_pixels(weight)
    return torch.sigmoid(2.5 * value.sum(1))


def _draw_solids(b: int, hardness: float, g: torch.Generator) -> _Solids:
    """Draw a solid shape for up to 55 % of the images."""
    kind = draw_class(g, SHAPES, b)
    centers = uniform(g, -0.75, 0.75, b, 2)
    absent = chance(g, 1 - 0.55 * hardness, b)
    mask = _solid_masks(kind, centers, g)
    mask[absent] = 0
    return _Solids(mask, kind, absent, centers)


def _solid_masks(kind: Tensor, centers: Tensor, g: torch.Generator) -> Tensor:
    """Draw shapes that are given by their radius as a function of the angle."""
    b = len(kind)
    offset = pixel_centers() - centers[:, None, None]
    radius = offset.square().sum(-1).sqrt()
    x, y = offset.unbind(-1)
    angle = torch.atan2(y, x) + uniform(g, -math.pi, math.pi, b, 1, 1)
    # Kinds 0 to 2 are polygons, 3 to 5 stars, 6 to 8 flowers, each with 3, 4 or 5 corners.
    k = over_pixels(kind)
    corners = (k % 3 + 3).float()
    half_wedge = math.pi / corners
    wedge = angle.remainder(2 * math.pi / corners) - half_wedge
    polygon = half_wedge.cos() / wedge.cos()
    star = 0.65 + 0.55 * (wedge.abs() * corners / math.pi)
    flower = 0.75 + 0.3 * (corners * angle).cos()
    outline = torch.where(k < 3, polygon, torch.where(k < 6, star, flower))
    size = uniform(g, 0.15, 0.34, b, 1, 1)
    return torch.sigmoid((size * outline - radius) / 0.04)


def _paint_over(image: Tensor, mask: Tensor, color: Tensor) -> Tensor:
    """Paint a color `(B, 3)` over images `(B, 3, 32, 32)` with the opacity of the mask."""
    paint = over_pixels(color).expand_as(image)
    return torch.lerp(image, paint, mask[:, None])


def _sector(offset: Tensor) -> Tensor:
    """Return the sector, of SIDES equal ones, that an offset `(B, 2)` points to."""
    x, y = offset.unbind(1)
    turn = torch.atan2(y, x) / (2 * math.pi)
    return (turn * SIDES).floor().long().remainder(SIDES)


def _degrade(image: Tensor, hardness: float, g: torch.Generator) -> Tensor:
    """Degrade images as cameras do, and scale them from [0, 1] to [-1, 1].

    Some are enlarged from 8 or 16 pixels, some lose their colors, all get a little noise.
    """
    b = len(image)
    image = image.clone()
    for side in (8, 16):
        coarse = chance(g, 0.15 * hardness, b)
        small = F.avg_pool2d(image[coarse], SIZE // side)
        image[coarse] = F.interpolate(small, size=SIZE, mode="bilinear")
    gray = chance(g, 0.25, b)
    image[gray] = image[gray].mean(1, keepdim=True)
    amount = uniform(g, 0, 0.06 * hardness, b, 1, 1, 1)
    noise = amount * torch.randn(image.shape, generator=g)
    return (image + noise).clamp(0, 1) * 2 - 1
