"""The drawn tasks of the demo suite: one function per task turns a class index and a random generator into an image.

Every image is float `(32, 32, 3)` in [0, 1] before `photograph` adds light and noise. Shapes and patterns are not those
that `vit_nano` was pre-trained on (scripts/pretrain/scenes.py), and neither is any label rule.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.float64]
SIZE = 32
Y, X = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE * 2 - 1  # pixel centres in [-1, 1]


def soft(distance: Image, blur: float = 0.05) -> Image:
    """Opacity of the region where `distance` is negative, with a soft edge."""
    return 1 / (1 + np.exp(np.clip(distance / blur, -30, 30)))


def paint(image: Image, opacity: Image, colour: Image) -> Image:
    """Paint `colour` `(3,)` over `image` where `opacity` `(32, 32)` says."""
    return image + opacity[..., None] * (colour - image)


def two_colours(rng: Generator, apart: float = 0.3) -> tuple[Image, Image]:
    """Draw two RGB colours whose brightness differs by at least `apart`."""
    while True:
        one, two = rng.random(3), rng.random(3)
        if abs(one.mean() - two.mean()) >= apart:
            return one, two


def rotated(angle: float) -> tuple[Image, Image]:
    """Pixel coordinates along and across a direction."""
    return X * np.cos(angle) + Y * np.sin(angle), Y * np.cos(angle) - X * np.sin(angle)


def clouds(rng: Generator, cells: int) -> Image:
    """Smooth noise in [0, 1]: a random `cells` x `cells` grid, enlarged by cosine interpolation."""
    knots = rng.random((cells + 1, cells + 1))
    at = (np.arange(SIZE) + 0.5) / SIZE * cells
    low = at.astype(int)
    part = (1 - np.cos(np.pi * (at - low))) / 2
    rows = knots[low] * (1 - part)[:, None] + knots[low + 1] * part[:, None]
    smooth: Image = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return smooth


def photograph(image: Image, rng: Generator, noise: float) -> NDArray[np.uint8]:
    """Light an image unevenly, add sensor noise and round to uint8."""
    along, _ = rotated(rng.uniform(0, 2 * np.pi))
    light = 1 + rng.uniform(0, 0.25) * along
    spoilt = image * light[..., None] + rng.normal(0, noise, image.shape)
    return np.rint(255 * np.clip(spoilt, 0, 1)).astype(np.uint8)


def cracks(rng: Generator) -> Image:
    """Distance from the borders between the cells of random points (a Voronoi diagram), about zero on a border."""
    points = rng.uniform(-1.3, 1.3, (rng.integers(14, 26), 2))
    distances = np.sort(np.hypot(X[..., None] - points[:, 0], Y[..., None] - points[:, 1]), axis=-1)
    gap: Image = distances[..., 1] - distances[..., 0]
    return gap


def texture(kind: int, rng: Generator) -> Image:
    """Stripes, checks, dots, rings, bricks, cells, clouds or weave in two colours, at any angle and a random scale."""
    u, v = rotated(rng.uniform(0, np.pi))
    u, v = u + rng.uniform(0, 1), v + rng.uniform(0, 1)
    f = rng.uniform(2, 4.5)  # periods per unit
    wave_u, wave_v = np.sin(np.pi * f * u), np.sin(np.pi * f * v)
    match kind:
        case 0:
            field = wave_u
        case 1:
            field = wave_u * wave_v
        case 2:
            field = 0.45 - np.hypot((f * u / 2) % 1 - 0.5, (f * v / 2) % 1 - 0.5) / 0.7
        case 3:
            field = np.sin(np.pi * f * np.hypot(X - rng.uniform(-1, 1), Y - rng.uniform(-1, 1)))
        case 4:
            row = np.floor(f * v)
            field = np.minimum((f * v) % 1, (f * u / 2 + row / 2) % 1) - 0.2
        case 5:
            field = cracks(rng) - 0.09
        case 6:
            field = clouds(rng, int(rng.integers(4, 8))) - 0.5
        case _:
            over = np.sign(np.sin(np.pi * f * u / 2) * np.sin(np.pi * f * v / 2))
            field = np.where(over > 0, wave_u, wave_v)
    one, two = two_colours(rng, 0.15)
    return paint(np.broadcast_to(one, (SIZE, SIZE, 3)), soft(-field, 0.15), two)


def nucleus(
    image: Image, rng: Generator, at: NDArray[np.float64], radius: float, ragged: float
) -> Image:
    """Paint a dark violet body of wavy outline."""
    dx, dy = X - at[0], Y - at[1]
    angle = np.arctan2(dy, dx)
    outline = radius * (
        1 + ragged * np.sin(3 * angle + rng.uniform(0, 6)) + ragged * np.sin(5 * angle)
    )
    colour = np.array([0.35, 0.2, 0.5]) + rng.normal(0, 0.05, 3)
    return paint(image, 0.85 * soft(np.hypot(dx, dy) - outline), colour)


def tissue(tumour: int, rng: Generator) -> Image:
    """Stained tissue; it counts as a tumour if a large ragged nucleus lies in the middle, whatever lies at the rim."""
    pink, violet = np.array([0.9, 0.7, 0.8]), np.array([0.75, 0.55, 0.75])
    image = paint(np.broadcast_to(pink, (SIZE, SIZE, 3)), clouds(rng, 5), violet)
    for _ in range(rng.integers(8, 16)):
        image = nucleus(image, rng, rng.uniform(-1, 1, 2), rng.uniform(0.1, 0.17), 0.05)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        image = nucleus(
            image, rng, 0.9 * np.array([np.cos(angle), np.sin(angle)]), rng.uniform(0.24, 0.36), 0.2
        )
    if tumour:
        image = nucleus(image, rng, rng.uniform(-0.4, 0.4, 2), rng.uniform(0.24, 0.36), 0.2)
    return image


def farmland(rng: Generator) -> Image:
    """Fields from above: straight borders, each field with its green or brown and its furrows."""
    image = np.broadcast_to(np.array([0.4, 0.5, 0.25]), (SIZE, SIZE, 3))
    for _ in range(rng.integers(2, 5)):
        u, v = rotated(rng.uniform(0, np.pi))
        colour = np.array([0.45, 0.5, 0.25]) + rng.uniform(-0.2, 0.2, 3) * [1, 1, 0.5]
        furrows = 1 + 0.12 * np.sin(np.pi * rng.uniform(4, 8) * v)
        image = image + soft(u - rng.uniform(-0.7, 0.7), 0.03)[..., None] * (
            colour * furrows[..., None] - image
        )
    return image


def terrain(kind: int, rng: Generator) -> Image:
    """Field, forest, river, lake, town or motorway, seen from above."""
    image = farmland(rng)
    u, v = rotated(rng.uniform(0, np.pi))
    water = np.array([0.2, 0.32, 0.45]) + rng.normal(0, 0.04, 3)
    grey = np.full(3, rng.uniform(0.45, 0.65))
    match kind:
        case 1:
            crowns = 0.5 * clouds(rng, 12) + 0.5 * clouds(rng, 5)
            return paint(
                np.broadcast_to(np.array([0.12, 0.25, 0.1]), (SIZE, SIZE, 3)),
                crowns,
                np.array([0.3, 0.45, 0.2]),
            )
        case 2:
            bend = rng.uniform(0.15, 0.35) * np.sin(
                rng.uniform(2, 4) * u + rng.uniform(0, 6)
            ) + rng.uniform(-0.4, 0.4)
            return paint(image, soft(np.abs(v - bend) - rng.uniform(0.1, 0.22)), water)
        case 3:
            shore = rng.uniform(0.3, 0.6) * (0.7 + 0.6 * clouds(rng, 4))
            return paint(
                image,
                soft(np.hypot(X - rng.uniform(-0.4, 0.4), Y - rng.uniform(-0.4, 0.4)) - shore),
                water,
            )
        case 4:
            f = rng.uniform(2.5, 4)
            roofs = np.maximum(np.abs((f * u) % 1 - 0.5), np.abs((f * v) % 1 - 0.5)) - 0.3
            built = soft(roofs) * (clouds(rng, 6) > 0.3)
            return paint(
                paint(image, np.full((SIZE, SIZE), 0.6), grey), built, np.array([0.7, 0.4, 0.3])
            )
        case 5:
            off = v - rng.uniform(-0.5, 0.5)
            lanes = np.abs(np.abs(off) - rng.uniform(0.08, 0.12)) - 0.06
            return paint(image, soft(lanes, 0.03), grey)
        case _:
            return image


def count(kind: int, rng: Generator) -> Image:
    """Two to seven separate discs of any colour on a cloudy ground."""
    ground, ink = two_colours(rng, 0.25)
    image = paint(np.broadcast_to(ground, (SIZE, SIZE, 3)), 0.3 * clouds(rng, 4), ink)
    placed: list[tuple[float, float, float]] = []
    while len(placed) < kind + 2:
        x, y, radius = *rng.uniform(-0.8, 0.8, 2), rng.uniform(0.1, 0.2)
        if all(np.hypot(x - a, y - b) > radius + r + 0.12 for a, b, r in placed):
            placed.append((x, y, radius))
            image = paint(
                image,
                soft(np.hypot(X - x, Y - y) - radius),
                np.clip(ink + rng.normal(0, 0.12, 3), 0, 1),
            )
    return image


def orientation(kind: int, rng: Generator) -> Image:
    """Draw an ellipse whose long axis points at `kind` * 22.5 degrees (+-7), before faint stripes of any direction."""
    ground, ink = two_colours(rng)
    stripes, _ = rotated(rng.uniform(0, np.pi))
    image = paint(
        np.broadcast_to(ground, (SIZE, SIZE, 3)),
        0.12 * (1 + np.sin(np.pi * rng.uniform(2, 5) * stripes)),
        ink,
    )
    angle = np.pi * (kind * 22.5 + rng.uniform(-7, 7)) / 180
    dx, dy = rng.uniform(-0.35, 0.35, 2)
    u, v = (
        (X - dx) * np.cos(angle) + (Y - dy) * np.sin(angle),
        (Y - dy) * np.cos(angle) - (X - dx) * np.sin(angle),
    )
    long = rng.uniform(0.4, 0.6)
    wide = long / rng.uniform(1.7, 3)
    return paint(image, soft((np.hypot(u / long, v / wide) - 1) * wide), ink)


VERSION = 1  # raise it when a drawing changes, so that images made before are made anew
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
    """Draw `total` images of a task, the classes in turn; return uint8 `(total, 32, 32, 3)` and int64 `(total,)`."""
    labels = np.arange(total, dtype=np.int64) % classes
    images = np.empty((total, SIZE, SIZE, 3), np.uint8)
    paint, noise = DRAW[task]
    for i, label in enumerate(labels):
        rng = np.random.default_rng([seed, *task.encode(), i])
        images[i] = photograph(paint(int(label), rng), rng, noise)
    return images, labels
