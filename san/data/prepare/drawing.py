"""What the demo's images are drawn with: coordinates, soft shapes, colours, clouds, light.

An image is float `(32, 32, 3)` in [0, 1], a colour `(3,)`. Coordinates, distances, opacities and
other fields are `(32, 32)`. The image is 2 units wide and high, and (0, 0) is its middle.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.float64]
SIZE = 32
Y, X = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE * 2 - 1  # pixel centres in [-1, 1]


def rgb(red: float, green: float, blue: float) -> Image:
    """Return a colour."""
    return np.array([red, green, blue])


def filled(colour: Image) -> Image:
    """Return an image of one colour; read-only."""
    return np.broadcast_to(colour, (SIZE, SIZE, 3))


def two_colours(rng: Generator, apart: float = 0.3) -> tuple[Image, Image]:
    """Draw two RGB colours whose brightness differs by at least `apart`."""
    while True:
        one = rng.random(3)
        two = rng.random(3)
        if abs(one.mean() - two.mean()) >= apart:
            return one, two


def varied(colour: Image, rng: Generator, std: float) -> Image:
    """Return a colour near `colour`."""
    return colour + rng.normal(0, std, 3)


def soft(distance: Image, blur: float = 0.05) -> Image:
    """Opacity of the region where `distance` is negative, with a soft edge."""
    # Beyond +-30 the opacity is 0 or 1 to every digit that uint8 keeps, and exp could overflow.
    exponent = np.clip(distance / blur, -30, 30)
    opacity: Image = 1 / (1 + np.exp(exponent))
    return opacity


def paint(image: Image, opacity: Image, colour: Image) -> Image:
    """Paint a colour, or another image, over `image` where `opacity` `(32, 32)` says."""
    return image + opacity[..., None] * (colour - image)


def rotated(angle: float, x: float = 0.0, y: float = 0.0) -> tuple[Image, Image]:
    """Pixel coordinates along and across a direction, counted from the point `(x, y)`."""
    cos = np.cos(angle)
    sin = np.sin(angle)
    right = X - x
    down = Y - y
    along = right * cos + down * sin
    across = down * cos - right * sin
    return along, across


def distance_to(x: float, y: float) -> Image:
    """Distance of each pixel to a point."""
    distance: Image = np.hypot(X - x, Y - y)
    return distance


def wave(frequency: float, position: Image) -> Image:
    """Return a sine. frequency: half periods per unit."""
    sine: Image = np.sin(np.pi * frequency * position)
    return sine


def clouds(rng: Generator, cells: int) -> Image:
    """Smooth noise in [0, 1]: a random `cells` x `cells` grid, enlarged by cosine interpolation."""
    knots = rng.random((cells + 1, cells + 1))
    position = (np.arange(SIZE) + 0.5) / SIZE * cells
    before = position.astype(int)
    after = before + 1
    way = position - before
    weight = (1 - np.cos(np.pi * way)) / 2
    rows = _between(
        knots[before],
        knots[after],
        weight[:, None],
    )
    return _between(
        rows[:, before],
        rows[:, after],
        weight,
    )


def _between(one: Image, other: Image, weight: Image) -> Image:
    """Interpolate linearly.

    weight: 0 for `one`, 1 for `other`.
    """
    return one * (1 - weight) + other * weight


def dots(u: Image, v: Image) -> Image:
    """Return a field of one dot a unit square."""
    to_middle = np.hypot(
        u % 1 - 0.5,
        v % 1 - 0.5,
    )
    return 0.45 - to_middle / 0.7


def rings(frequency: float, rng: Generator) -> Image:
    """Return a field of circles around a random point."""
    radius = distance_to(
        rng.uniform(-1, 1),
        rng.uniform(-1, 1),
    )
    return wave(frequency, radius)


def bricks(u: Image, v: Image) -> Image:
    """Return a field of bricks one unit long and high, each row shifted by half a brick."""
    row = np.floor(v)
    from_joints = np.minimum(
        v % 1,
        (u + row / 2) % 1,
    )
    return from_joints - 0.2


def cracks(rng: Generator) -> Image:
    """Distance from the borders between the cells of random points (a Voronoi diagram).

    It is the second smallest distance to a point less the smallest, so about zero on a border.
    """
    count = rng.integers(14, 26)
    points = rng.uniform(-1.3, 1.3, (count, 2))
    distances = np.hypot(
        X[..., None] - points[:, 0],
        Y[..., None] - points[:, 1],
    )
    nearest = np.sort(distances, axis=-1)
    gap: Image = nearest[..., 1] - nearest[..., 0]
    return gap


def photograph(image: Image, rng: Generator, noise: float) -> NDArray[np.uint8]:
    """Light an image unevenly, add sensor noise and round to uint8.

    noise: the standard deviation of the sensor's noise, each channel on its own.
    """
    along, _ = rotated(rng.uniform(0, 2 * np.pi))
    light = 1 + rng.uniform(0, 0.25) * along
    lit = image * light[..., None]
    noisy = lit + rng.normal(
        loc=0,
        scale=noise,
        size=image.shape,
    )
    clipped = np.clip(noisy, 0, 1)
    return np.rint(255 * clipped).astype(np.uint8)
