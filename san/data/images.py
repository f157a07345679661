"""Images as they are packed: which formats of files are read, and how they are decoded."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from san.data.arrays import Pixels
from san.errors import DataError

# PIL's formats, with the suffixes of their files. PIL knows others, of which some start a program:
# Ghostscript for EPS, whatever the file is called.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),  # and MPO, which phones write
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "TIFF": (".tif", ".tiff"),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)


def decode_image(data: bytes, as_shown: bool = False) -> Pixels:
    """Decode an image file to uint8 `(H, W, 3)`; a single channel is repeated.

    as_shown: turn it as its EXIF says, and put white behind what is transparent, as viewers do.
    Else pixels are taken as they are stored, and alpha is left out, as benchmarks are read.

    Raises DataError, which says why, if it is not of one of FORMATS, cannot be decoded, has more
    than 8 bits a channel, or more pixels than PIL takes for an honest image (179 million).
    """
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            mode = image.mode
            if not _is_deep(image):
                return np.array(_as_shown(image) if as_shown else image.convert("RGB"))
    except UnidentifiedImageError as error:
        formats = ", ".join(FORMATS)
        raise DataError(f"it is not an image of a format that is read: {formats}") from error
    except Exception as error:  # PIL and its codecs raise whatever they stumble on
        raise DataError(str(error) or type(error).__name__) from error
    raise DataError(f"it has more than 8 bits a channel (mode {mode}); 8 are allowed")


def _as_shown(image: Image.Image) -> Image.Image:
    """Return an image upright, in RGB, on a white ground."""
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    ground = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(ground, upright.convert("RGBA")).convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    """Return whether a file has more than 8 bits a channel, which PIL would clip in silence."""
    if image.mode.startswith("I") or image.mode == "F":
        return True
    if isinstance(image, TiffImageFile):
        bits: int = max(image.tag_v2.get(BITSPERSAMPLE, (1,)))
        return bits > 8
    # Of other formats only PIL's decoder is told: of PNG the layout of the bytes, of PPM maxval.
    for decoder, _, _, args in getattr(image, "tile", ()):
        layout, *options = args if isinstance(args, tuple) else (args,)
        if str(layout).endswith(";16B"):
            return True
        if decoder.startswith("ppm") and options and options[-1] > 255:
            return True
    return False


@dataclass(frozen=True)
class Images:
    """The memory-mapped images of one packed split; reading copies, so the file is never changed.

    data: uint8 `(N, H, W, 3)`; or, with offsets `(N + 1,)`, the bytes of N image files end to end.
    as_shown: how these are decoded, see `decode_image`.
    """

    data: Pixels
    offsets: NDArray[np.int64] | None = None
    as_shown: bool = False

    def __len__(self) -> int:
        if self.offsets is None:
            return len(self.data)
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Pixels:
        if self.offsets is None:
            return np.array(self.stored(i))  # a copy
        return decode_image(self.stored(i).tobytes(), self.as_shown)

    def stored(self, i: int) -> Pixels:
        """Return image i as it is stored, `(H, W, 3)` or the bytes of its file; a view."""
        if self.offsets is None:
            image: Pixels = self.data[i]
            return image
        start = self.offsets[i]
        end = self.offsets[i + 1]
        return self.data[start:end]
