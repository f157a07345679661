"""Packed splits: written completely or not at all, checked when read, shared between tasks."""

import errno
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from san.data import pack, proof
from san.data.split import Split, join_splits, read_split
from san.errors import DataError, FileAccessError

IMAGES = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
LABELS = [0, 1, 2, 0, 1]


def examples(count: int = 5) -> list[tuple[str, int, np.ndarray]]:
    return [(f"i{i}", LABELS[i], IMAGES[i]) for i in range(count)]


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def packed(folder: Path) -> Split:
    pack.write_split(folder, examples(), {"made_by": "a test"})
    return read_split(folder, 5, 3)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    split = packed(tmp_path / "s")
    assert np.array_equal(np.stack([split.image(i) for i in range(5)]), IMAGES)
    assert np.array_equal(np.load(tmp_path / "s" / "images.npy"), IMAGES)
    assert split.labels.tolist() == LABELS
    assert split.ids == ["i0", "i1", "i2", "i3", "i4"]
    assert (split.source, split.problems) == ("a test", ())
    split.image(0)[:] = 0
    assert np.array_equal(split.image(0), IMAGES[0])


def file_digests(folder: Path) -> dict[str, str]:
    """Return the first 8 hex digits of the sha256 of each file."""
    files = sorted(folder.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:8] for file in files}


def test_the_format_is_to_the_byte_that_of_the_first_splits_of_this_version(tmp_path: Path) -> None:
    """Splits that were packed long ago are read, and packed again to the same fingerprint."""
    source = {"made_by": "a test"}
    arrays = pack.write_split(tmp_path / "arrays", examples(), source)
    assert arrays["digest"] == "c6fec4903ca56f6b"
    assert file_digests(tmp_path / "arrays") == {
        "ids.json": "29ceaa3b",
        "images.npy": "f5cb6377",
        "labels.npy": "271bbb19",
        "manifest.json": "f2f99e27",
    }
    files = [(name, label, image.tobytes()) for name, label, image in examples()]
    encoded = pack.write_split(tmp_path / "files", files, source)
    assert encoded["digest"] == "e967bb373d786dd0"
    assert file_digests(tmp_path / "files") == {
        "ids.json": "29ceaa3b",
        "images.npy": "5b47a03e",
        "labels.npy": "271bbb19",
        "manifest.json": "5b3d4e11",
        "offsets.npy": "a45a0f92",
    }


def test_files_are_kept_as_they_are_and_decoded_when_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [(4, 6, 3), (5, 3, 3), (2, 2, 3)]
    pictures = [rng.integers(0, 255, size).astype(np.uint8) for size in sizes]
    files = [(f"i{i}", i, png(picture)) for i, picture in enumerate(pictures)]
    pack.write_split(tmp_path / "s", files, {"made_by": "a test"})
    split = read_split(tmp_path / "s", 3, 3)
    assert all(np.array_equal(split.image(i), p) for i, p in enumerate(pictures))
    (tmp_path / "s" / "offsets.npy").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_split(tmp_path / "s", 3, 3)


def test_joined_splits_keep_their_order(tmp_path: Path) -> None:
    one = packed(tmp_path / "a")
    pack.write_split(tmp_path / "b", [("j", 2, IMAGES[0] + 1)], {"made_by": "another"})
    both = join_splits([one, read_split(tmp_path / "b", 1, 3)])
    assert len(both) == 6
    assert np.array_equal(both.image(5), IMAGES[0] + 1)
    assert np.array_equal(both.image(4), IMAGES[4])
    assert (both.ids[-1], both.labels[-1], both.source) == ("j", 2, "a test; another")
    assert both.fingerprint == f"{one.fingerprint}+{read_split(tmp_path / 'b', 1, 3).fingerprint}"


def test_the_fingerprint_knows_pixels_labels_and_order_and_nothing_else(tmp_path: Path) -> None:
    first = pack.write_split(tmp_path / "s", examples(), {"made_by": "one"})["digest"]
    assert pack.write_split(tmp_path / "s", examples(), {"made_by": "two"})["digest"] == first
    changed = {
        "label": [("i0", 1, IMAGES[0]), *examples()[1:]],
        "order": examples()[::-1],
        "pixel": [("i0", 0, IMAGES[0] ^ 1), *examples()[1:]],
        "id": [("j0", 0, IMAGES[0]), *examples()[1:]],
    }
    for rows in changed.values():
        assert pack.write_split(tmp_path / "s", rows, {"made_by": "one"})["digest"] != first


def damage(folder: Path, how: str) -> None:
    if how == "pixels":
        images = np.array(np.load(folder / "images.npy"))
        images[0, 0, 0, 0] ^= 1
        np.save(folder / "images.npy", images)
    if how == "count":
        np.save(folder / "labels.npy", np.array([0, 1]))
    if how == "label":
        np.save(folder / "labels.npy", np.array([0, 1, 2, 0, 7]))
    if how == "swapped":
        np.save(folder / "labels.npy", np.array([1, 0, 2, 0, 1]))
    if how == "manifest":
        (folder / "manifest.json").write_text("{")
    if how == "version":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 1}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pixels", "does not match its manifest's digests"),
        ("count", "2 labels and 5 ids; its manifest says 5 of each"),
        ("label", r"labels 0\.\.7; 0\.\.2 are allowed"),
        ("swapped", "does not match its manifest's digests"),
        ("manifest", "no packed split of version 2"),
        ("version", "no packed split of version 2"),
    ],
)
def test_damaged_splits_are_refused(how: str, message: str, tmp_path: Path) -> None:
    packed(tmp_path / "s")
    damage(tmp_path / "s", how)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "s", 5, 3)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "ids.json"])
def test_truncated_files_are_refused_by_name(file: str, tmp_path: Path) -> None:
    packed(tmp_path / "s")
    (tmp_path / "s" / file).write_bytes((tmp_path / "s" / file).read_bytes()[:20])
    with pytest.raises(DataError, match="cannot be read .* Delete it and prepare the task again"):
        read_split(tmp_path / "s", 5, 3)


def test_another_number_of_images_is_a_problem_that_can_be_overruled(tmp_path: Path) -> None:
    packed(tmp_path / "s")
    assert "has 5 images; 6 are expected" in read_split(tmp_path / "s", 6, 3).problems[0]


def test_pixels_are_compared_once_and_again_when_the_file_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr(proof, "digest_and_hashes", lambda images: pytest.fail("read again"))
        read_split(tmp_path / "s", 5, 3)
    damage(tmp_path / "s", "pixels")
    with pytest.raises(DataError, match="digests"):
        read_split(tmp_path / "s", 5, 3)


def test_writing_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    packed(tmp_path / "s")
    packed(tmp_path / "s")
    pack.write_split(tmp_path / "s", examples(1), {"made_by": "a test"})
    assert len(read_split(tmp_path / "s", 1, 1)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def failing(error: Exception) -> Iterator[pack.Example]:
    yield from examples(2)
    raise error


@pytest.mark.parametrize("error", [ValueError("image i2 cannot be decoded"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(error: Exception, tmp_path: Path) -> None:
    packed(tmp_path / "s")
    with pytest.raises(type(error)):
        pack.write_split(tmp_path / "s", failing(error), {})
    with pytest.raises(type(error)):
        pack.write_split(tmp_path / "new", failing(error), {})
    assert len(read_split(tmp_path / "s", 5, 3)) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    message = "The disk is full .No space left on device.: nothing was kept of .*new"
    with pytest.raises(FileAccessError, match=message):
        pack.write_split(tmp_path / "new", failing(full), {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileAccessError, match="file cannot be written .* another data_root"):
        pack.write_split(tmp_path / "file" / "s", examples(), {})


def test_images_unlike_each_other_and_none_are_refused(tmp_path: Path) -> None:
    small = ("j", 0, IMAGES[0, :2, :2])
    with pytest.raises(DataError, match=r"j is \(2, 2, 3\), the images before it are \(4, 4, 3\)"):
        pack.write_split(tmp_path / "s", [*examples(), small], {})
    file = ("j", 0, png(IMAGES[0]))
    with pytest.raises(DataError, match=r"j is a file, the images before it are \(4, 4, 3\)"):
        pack.write_split(tmp_path / "s", [*examples(), file], {})
    with pytest.raises(DataError, match="No images"):
        pack.write_split(tmp_path / "s", [], {})
    assert list(tmp_path.iterdir()) == []


def test_equal_images_become_one_file(tmp_path: Path) -> None:
    packed(tmp_path / "a")
    source = {"made_by": "a test"}
    other_labels = [(name, 0, image) for name, _, image in examples()]
    pack.write_split(tmp_path / "b", other_labels, source)
    other_images = [(name, 0, image ^ 1) for name, _, image in examples()]
    pack.write_split(tmp_path / "c", other_images, source)
    assert pack.hardlink_images(tmp_path / "b", tmp_path / "a")
    assert not pack.hardlink_images(tmp_path / "c", tmp_path / "a")
    files = [tmp_path / name / "images.npy" for name in "abc"]
    assert files[0].samefile(files[1])
    assert not files[0].samefile(files[2])
    assert read_split(tmp_path / "b", 5, 3).labels.tolist() == [0] * 5


def test_a_split_is_removed_while_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their search for what dead processes left must not take the place it is moved to."""
    packed(tmp_path / "s")
    replace = Path.replace

    def write_first(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            pack.write_split(tmp_path / "s", failing(KeyboardInterrupt()), {})
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", write_first)
    pack.remove_split(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_ids_that_could_not_be_read_again_are_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(json.dumps([name for name, _, _ in examples()]))
    monkeypatch.setattr(pack, "MAX_IDS_BYTES", size)
    packed(tmp_path / "s")
    monkeypatch.setattr(pack, "MAX_IDS_BYTES", size - 1)
    with pytest.raises(DataError, match="first 5 images take 30 bytes; at most 29 are allowed"):
        packed(tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
