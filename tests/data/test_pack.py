"""Packed splits: whole or not there, proved when read, shared between tasks of the same images."""

import errno
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from san.data import pack
from san.data.split import Split, join_splits, read_split

IMAGES = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
LABELS = [0, 1, 2, 0, 1]


def examples(count: int = 5) -> list[pack.Example]:
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
    assert (split.made_by, split.problems) == ("a test", ())
    split.image(0)[:] = 0
    assert np.array_equal(split.image(0), IMAGES[0])


def test_files_are_kept_as_they_are_and_decoded_when_read(tmp_path: Path) -> None:
    sizes = [(4, 6), (5, 3), (2, 2)]
    pictures = [
        np.random.default_rng(i).integers(0, 255, (*size, 3)).astype(np.uint8)
        for i, size in enumerate(sizes)
    ]
    pack.write_split(
        tmp_path / "s",
        ((f"i{i}", i, png(p)) for i, p in enumerate(pictures)),
        {"made_by": "a test"},
    )
    split = read_split(tmp_path / "s", 3, 3)
    assert all(np.array_equal(split.image(i), p) for i, p in enumerate(pictures))
    (tmp_path / "s" / "offsets.npy").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        read_split(tmp_path / "s", 3, 3)


def test_joined_splits_keep_their_order(tmp_path: Path) -> None:
    one = packed(tmp_path / "a")
    pack.write_split(tmp_path / "b", [("j", 2, IMAGES[0] + 1)], {"made_by": "another"})
    both = join_splits([one, read_split(tmp_path / "b", 1, 3)])
    assert len(both) == 6
    assert np.array_equal(both.image(5), IMAGES[0] + 1)
    assert np.array_equal(both.image(4), IMAGES[4])
    assert (both.ids[-1], both.labels[-1], both.made_by) == ("j", 2, "a test; another")
    assert both.fingerprint == f"{one.fingerprint}+{read_split(tmp_path / 'b', 1, 3).fingerprint}"


def test_the_fingerprint_knows_pixels_labels_and_order_and_nothing_else(tmp_path: Path) -> None:
    first = pack.write_split(tmp_path / "a", examples(), {"made_by": "one"})["digest"]
    assert pack.write_split(tmp_path / "b", examples(), {"made_by": "two"})["digest"] == first
    other = [("i0", 1, IMAGES[0]), *examples()[1:]]
    assert pack.write_split(tmp_path / "c", other, {})["digest"] != first
    assert pack.write_split(tmp_path / "d", examples()[::-1], {})["digest"] != first
    touched = [("i0", 0, IMAGES[0] ^ 1), *examples()[1:]]
    assert pack.write_split(tmp_path / "e", touched, {})["digest"] != first


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
    with pytest.raises(ValueError, match=message):
        read_split(tmp_path / "s", 5, 3)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "ids.json"])
def test_truncated_files_are_refused_by_name(file: str, tmp_path: Path) -> None:
    packed(tmp_path / "s")
    (tmp_path / "s" / file).write_bytes((tmp_path / "s" / file).read_bytes()[:20])
    with pytest.raises(ValueError, match="cannot be read .* Delete it and prepare the task again"):
        read_split(tmp_path / "s", 5, 3)


def test_another_number_of_images_is_a_problem_that_can_be_overruled(tmp_path: Path) -> None:
    packed(tmp_path / "s")
    assert "has 5 images; 6 are expected" in read_split(tmp_path / "s", 6, 3).problems[0]


def test_pixels_are_compared_once_and_again_when_the_file_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr(pack, "pixels_digest", lambda folder: pytest.fail("read again"))
        read_split(tmp_path / "s", 5, 3)
    damage(tmp_path / "s", "pixels")
    with pytest.raises(ValueError, match="digests"):
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
    with pytest.raises(
        OSError, match="The disk is full .No space left on device.: nothing was kept of .*new"
    ):
        pack.write_split(
            tmp_path / "new", failing(OSError(errno.ENOSPC, "No space left on device")), {}
        )
    assert list(tmp_path.iterdir()) == []


def test_images_unlike_each_other_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"j is \(2, 2, 3\), the images before it are \(4, 4, 3\)"):
        pack.write_split(tmp_path / "s", [*examples(), ("j", 0, IMAGES[0, :2, :2])], {})
    with pytest.raises(ValueError, match="No images"):
        pack.write_split(tmp_path / "s", [], {})
    assert list(tmp_path.iterdir()) == []


def test_equal_images_become_one_file(tmp_path: Path) -> None:
    packed(tmp_path / "a")
    pack.write_split(
        tmp_path / "b", [(name, 0, image) for name, _, image in examples()], {"made_by": "a test"}
    )
    pack.write_split(
        tmp_path / "c",
        [(name, 0, image ^ 1) for name, _, image in examples()],
        {"made_by": "a test"},
    )
    assert pack.hardlink_images(tmp_path / "b", tmp_path / "a")
    assert not pack.hardlink_images(tmp_path / "c", tmp_path / "a")
    files = [tmp_path / name / "images.npy" for name in "abc"]
    assert files[0].samefile(files[1])
    assert not files[0].samefile(files[2])
    assert read_split(tmp_path / "b", 5, 3).labels.tolist() == [0] * 5
