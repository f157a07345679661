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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photographs_are_turned_as_viewers_show_them(name: str, orientation: int) -> None:
    """What each EXIF orientation means stands in the standard (CIPA DC-008, 4.6.5)."""
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 255  # a corner that is light
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(Image.fromarray(stored), name, exif=exif)
    found = decode_image(file, as_shown=True)
    assert found.shape == shown.shape
    assert np.array_equal(found > 128, shown > 128)
    # A benchmark's stay as they are stored; Pillow turns TIFF itself.
    assert name == "TIFF" or np.array_equal(decode_image(file) > 128, stored > 128)


def test_what_is_transparent_is_white_in_own_images() -> None:
    rgba = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)])
    rgba[0, 0, 3] = 0
    rgba[1, 1, 3] = 51  # a fifth
    expected = PIXELS.copy()
    expected[0, 0] = 255
    mixed = 255 - (255 - PIXELS[1, 1].astype(float)) / 5
    found = decode_image(saved(Image.fromarray(rgba), "PNG"), as_shown=True)
    assert np.abs(found[1, 1] - mixed).max() <= 1
    expected[1, 1] = found[1, 1]
    assert np.array_equal(found, expected)
    assert np.array_equal(decode_image(saved(Image.fromarray(rgba), "PNG")), PIXELS)

    grey = Image.fromarray(np.array([[0, 100], [200, 50]], np.uint8))
    shown = decode_image(saved(grey, "PNG", transparency=100), as_shown=True)
    assert shown[..., 0].tolist() == [[0, 255], [200, 50]]
    palette = Image.fromarray(PIXELS).quantize(4)
    shown = decode_image(saved(palette, "GIF", transparency=0), as_shown=True)
    index = np.asarray(palette)
    assert (shown[index == 0] == 255).all()
    assert np.array_equal(shown[index > 0], np.asarray(palette.convert("RGB"))[index > 0])


@pytest.mark.parametrize(("mode", "suffix"), [("L", ".pgm"), ("1", ".pbm"), ("RGB", ".ppm")])
def test_the_family_of_ppm_is_read(mode: str, suffix: str, tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / f"x{suffix}")
    assert suffix in FORMATS["PPM"]
    found = decode_image((tmp_path / f"x{suffix}").read_bytes())
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


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


def deep_png(colour: int, channels: int) -> bytes:
    """A PNG of 16 bits a channel, which PIL cannot write."""
    header = struct.pack(">IIBBBBB", 7, 9, 16, colour, 0, 0, 0)
    rows = (b"\0" + bytes(range(2 * channels)) * 7) * 9
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def deep_tiff(planes: int) -> bytes:
    """A TIFF of one RGB pixel of 16 bits a channel; planes: 1, or 2 where each is a strip."""
    strips = 1 if planes == 1 else 3
    tags = [(256, 1), (257, 1), (258, 16), (259, 1), (262, 2), (273, 0), (277, 3), (278, 1)]
    tags += [(279, 6 // strips), (284, planes)]
    data = 8 + 2 + 12 * len(tags) + 4
    places = {258: data + 6, 273: data + 12, 279: data + 24}
    entries = b""
    for tag, value in tags:
        count = {258: 3, 273: strips, 279: strips}.get(tag, 1)
        kind = 4 if tag in (273, 279) else 3
        if count > 1:
            entries += struct.pack("<HHII", tag, kind, count, places[tag])
        else:
            entries += struct.pack("<HHII", tag, kind, 1, data if tag == 273 else value)
    pixel = struct.pack("<3H", 1, 300, 65535)
    offsets = struct.pack("<3I", data, data + 2, data + 4)
    outside = pixel + struct.pack("<3H", 16, 16, 16) + offsets + struct.pack("<3I", 2, 2, 2)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + outside


DEEP = {
    "PNG of grey": deep_png(0, 1),
    "PNG of RGB": deep_png(2, 3),
    "PNG of grey and alpha": deep_png(4, 2),
    "PNG of RGBA": deep_png(6, 4),
    "PGM": b"P5 7 9 65535\n" + bytes(2 * 63),
    "PPM": b"P6 7 9 65535\n" + bytes(2 * 189),
    "PPM of 12 bits": b"P6 7 9 4095\n" + bytes(2 * 189),
    "PPM in words": b"P3 1 1 65535\n1 300 65535\n",
    "TIFF": deep_tiff(1),
    "TIFF of planes": deep_tiff(2),
}


@pytest.mark.parametrize("how", DEEP)
def test_more_than_8_bits_a_channel_are_refused(how: str) -> None:
    with Image.open(io.BytesIO(DEEP[how])) as image:
        image.load()  # PIL reads it, and clips
    with pytest.raises(DataError, match=r"it has more than 8 bits a channel .mode .*; 8 are allow"):
        decode_image(DEEP[how])


@pytest.mark.parametrize(
    "file",
    [
        b"P6 1 1 255\n" + bytes([1, 2, 3]),
        b"P3 1 1 255\n1 2 3\n",
        saved(Image.fromarray(PIXELS).convert("1"), "PPM"),
        saved(Image.fromarray(PIXELS).convert("1"), "TIFF"),
        saved(Image.fromarray(PIXELS).convert("LA"), "PNG"),
        saved(Image.fromarray(PIXELS).convert("P"), "PNG"),
        saved(Image.fromarray(PIXELS).convert("RGBA"), "PNG"),
        saved(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"),
        saved(Image.fromarray(PIXELS).convert("CMYK"), "TIFF"),
        saved(Image.fromarray(PIXELS), "TIFF", compression="tiff_lzw"),
        saved(Image.fromarray(PIXELS), "PNG", interlace=1),
    ],
)
def test_other_kinds_of_pixels_are_decoded(file: bytes) -> None:
    assert decode_image(file).shape[2] == 3


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
