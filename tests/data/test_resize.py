"""Resizes against their formulas and against torchvision."""

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from san.data.resize import LONGEST, RESIZE, cut_strip, resize

SIZES = [(8, 8, 32), (60, 41, 24), (37, 124, 16)]
BILINEAR = InterpolationMode.BILINEAR
BICUBIC = InterpolationMode.BICUBIC


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each of `new` pixel centres, its two neighbours and the weight of the second."""
    position = (np.arange(new) + 0.5) * old / new - 0.5
    position = np.clip(position, 0, old - 1)
    first = np.floor(position).astype(int)
    second = np.minimum(first + 1, old - 1)
    return first, second, position - first


@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_vtab_resize_is_the_formula(height: int, width: int, side: int) -> None:
    """Bilinear without antialias at pixel centres, in float64, then rounded."""
    image = picture(height, width)
    y0, y1, fy = neighbours(height, side)
    x0, x1, fx = neighbours(width, side)
    fy = fy[:, None, None]
    fx = fx[None, :, None]
    exact = image.astype(float)
    top = exact[y0][:, x0] * (1 - fx) + exact[y0][:, x1] * fx
    low = exact[y1][:, x0] * (1 - fx) + exact[y1][:, x1] * fx
    ours = resize([image], "vtab", side)[0]
    assert np.abs(ours - (top * (1 - fy) + low * fy)).max() <= 0.5 + 1e-4


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, which PIL uses."""
    d = np.abs(distance)
    inner = 1.5 * d**3 - 2.5 * d**2 + 1
    outer = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d < 1, inner, np.where(d < 2, outer, 0))


def weights(old: int, new: int) -> np.ndarray:
    """Antialiased bicubic weights `(new, old)`: the kernel is stretched where the image shrinks."""
    scale = old / new
    stretch = max(scale, 1)
    centres = (np.arange(new) + 0.5) * scale
    w = cubic((np.arange(old) + 0.5 - centres[:, None]) / stretch)
    return w / w.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_bicubic_resize_is_the_formula(height: int, width: int, side: int) -> None:
    """PIL rounds to uint8 between its two passes; which is first depends on version and size."""
    image = picture(height, width)
    ours = resize([image], "bicubic", side)[0]
    errors = []
    for axis, other in ((0, 1), (1, 0)):
        first = np.moveaxis(image.astype(float), axis, 0)
        half = np.tensordot(weights(len(first), side), first, 1)
        half = np.clip(np.rint(half), 0, 255)
        second = np.moveaxis(np.moveaxis(half, 0, axis), other, 0)
        both = np.moveaxis(np.tensordot(weights(len(second), side), second, 1), 0, other)
        errors.append(np.abs(ours - np.clip(both, 0, 255)).max())
    assert min(errors) <= 0.51


@pytest.mark.parametrize(
    ("height", "width"), [(300, 400), (400, 300), (37, 124), (224, 224), (233, 351)]
)
@pytest.mark.parametrize(
    ("name", "side", "shorter", "mode"),
    [
        ("ssf", 224, 224, BICUBIC),
        ("ssf", 384, 384, BICUBIC),
        ("crop_256", 224, 256, BILINEAR),
        ("crop_256", 384, 438, BILINEAR),
        ("crop_256", 448, 512, BILINEAR),
        ("crop_248", 224, 248, BICUBIC),
        ("crop_248", 384, 426, BICUBIC),
        ("crop_248", 448, 497, BICUBIC),
    ],
)
def test_crops_are_those_of_torchvision(
    name: str, side: int, shorter: int, mode: InterpolationMode, height: int, width: int
) -> None:
    image = picture(height, width)
    chain = transforms.Compose(
        [transforms.Resize(shorter, interpolation=mode), transforms.CenterCrop(side)]
    )
    expected = np.asarray(chain(Image.fromarray(image)))
    assert np.array_equal(resize([image], name, side)[0], expected)


def test_only_the_crops_change_an_image_of_the_right_size() -> None:
    image = picture(32, 32)
    unchanged = [name for name in RESIZE if np.array_equal(resize([image], name, 32)[0], image)]
    assert unchanged == ["vtab", "bicubic", "ssf"]


@pytest.mark.parametrize("name", ["ssf", "crop_248", "crop_256"])
@pytest.mark.parametrize("wide", [True, False])
def test_a_strip_needs_no_gigabytes(name: str, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1 x 20000 pixels the middle is what a crop shows; the ends are never enlarged."""
    shades = np.arange(20000) // 80
    strip = np.repeat(shades.astype(np.uint8)[None, :, None], 3, axis=2)
    if not wide:
        strip = np.ascontiguousarray(strip.transpose(1, 0, 2))
    sizes = []
    resize_ = Image.Image.resize

    def measured(image: Image.Image, size: tuple[int, int], *options: object) -> Image.Image:
        sizes.append(size[0] * size[1])
        return resize_(image, size, *options)

    monkeypatch.setattr(Image.Image, "resize", measured)
    found = resize([strip], name, 224)
    assert found.shape == (1, 224, 224, 3)
    assert sizes and max(sizes) <= 256**2 * LONGEST
    assert abs(int(found[0, 112, 112, 0]) - shades[10000]) <= 1


def test_benchmarks_have_no_strips_that_are_cut() -> None:
    image = picture(4, 4 * LONGEST)
    assert cut_strip(image) is image
    longer = picture(4, 4 * LONGEST + 6)
    assert np.array_equal(cut_strip(longer), longer[:, 3:-3])
