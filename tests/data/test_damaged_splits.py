"""Whatever stands in the files of a packed split, it is said, and nothing hangs."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_files import DEEP, ODD_FILES, replace_by

from san.data.manifest import read_manifest
from san.data.pack import write_split
from san.data.split import read_split
from san.errors import DataError

COUNT = 5
CLASSES = 3
FILES = ["images.npy", "labels.npy", "offsets.npy", "ids.json", "manifest.json"]


def packed(folder: Path, encoded: bool = False) -> Path:
    """A split of small images, or of files."""
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 255, (COUNT, 4, 4, 3)).astype(np.uint8)
    images = [array.tobytes() for array in arrays] if encoded else arrays
    rows = ((f"i{i}", i % CLASSES, image) for i, image in enumerate(images))
    write_split(folder, rows, {"made_by": "a test", "names": ["a", "b", "c"]})
    return folder


def refused(folder: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_split(folder, COUNT, CLASSES)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.parametrize("name", FILES)
def test_what_is_not_a_regular_file_is_named(name: str, kind: str, tmp_path: Path) -> None:
    folder = packed(tmp_path / "s", encoded=True)
    replace_by(kind, folder / name)
    refused(folder, f"{name} is {kind}")


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.parametrize("name", ["proved.json", "hashes.npy", "pixel_hashes.npy"])
def test_what_can_be_made_again_may_be_anything(name: str, kind: str, tmp_path: Path) -> None:
    folder = packed(tmp_path / "s", encoded=True)
    split = read_split(folder, COUNT, CLASSES)
    assert (folder / name).is_file()
    replace_by(kind, folder / name)
    again = read_split(folder, COUNT, CLASSES)
    assert again.hashes.tolist() == split.hashes.tolist()
    assert split.pixel_hashes is not None
    assert again.pixel_hashes is not None
    assert again.pixel_hashes.tolist() == split.pixel_hashes.tolist()
    # A directory is nobody's to remove.
    assert (folder / name).is_file() or kind == "a directory"


@pytest.mark.parametrize(
    "change",
    [
        {"count": "5"},
        {"count": -5},
        {"count": 0},
        {"count": 5.5},
        {"count": 10**400},
        {"count": None},
        {"shape": [1e9, 1e9, 3]},
        {"shape": [10**30, 4, 3]},
        {"shape": [4, 4, 4]},
        {"shape": [4, 4]},
        {"shape": "443"},
        {"classes": ["2", "2", "1"]},
        {"classes": {}},
        {"classes": [-2, 2, 5]},
        {"version": "2"},
        {"version": True},
        {"digest": 7},
        {"pixels": None},
        {"source": []},
        {"source": {}},
        {"source": {"made_by": 3}},
        {"source": {"made_by": "a test", "builder": ["x"]}},
        {"source": {"made_by": "a test", "names": [1, 2, 3]}},
        {"source": {"made_by": "a test", "names": "abc"}},
        {"source": {"made_by": "a test", "layout": {}}},
        {"source": {"made_by": "a test", "ids": 1}},
    ],
    ids=str,
)
def test_a_manifest_of_wrong_types_is_none(change: dict[str, Any], tmp_path: Path) -> None:
    folder = packed(tmp_path / "s")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | change))
    assert read_manifest(folder) is None
    refused(folder, "no packed split of version 2 .*manifest.json")


@pytest.mark.parametrize(
    "text", ["", "{", "5", "null", DEEP, '{"count": NaN}', '"\\ud800"', "\xff"]
)
@pytest.mark.parametrize("name", ["manifest.json", "ids.json"])
def test_other_json_is_named(name: str, text: str, tmp_path: Path) -> None:
    folder = packed(tmp_path / "s")
    (folder / name).write_bytes(text.encode("latin-1"))
    refused(folder, f"{name} (cannot be read|is not a list of names)")


def test_ids_that_are_not_texts_are_refused(tmp_path: Path) -> None:
    folder = packed(tmp_path / "s")
    (folder / "ids.json").write_text("[1, 2, 3, 4, 5]")
    refused(folder, "ids.json is not a list of names")


def claim(path: Path, shape: str, descr: str = "'|u1'", order: str = "False") -> None:
    """Rewrite the header of a .npy file."""
    description = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    header = description.encode().ljust(117) + b"\n"
    data = path.read_bytes()[128:]
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)


@pytest.mark.parametrize(
    ("shape", "descr", "order"),
    [
        ("(1000000000, 4, 4, 3)", "'|u1'", "False"),
        ("(9223372036854775807, 9223372036854775807)", "'|u1'", "False"),
        ("(-5, 4, 4, 3)", "'|u1'", "False"),
        ("(4, 4, 4, 3)", "'|u1'", "False"),
        ("(5, 4, 4, 3)", "'|u1'", "True"),
        ("(5, 4, 4, 3)", "'|i1'", "False"),
        ("(30,)", "'|O'", "False"),
        ("()", "'|V240'", "False"),
        ("(240,)", "'|u1'", "False"),
        ("(5, 48)", "'|u1'", "False"),
        ("[5, 4, 4, 3]", "'|u1'", "False"),
        ("(" * 200 + ")" * 200, "'|u1'", "False"),
        ("__import__('os').getpid()", "'|u1'", "False"),
    ],
)
@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_a_header_is_not_believed(
    name: str, shape: str, descr: str, order: str, tmp_path: Path
) -> None:
    folder = packed(tmp_path / "s")
    claim(folder / name, shape, descr, order)
    refused(folder, "cannot be read|holds images")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY", b"\x80\x04K\x01.", b"x" * 500])
def test_other_files_than_arrays_are_refused(data: bytes, tmp_path: Path) -> None:
    folder = packed(tmp_path / "s")
    (folder / "labels.npy").write_bytes(data)
    refused(folder, "labels.npy cannot be read")


@pytest.mark.parametrize(
    "offsets",
    [
        [0, 48, 96, 144, 192, 10**12],
        [0, 48, 96, 144, 192, 191],
        [0, 96, 48, 144, 192, 240],
        [1, 48, 96, 144, 192, 240],
        [-(2**63), 48, 96, 144, 2**62, 240],
        [0.0, 48.0, 96.0, 144.0, 192.0, 240.0],
        [[0, 48, 96, 144, 192, 240]],
        [],
        [0],
    ],
)
def test_offsets_that_lead_out_of_the_files_are_refused(offsets: list[Any], tmp_path: Path) -> None:
    folder = packed(tmp_path / "s", encoded=True)
    read_split(folder, COUNT, CLASSES)
    np.save(folder / "offsets.npy", np.array(offsets))
    refused(folder, "offsets.npy does not say where")


def test_no_labels_at_all_are_refused(tmp_path: Path) -> None:
    folder = packed(tmp_path / "s")
    np.save(folder / "labels.npy", np.array([], np.int64))
    refused(folder, "5 images, 0 labels and 5 ids")


def test_offsets_that_the_manifest_does_not_ask_for_are_not_read(tmp_path: Path) -> None:
    folder = packed(tmp_path / "s")
    os.mkfifo(folder / "offsets.npy")
    assert len(read_split(folder, COUNT, CLASSES)) == COUNT


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o775), (0o022, 0o755), (0o077, 0o700)])
def test_who_may_read_a_split_is_what_the_umask_says(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        folder = packed(tmp_path / "new" / "s")
        read_split(folder, COUNT, CLASSES)
    finally:
        os.umask(before)
    assert (folder / "proved.json").exists()
    for path in (folder.parent, folder):
        assert path.stat().st_mode & 0o777 == mode
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == mode & 0o666


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_stands_beside_a_split_does_not_hang_it(kind: str, tmp_path: Path) -> None:
    """Directories of dead processes are removed; this is none of them."""
    replace_by(kind, tmp_path / ".s-left")
    assert len(read_split(packed(tmp_path / "s"), COUNT, CLASSES)) == COUNT


def test_a_file_where_a_split_should_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("a file")
    refused_write = pytest.raises(OSError, match="s cannot be written .*Choose another data_root")
    with refused_write:
        packed(tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    refused(tmp_path / "s", "is not there")


@pytest.mark.parametrize("name", FILES)
def test_a_split_that_may_not_be_read_is_not_to_be_deleted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = packed(tmp_path / "s", encoded=True)
    really_open = os.open

    def refuse(path: Any, *options: Any, **more: Any) -> int:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, *options, **more)

    monkeypatch.setattr(os, "open", refuse)
    message = f"{name}: Permission denied.. Ask its owner, {folder.owner()}, for the permission"
    with pytest.raises(DataError, match=f"s may not be read by you .{message}") as caught:
        read_split(folder, COUNT, CLASSES)
    assert "elete" not in str(caught.value)
    monkeypatch.undo()
    assert len(read_split(folder, COUNT, CLASSES)) == COUNT


def test_a_split_in_a_folder_that_may_not_be_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = packed(tmp_path / "s")

    def refuse(path: Path, **_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    message = r"s may not be read by you \(.*Permission denied\). Ask its owner for the permission"
    with pytest.raises(DataError, match=message):
        read_split(folder, COUNT, CLASSES)
