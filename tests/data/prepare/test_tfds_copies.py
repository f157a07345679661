"""Files of TFDS's copies: checked before they are opened, and by their checksums as they are read.

What the real libraries do with them is in tests/data_tier.
"""

import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from odd_files import ODD_FILES, replace_by
from small_tasks import VTAB

from san.data.prepare.sources import find_source, tfds
from san.data.prepare.sources.tfrecord import read_tfrecord
from san.errors import DataError, MissingPackageError

RECORDS = [b"one", b"", b"three" * 1000]


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit (the Castagnoli polynomial, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32)


def framed(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


WHOLE = b"".join(map(framed, RECORDS))


@pytest.fixture
def checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for google_crc32c, which the everyday environment lacks."""
    monkeypatch.setitem(sys.modules, "google_crc32c", SimpleNamespace(value=crc32c))


def test_the_checksum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4, and the CRC catalogues
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.usefixtures("checksums")
def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(WHOLE)
    assert list(read_tfrecord(tmp_path / "r")) == RECORDS
    (tmp_path / "r").write_bytes(b"")
    assert list(read_tfrecord(tmp_path / "r")) == []


@pytest.mark.usefixtures("checksums")
@pytest.mark.parametrize("cut", [1, 5, 11, 12, 13, 15, 18, 19, 20, 36, 100, len(WHOLE) - 1])
def test_a_truncated_file_is_named(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "train.tfrecord"
    path.write_bytes(WHOLE[:cut])
    if cut == 19:  # the end of a record
        assert list(read_tfrecord(path)) == RECORDS[:1]
        return
    with pytest.raises(DataError, match="train.tfrecord is truncated"):
        list(read_tfrecord(path))


@pytest.mark.usefixtures("checksums")
def test_a_flipped_bit_anywhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.tfrecord"
    for place in [*range(100), 2000, len(WHOLE) - 5, len(WHOLE) - 1]:
        data = bytearray(WHOLE)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(DataError, match="train.tfrecord does not match its checksums"):
            list(read_tfrecord(path))


@pytest.mark.usefixtures("checksums")
@pytest.mark.parametrize("length", [4, 2**40, 2**64 - 1])
def test_a_length_beyond_the_file_is_refused_before_it_is_read(length: int, tmp_path: Path) -> None:
    header = struct.pack("<Q", length)
    (tmp_path / "r").write_bytes(header + masked(header) + b"abc" + masked(b"abc"))
    with pytest.raises(DataError, match="r is truncated"):
        list(read_tfrecord(tmp_path / "r"))


@pytest.mark.usefixtures("checksums")
@pytest.mark.parametrize("kind", ODD_FILES)
def test_records_that_are_no_regular_file_are_named(kind: str, tmp_path: Path) -> None:
    replace_by(kind, tmp_path / "r")
    with pytest.raises(DataError, match=f"/r is {kind}"):
        list(read_tfrecord(tmp_path / "r"))


def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    (tmp_path / "r").write_bytes(WHOLE)
    with pytest.raises(MissingPackageError, match=r"google-crc32c.*pip install -e '.\[tfds\]'"):
        list(read_tfrecord(tmp_path / "r"))


LABEL = "tensorflow_datasets.core.features.class_label_feature.ClassLabel"


def copy_of(folder: Path, features: Any) -> Path:
    """What is checked of a copy of cifar100."""
    home = folder / "cifar100" / "3.0.2"
    home.mkdir(parents=True)
    (home / "dataset_info.json").write_text("{}")
    (home / "features.json").write_text(json.dumps(features))
    return home


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Open a copy with a stand-in for TFDS; return what that was asked to open."""
    asked = []
    fake = SimpleNamespace(builder_from_directory=asked.append)
    monkeypatch.setattr(tfds, "load", lambda: fake)
    find_source(VTAB.task("cifar"), folder)
    return asked


def test_classes_of_tfds_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a feature that is called `type`, as kitti has."""
    one = {"pythonClassName": LABEL}
    home = copy_of(tmp_path, {"featuresDict": {"features": {"type": one, "label": one}}})
    assert opened(tmp_path, monkeypatch) == [str(home)]


@pytest.mark.parametrize(
    "features",
    [
        {"pythonClassName": "os.X"},
        {"python_class_name": "os.X"},
        {"type": "os.X", "content": {}},
        {"featuresDict": {"features": {"label": {"pythonClassName": "os.X"}}}},
        {"type": LABEL, "content": [{"type": "os.X"}]},
        {"pythonClassName": LABEL, "jsonFeature": {"json": '{"feature": {"type": "os.X"}}'}},
        {"pythonClassName": "tensorflow_datasets_evil.X"},
    ],
)
def test_other_classes_are_refused(
    features: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_of(tmp_path, features)
    with pytest.raises(
        DataError, match=r"3.0.2/features.json names the class (os|tensor\w*evil).X"
    ):
        opened(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "name", ["dataset_info.json", "features.json", "cifar100-train.x", "a.txt"]
)
def test_a_copy_with_other_than_regular_files_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copy_of(tmp_path, {})
    replace_by("a FIFO", home / name)
    with pytest.raises(DataError, match=f"{name} is a FIFO"):
        opened(tmp_path, monkeypatch)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"pythonClassName": NaN}', "\xff"])
def test_a_damaged_list_of_features_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copy_of(tmp_path, {})
    (home / "features.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=f"{home} cannot be read as a copy .*features.json"):
        opened(tmp_path, monkeypatch)


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError(""), ValueError("x\ny"), OSError(5)])
def test_whatever_tfds_raises_names_the_copy(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: str) -> None:
        raise error

    home = copy_of(tmp_path, {})
    monkeypatch.setattr(tfds, "load", lambda: SimpleNamespace(builder_from_directory=fail))
    kind = type(error).__name__
    with pytest.raises(DataError, match=f"{home} cannot be read as a copy of TFDS's .{kind}: "):
        find_source(VTAB.task("cifar"), tmp_path)


class Raising:
    """A builder whose facts cannot be read."""

    data_path = "the/copy"

    @property
    def info(self) -> None:
        raise AttributeError("num_examples")


@pytest.mark.parametrize("ask", ["describe", "count", "names", "examples"])
def test_facts_of_a_damaged_copy_are_refused(ask: str) -> None:
    copy = tfds.TfdsCopy(VTAB.task("cifar"), Raising())
    with pytest.raises(DataError, match="the/copy cannot be read as a copy of TFDS's"):
        value = getattr(copy, ask)
        list(value("train"))
