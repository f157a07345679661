"""Files of images are decoded by the formats that are meant, and whatever is wrong is said."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from san.data.augment import Augment, AugmentedImages
from san.data.images import FORMATS, decode_image
from san.data.pack import write_split
from san.data.split import read_split
from san.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8)
WITHOUT_LOSS = {"PNG", "BMP", "PPM", "TIFF"}


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_decoded(name: str) -> None:
    found = decode_image(saved(Image.fromarray(PIXELS), name))
    assert (found.shape, found.dtype) == (PIXELS.shape, np.uint8)
    assert np.array_equal(found, PIXELS) or name not in WITHOUT_LOSS


def test_photographs_of_phones_are_decoded() -> None:
    image = Image.fromarray(PIXELS)
    file = saved(image, "MPO", save_all=True, append_images=[image])
    with Image.open(io.BytesIO(file)) as opened:
        assert opened.format == "MPO"
    assert decode_image(file).shape == PIXELS.shape


def test_a_format_whose_reader_starts_a_program_is_not_opened() -> None:
    file = saved(Image.fromarray(PIXELS), "EPS")
    with Image.open(io.BytesIO(file)) as opened:
        assert opened.format == "EPS"  # loading it would run Ghostscript
    with pytest.raises(DataError, match="not an image of a format that is read: JPEG, PNG, BMP"):
        decode_image(file)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size, and some of its pixels."""
    facts = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + pixels


GOOD = saved(Image.fromarray(PIXELS), "PNG")
DAMAGED = {
    "empty": b"",
    "text": b"not an image",
    "truncated": saved(Image.fromarray(PIXELS), "JPEG")[:-200],
    "a broken chunk": GOOD.replace(b"IDAT", b"IDAX", 1),
    "a bomb": png_header(40_000, 40_000),
    "half a bomb": png_header(10_000, 10_000),
    "an empty size": png_header(0, 5),
    "a TIFF of nothing": b"II*\0\xff\xff\xff\xff",
    "a BMP of a negative size": b"BM"
    + struct.pack("<IHHIIiiHHII", 0, 0, 0, 54, 40, -9, 9, 1, 24, 0, 0),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_files_are_refused(how: str) -> None:
    with pytest.raises(DataError):
        decode_image(DAMAGED[how])


@pytest.mark.parametrize(
    "error",
    [SyntaxError("x"), ValueError("x"), struct.error("x"), MemoryError("x"), KeyError("x")],
)
def test_whatever_pil_raises_is_said(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match="x"):
        decode_image(GOOD)


def test_training_names_an_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    files = [("good.png", 0, GOOD), ("bad.png", 1, DAMAGED["a bomb"])]
    write_split(tmp_path / "s", files, {"made_by": "a test"})
    split = read_split(tmp_path / "s", 2, 2)
    assert np.array_equal(split.image(0), PIXELS)
    message = "Image bad.png .a test. cannot be decoded .*exceeds limit"
    with pytest.raises(DataError, match=message):
        split.image(1)
    transform = Augment(crop="random").transform(8, ((0.5,) * 3, (0.5,) * 3))
    with pytest.raises(DataError, match=message):
        AugmentedImages(split, transform)[1, 0]
