"""The named ways from an image to a square of pixels, uint8 to uint8, on the CPU.

The same code makes the pixels when a task is packed and when a batch is taken, so it does not matter when it is done.
Sources: google-research/task_adaptation d7630d3 and KMnP/vpt 4410440 (vtab, crop_256), ZhangYuanhan-AI/NOAH e9c55f3
(bicubic), dongzelian/SSF e94e0e7 (ssf, crop_248).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from san.errors import choose

Pixels = NDArray[np.uint8]


def bilinear(image: Pixels, side: int) -> Pixels:
    """Squash without antialiasing, as `tf.image.resize` does, then round (tf keeps the fractions)."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
    return x[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()


def bicubic(image: Pixels, side: int) -> Pixels:
    """Squash with PIL's antialiased bicubic filter."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def short_side(image: Pixels, side: int, filter_: Image.Resampling) -> Image.Image:
    """Bring the shorter side to `side` pixels, the longer in proportion (rounded down, as torchvision does)."""
    height, width = image.shape[:2]
    size = (
        (side, int(side * height / width))
        if width <= height
        else (int(side * width / height), side)
    )
    return Image.fromarray(image).resize(size, filter_)


def centre_crop(image: Image.Image, side: int) -> Pixels:
    """Cut the middle out (half to even, as torchvision does)."""
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def ssf(image: Pixels, side: int) -> Pixels:
    """Shorter side to `side`, bicubic, then the middle: what SSF calls a direct resize; it cuts the sides off."""
    return centre_crop(short_side(image, side, Image.Resampling.BICUBIC), side)


def crop_256(image: Pixels, side: int) -> Pixels:
    """Shorter side to 256 for 224 (512 for 448, 438 for 384), bilinear, then the middle: VPT's test images of FGVC."""
    return centre_crop(short_side(image, side * 256 // 224, Image.Resampling.BILINEAR), side)


def crop_248(image: Pixels, side: int) -> Pixels:
    """Shorter side to side / 0.9, bicubic, then the middle: SSF's test images of FGVC, CIFAR-100 and ImageNet."""
    return centre_crop(short_side(image, math.floor(side / 0.9), Image.Resampling.BICUBIC), side)


RESIZE: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "vtab": bilinear,
    "bicubic": bicubic,
    "ssf": ssf,
    "crop_256": crop_256,
    "crop_248": crop_248,
}


def resize(images: Sequence[Pixels], name: str, side: int) -> Pixels:
    """Bring images `(H, W, 3)` of any sizes to `(B, side, side, 3)` by the resize called `name`.

    Images of the wanted size are taken as they are by the two that squash, and by `ssf`. Raises LookupError on an
    unknown name.
    """
    change = RESIZE[choose(name, RESIZE, "data.resize")]
    out = np.empty((len(images), side, side, 3), np.uint8)
    for i, image in enumerate(images):
        as_it_is = image.shape[:2] == (side, side) and not name.startswith("crop")
        out[i] = image if as_it_is else change(image, side)
    return out
