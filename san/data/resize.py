"""The named ways from an image to a square of pixels, uint8 to uint8, on the CPU.

The same code makes pixels when a task is packed and when a batch is loaded, so that both give the
same pixels. Sources: google-research/task_adaptation d7630d3 and KMnP/vpt 4410440 (vtab, crop_256),
ZhangYuanhan-AI/NOAH e9c55f3 (bicubic), dongzelian/SSF e94e0e7 (ssf, crop_248).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from san.data.arrays import Pixels
from san.errors import choose

LONGEST = 256  # sides of an image, as a ratio, before its ends are cut off


def resize(images: Sequence[Pixels], name: str, image_size: int) -> Pixels:
    """Bring images `(H, W, 3)` of any sizes to `(B, image_size, image_size, 3)`.

    name: a key of RESIZE. Images that have this size already are taken as they are, but by the
    crops, which would enlarge them first. Raises UnknownNameError on an unknown name.
    """
    resize_image = RESIZE[choose(name, RESIZE, "data.resize")]
    shape = (len(images), image_size, image_size, 3)
    resized = np.empty(shape, np.uint8)
    for i, image in enumerate(images):
        fits = image.shape[:2] == (image_size, image_size)
        if fits and not name.startswith("crop"):
            resized[i] = image
        else:
            resized[i] = resize_image(image, image_size)
    return resized


def cut_strip(image: Pixels) -> Pixels:
    """Return the middle of a strip that is over LONGEST times as long as it is wide.

    To enlarge one of 1 x 20000 pixels for a crop would take gigabytes. Others stay as they are.
    """
    height, width = image.shape[:2]
    most = LONGEST * min(height, width)
    if max(height, width) <= most:
        return image
    top = max(0, height - most) // 2
    left = max(0, width - most) // 2
    return np.ascontiguousarray(image[top : top + most, left : left + most])


def _bilinear(image: Pixels, image_size: int) -> Pixels:
    """Squash without antialiasing, as `tf.image.resize` does, then round (tf keeps fractions)."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    size = (image_size, image_size)
    x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    pixels = x[0].permute(1, 2, 0).round().clamp(0, 255).byte()
    return pixels.numpy()


def _bicubic(image: Pixels, image_size: int) -> Pixels:
    """Squash with PIL's antialiased bicubic filter."""
    size = (image_size, image_size)
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _ssf(image: Pixels, image_size: int) -> Pixels:
    """Resize the shorter side, bicubic, then crop the center.

    SSF calls it a direct resize; it cuts the longer sides off.
    """
    resized = _resize_shorter_side(image, image_size, Image.Resampling.BICUBIC)
    return _center_crop(resized, image_size)


def _crop_256(image: Pixels, image_size: int) -> Pixels:
    """Resize the shorter side to 256 for 224 px, bilinear, then crop the center.

    VPT's test images of FGVC; 512 for 448 px, 438 for 384 px.
    """
    shorter = image_size * 256 // 224
    resized = _resize_shorter_side(image, shorter, Image.Resampling.BILINEAR)
    return _center_crop(resized, image_size)


def _crop_248(image: Pixels, image_size: int) -> Pixels:
    """Resize the shorter side to image_size / 0.9, bicubic, then crop the center.

    SSF's test images of FGVC, CIFAR-100 and ImageNet.
    """
    shorter = math.floor(image_size / 0.9)
    resized = _resize_shorter_side(image, shorter, Image.Resampling.BICUBIC)
    return _center_crop(resized, image_size)


def _resize_shorter_side(image: Pixels, shorter: int, filter_: Image.Resampling) -> Image.Image:
    """Bring the shorter side to so many pixels, the longer in proportion.

    The longer side is rounded down, as torchvision does.
    """
    image = cut_strip(image)
    height, width = image.shape[:2]
    if width <= height:
        size = (shorter, int(shorter * height / width))
    else:
        size = (int(shorter * width / height), shorter)
    return Image.fromarray(image).resize(size, filter_)


def _center_crop(image: Image.Image, image_size: int) -> Pixels:
    """Crop the center; halves are rounded to even, as torchvision does."""
    left = round((image.width - image_size) / 2)
    top = round((image.height - image_size) / 2)
    box = (left, top, left + image_size, top + image_size)
    return np.asarray(image.crop(box))


RESIZE: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "vtab": _bilinear,
    "bicubic": _bicubic,
    "ssf": _ssf,
    "crop_256": _crop_256,
    "crop_248": _crop_248,
}
