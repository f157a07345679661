"""The drawn tasks of the demo suite: one function per task turns a class index into an image.

Every image is float `(32, 32, 3)` in [0, 1] before `photograph` adds light and noise. Shapes and
patterns are not those that `vit_nano` was pre-trained on (scripts/pretrain/scenes.py), and neither
is any label rule.

The order of the random draws is part of the data: in another order they give other pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from san.data.prepare.drawing import (
    SIZE,
    Image,
    X,
    Y,
    bricks,
    clouds,
    cracks,
    distance_to,
    dots,
    filled,
    paint,
    photograph,
    rgb,
    rings,
    rotated,
    soft,
    two_colours,
    varied,
    wave,
)

VERSION = 1  # raise it when a drawing changes, so that images made before are made again

PINK = rgb(0.9, 0.7, 0.8)
VIOLET = rgb(0.75, 0.55, 0.75)
DARK_VIOLET = rgb(0.35, 0.2, 0.5)
MEADOW = rgb(0.4, 0.5, 0.25)
FIELD = rgb(0.45, 0.5, 0.25)
UNDERGROWTH = rgb(0.12, 0.25, 0.1)
LEAVES = rgb(0.3, 0.45, 0.2)
WATER = rgb(0.2, 0.32, 0.45)
ROOF = rgb(0.7, 0.4, 0.3)


def texture(kind: int, rng: Generator) -> Image:
    """Draw one of eight patterns (`_pattern`) in two colours, at any angle and a random scale."""
    u, v = rotated(rng.uniform(0, np.pi))
    u = u + rng.uniform(0, 1)
    v = v + rng.uniform(0, 1)
    field = _pattern(kind, u, v, rng)
    one, two = two_colours(rng, 0.15)
    return paint(
        filled(one),
        soft(-field, 0.15),
        two,
    )


def _pattern(kind: int, u: Image, v: Image, rng: Generator) -> Image:
    """Return a field `(32, 32)` that is positive where the second colour is.

    kind: in the order of the classes in benchmarks/demo.yaml. u, v: coordinates.
    """
    frequency = rng.uniform(2, 4.5)
    wave_u = wave(frequency, u)
    wave_v = wave(frequency, v)
    scaled_u = frequency * u
    scaled_v = frequency * v
    match kind:
        case 0:
            field = wave_u
        case 1:
            field = wave_u * wave_v
        case 2:
            field = dots(scaled_u / 2, scaled_v / 2)
        case 3:
            field = rings(frequency, rng)
        case 4:
            field = bricks(scaled_u / 2, scaled_v)
        case 5:
            field = cracks(rng) - 0.09
        case 6:
            cells = int(rng.integers(4, 8))
            field = clouds(rng, cells) - 0.5
        case _:
            # A weave: stripes along u or v, in turn, on the squares of a chequerboard.
            chequer = wave(frequency, u / 2) * wave(frequency, v / 2)
            field = np.where(
                np.sign(chequer) > 0,
                wave_u,
                wave_v,
            )
    return field


def tissue(tumour: int, rng: Generator) -> Image:
    """Draw stained tissue; a tumour has a large ragged nucleus in the middle.

    Half of all images, of both classes, have one at the rim, which decides nothing.
    """
    image = paint(
        filled(PINK),
        clouds(rng, 5),
        VIOLET,
    )
    for _ in range(rng.integers(8, 16)):
        image = _nucleus(
            image,
            rng,
            centre=rng.uniform(-1, 1, 2),
            radius=rng.uniform(0.1, 0.17),
            ragged=0.05,
        )
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        image = _nucleus(
            image,
            rng,
            centre=0.9 * direction,
            radius=rng.uniform(0.24, 0.36),
            ragged=0.2,
        )
    if tumour:
        image = _nucleus(
            image,
            rng,
            centre=rng.uniform(-0.4, 0.4, 2),
            radius=rng.uniform(0.24, 0.36),
            ragged=0.2,
        )
    return image


def _nucleus(
    image: Image,
    rng: Generator,
    *,
    centre: Image,
    radius: float,
    ragged: float,
) -> Image:
    """Paint a dark violet body of wavy outline. ragged: the height of its waves, in radii."""
    dx = X - centre[0]
    dy = Y - centre[1]
    angle = np.arctan2(dy, dx)
    slow_wave = np.sin(3 * angle + rng.uniform(0, 6))
    fast_wave = np.sin(5 * angle)
    outline = radius * (1 + ragged * slow_wave + ragged * fast_wave)
    inside = soft(np.hypot(dx, dy) - outline)
    return paint(
        image,
        0.85 * inside,
        varied(DARK_VIOLET, rng, 0.05),
    )


def terrain(kind: int, rng: Generator) -> Image:
    """Draw a field, forest, river, lake, town or motorway, seen from above."""
    image = _farmland(rng)
    u, v = rotated(rng.uniform(0, np.pi))
    # Both colours are drawn for every kind, so that they take their place in the random sequence.
    water = varied(WATER, rng, 0.04)
    grey = np.full(3, rng.uniform(0.45, 0.65))
    match kind:
        case 1:
            return _forest(rng)
        case 2:
            return paint(image, _river(u, v, rng), water)
        case 3:
            return paint(image, _lake(rng), water)
        case 4:
            paved = paint(image, np.full((SIZE, SIZE), 0.6), grey)
            return paint(paved, _roofs(u, v, rng), ROOF)
        case 5:
            return paint(image, _motorway(v, rng), grey)
        case _:
            return image


def _farmland(rng: Generator) -> Image:
    """Draw fields with straight borders, each with its green or brown and its furrows."""
    image = filled(MEADOW)
    for _ in range(rng.integers(2, 5)):
        u, v = rotated(rng.uniform(0, np.pi))
        tint = rng.uniform(-0.2, 0.2, 3) * [1, 1, 0.5]
        furrows = 1 + 0.12 * wave(rng.uniform(4, 8), v)
        field = (FIELD + tint) * furrows[..., None]
        border = rng.uniform(-0.7, 0.7)
        image = paint(
            image,
            soft(u - border, 0.03),
            field,
        )
    return image


def _forest(rng: Generator) -> Image:
    """Draw the crowns of trees, small and large."""
    small = clouds(rng, 12)
    large = clouds(rng, 5)
    return paint(
        filled(UNDERGROWTH),
        0.5 * small + 0.5 * large,
        LEAVES,
    )


def _river(u: Image, v: Image, rng: Generator) -> Image:
    """Opacity of a winding band along `u`."""
    swing = rng.uniform(0.15, 0.35)
    frequency = rng.uniform(2, 4)
    phase = rng.uniform(0, 6)
    offset = rng.uniform(-0.4, 0.4)
    half_width = rng.uniform(0.1, 0.22)
    middle = swing * np.sin(frequency * u + phase) + offset
    return soft(np.abs(v - middle) - half_width)


def _lake(rng: Generator) -> Image:
    """Opacity of a disc of uneven radius."""
    radius = rng.uniform(0.3, 0.6)
    unevenness = clouds(rng, 4)
    shore = radius * (0.7 + 0.6 * unevenness)
    from_middle = distance_to(
        rng.uniform(-0.4, 0.4),
        rng.uniform(-0.4, 0.4),
    )
    return soft(from_middle - shore)


def _roofs(u: Image, v: Image, rng: Generator) -> Image:
    """Opacity of square roofs on a grid, some of them missing."""
    frequency = rng.uniform(2.5, 4)
    in_block_u = (frequency * u) % 1
    in_block_v = (frequency * v) % 1
    to_middle = np.maximum(
        np.abs(in_block_u - 0.5),
        np.abs(in_block_v - 0.5),
    )
    built = clouds(rng, 6) > 0.3
    return soft(to_middle - 0.3) * built


def _motorway(v: Image, rng: Generator) -> Image:
    """Opacity of two parallel carriageways."""
    middle = rng.uniform(-0.5, 0.5)
    apart = rng.uniform(0.08, 0.12)
    to_carriageway = np.abs(np.abs(v - middle) - apart)
    return soft(to_carriageway - 0.06, 0.03)


def count(kind: int, rng: Generator) -> Image:
    """Draw two to seven separate discs of any colour on a cloudy ground."""
    ground, ink = two_colours(rng, 0.25)
    image = paint(
        filled(ground),
        0.3 * clouds(rng, 4),
        ink,
    )
    discs: list[tuple[float, float, float]] = []
    while len(discs) < kind + 2:
        x, y = rng.uniform(-0.8, 0.8, 2)
        radius = rng.uniform(0.1, 0.2)
        if any(np.hypot(x - a, y - b) <= radius + r + 0.12 for a, b, r in discs):
            continue
        discs.append((x, y, radius))
        colour = varied(ink, rng, 0.12)
        image = paint(
            image,
            soft(distance_to(x, y) - radius),
            np.clip(colour, 0, 1),
        )
    return image


def orientation(kind: int, rng: Generator) -> Image:
    """Draw an ellipse whose long axis points at `kind` * 22.5 degrees (+-7), before stripes."""
    ground, ink = two_colours(rng)
    along, _ = rotated(rng.uniform(0, np.pi))
    stripes = wave(rng.uniform(2, 5), along)
    image = paint(
        filled(ground),
        0.12 * (1 + stripes),
        ink,
    )
    degrees = kind * 22.5 + rng.uniform(-7, 7)
    x, y = rng.uniform(-0.35, 0.35, 2)
    u, v = rotated(np.pi * degrees / 180, x, y)
    long = rng.uniform(0.4, 0.6)
    wide = long / rng.uniform(1.7, 3)
    from_rim = np.hypot(u / long, v / wide) - 1
    return paint(
        image,
        soft(from_rim * wide),
        ink,
    )


# Each task's drawing, and the standard deviation of its sensor noise.
DRAW: dict[str, tuple[Callable[[int, Generator], Image], float]] = {
    "texture": (texture, 0.08),
    "tissue": (tissue, 0.04),
    "terrain": (terrain, 0.03),
    "count": (count, 0.06),
    "orientation": (orientation, 0.08),
}


def draw(
    task: str, classes: int, total: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw `total` images of a task, the classes in turn.

    Returns uint8 `(total, 32, 32, 3)` and int64 `(total,)`.
    """
    labels = np.arange(total, dtype=np.int64) % classes
    images = np.empty((total, SIZE, SIZE, 3), np.uint8)
    draw_image, noise = DRAW[task]
    for i, label in enumerate(labels):
        # Each image has a generator of its own, so that it does not depend on the others.
        rng = np.random.default_rng([seed, *task.encode(), i])
        image = draw_image(int(label), rng)
        images[i] = photograph(image, rng, noise)
    return images, labels
