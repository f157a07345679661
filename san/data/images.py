"""Images as they are packed: which formats of files are read, and how they are decoded."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

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
    "PPM": (".ppm",),
    "TIFF": (".tif", ".tiff"),
}


def decode_image(data: bytes) -> Pixels:
    """Decode an image file to uint8 `(H, W, 3)`; a single channel is repeated.

    Raises DataError, which says why, if it is not of one of FORMATS, cannot be decoded, has more
    than 8 bits a channel, or more pixels than PIL takes for an honest image (179 million).
    """
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            mode = image.mode
            # PIL would clip deeper pixels to 8 bits in silence.
            if not mode.startswith("I") and mode != "F":
                return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        formats = ", ".join(FORMATS)
        raise DataError(f"it is not an image of a format that is read: {formats}") from error
    except Exception as error:  # PIL and its codecs raise whatever they stumble on
        raise DataError(str(error) or type(error).__name__) from error
    raise DataError(f"its pixels are of mode {mode}; 8 bits a channel are allowed")


@dataclass(frozen=True)
class Images:
    """The memory-mapped images of one packed split; reading copies, so the file is never changed.

    data: uint8 `(N, H, W, 3)`; or, with offsets `(N + 1,)`, the bytes of N image files end to end.
    """

    data: Pixels
    offsets: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        if self.offsets is None:
            return len(self.data)
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Pixels:
        if self.offsets is None:
            return np.array(self.stored(i))  # a copy
        return decode_image(self.stored(i).tobytes())

    def stored(self, i: int) -> Pixels:
        """Return image i as it is stored, `(H, W, 3)` or the bytes of its file; a view."""
        if self.offsets is None:
            image: Pixels = self.data[i]
            return image
        start = self.offsets[i]
        end = self.offsets[i + 1]
        return self.data[start:end]
