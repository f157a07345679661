"""Images are packed as their task wants them, once, and damaged ones are named."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
from PIL import Image
from small_tasks import DTD, GIC, LISTS, VTAB, SmallTask, small

from san.data.prepare.sources import find_source
from san.errors import DataError, FileAccessError


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47, height=60, width=60)
    path = folder / "images/val200/000001.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    message = "Image images/val200/000001.jpg of small/dtd cannot be decoded"
    with pytest.raises(DataError, match=message):
        DTD.pack(folder, tmp_path / "data")
    done = sorted(path.name for path in (tmp_path / "data/small/dtd/vtab-8").iterdir())
    assert done == ["train"]  # complete, and kept: the next call goes on from there


def test_small_images_of_one_size_are_stored_natively(tmp_path: Path) -> None:
    cifar = small(VTAB.task("cifar"), train=8, val=4, test=6)
    folder = pictures.vtab_lists(tmp_path / "cifar", LISTS, 100, height=32, width=32)
    packed = cifar.pack(folder, tmp_path / "data")
    assert packed.folder.name == "native"
    assert packed.load_part("train").image(0).shape == (32, 32, 3)


def test_another_size_than_the_native_one_is_refused(tmp_path: Path) -> None:
    cifar = small(VTAB.task("cifar"), train=8, val=4, test=6)
    folder = pictures.vtab_lists(tmp_path / "cifar", LISTS, 100, height=32, width=31)
    message = "Image images/train800/000000.jpg of small/cifar is 32x31; 32x32 is expected"
    with pytest.raises(DataError, match=message):
        cifar.pack(folder, tmp_path / "data")


def test_pixels_are_multiplied_by_the_scale_of_the_source(tmp_path: Path) -> None:
    """As dsprites needs it, whose pixels are 0 and 1."""
    cifar = small(VTAB.task("cifar"), train=8, val=4, test=6)
    folder = pictures.vtab_lists(tmp_path / "cifar", LISTS, 100, height=32, width=32)
    plain = cifar.pack(folder, tmp_path / "plain").load_part("test")
    source = replace(find_source(cifar.task, folder), pixel_scale=3)
    cifar.pack_source(source, tmp_path / "scaled")
    scaled = cifar.open(tmp_path / "scaled").load_part("test")
    assert np.array_equal(scaled.image(1), plain.image(1) * np.uint8(3))


def test_preparing_again_does_nothing(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    root = tmp_path / "data"
    first = DTD.pack_source(find_source(DTD.task, folder), root)
    assert first == ["train: 8 images", "val: 4 images", "test: 6 images"]
    again = DTD.pack_source(find_source(DTD.task, folder), root)
    assert again == ["train: already packed", "val: already packed", "test: already packed"]


def test_preparing_again_mends_damage(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    root = tmp_path / "data"
    packed = DTD.pack(folder, root)
    images = packed.folder / "val/images.npy"
    images.write_bytes(images.read_bytes()[:-50])
    done = DTD.pack_source(find_source(DTD.task, folder), root)
    assert done[0] == "train: already packed"
    assert done[1].startswith("val: 4 images")
    assert done[2] == "test: already packed"


def test_preparing_again_takes_an_image_that_was_corrected(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    root = tmp_path / "data"
    DTD.pack(folder, root)
    pictures.save(folder / "images/test/000001.jpg", 9, 9)
    done = DTD.pack_source(find_source(DTD.task, folder), root)
    assert done[2].startswith("test: 6 images")


def test_another_source_replaces_what_is_packed(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "one" / "dtd", LISTS, 47)
    root = tmp_path / "data"
    DTD.pack(folder, root)
    other = pictures.vtab_lists(tmp_path / "two" / "dtd", LISTS, 46)
    lines = (other / "test.txt").read_text()
    (other / "test.txt").write_text(lines.replace(" 5\n", " 6\n"))
    done = DTD.pack_source(find_source(DTD.task, other), root)
    assert done[2] == "test: 6 images instead of vtab-1k folder's"
    assert DTD.open(root).load_part("test").labels.tolist() == [0, 1, 2, 3, 4, 6]


def test_other_class_names_are_refused_unless_forced(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            pictures.save(tmp_path / part / name / "x.jpg", 0, 0)
    imagenet = small(GIC.task("imagenet"), train=2, test=2)
    swapped = ["n01443537", "n01440764", *imagenet.task.classes[2:]]
    found = find_source(imagenet.task, tmp_path)
    source = replace(found, names=swapped)
    message = "names class 'n01443537' where small/imagenet has 'n01440764'"
    with pytest.raises(DataError, match=f"{message} .2 differ"):
        imagenet.pack_source(source, tmp_path / "data")
    imagenet.pack_source(source, tmp_path / "data", force=True)
    split = imagenet.open(tmp_path / "data").load_part("train")
    assert message in split.problems[0]  # a run has to be forced, too


def test_preparing_a_paired_task_again_mends_the_shared_file(tmp_path: Path) -> None:
    alone = [
        small(VTAB.task(name), train=8, val=4, test=6) for name in ("clevr_count", "clevr_dist")
    ]
    suite = replace(VTAB, name="small", tasks={each.task.name: each.task for each in alone})
    pair = [SmallTask(suite, each.task) for each in alone]
    for each in pair:
        pictures.vtab_lists(tmp_path / each.task.name, LISTS, 6)
    root = tmp_path / "data"
    folders = [each.pack(tmp_path, root).folder for each in pair]
    files = [folder / "train" / "images.npy" for folder in folders]
    assert files[0].samefile(files[1])

    with files[0].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    shutil.rmtree(folders[0])
    pair[0].pack(tmp_path, root)
    for each in pair:
        assert len(each.open(root).load_part("train")) == 8  # undamaged
    assert files[0].samefile(files[1])


def test_images_of_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    deep = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 150)
    deep.save(folder / "images/test/000000.jpg", "PNG")
    message = "000000.jpg of small/dtd cannot be decoded .it has more than 8 bits a channel .mode I"
    with pytest.raises(DataError, match=message):
        DTD.pack(folder, tmp_path / "data")


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    with pytest.raises(FileAccessError, match="cannot be written .*Choose another data_root"):
        DTD.pack(folder, tmp_path / "data")


@pytest.mark.parametrize("name", ["manifest.json", "labels.npy", "ids.json"])
def test_a_split_that_may_not_be_read_is_not_replaced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_source(DTD.task, pictures.vtab_lists(tmp_path / "dtd", LISTS, 47))
    DTD.pack_source(source, tmp_path / "data")
    manifest = DTD.open(tmp_path / "data").folder / "train/manifest.json"
    written = manifest.stat().st_mtime_ns
    really_open = os.open

    def refuse(path: Any, *options: Any, **more: Any) -> int:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, *options, **more)

    monkeypatch.setattr(os, "open", refuse)
    for force in (False, True):
        with pytest.raises(DataError, match=f"train may not be read by you .{name}: Permission"):
            DTD.pack_source(source, tmp_path / "data", force=force)
    assert manifest.stat().st_mtime_ns == written
