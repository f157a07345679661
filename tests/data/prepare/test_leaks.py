"""Images of one split in another one are refused when they are prepared, and when trained on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pictures
import pytest
from small_tasks import DTD, FGVC, GIC, LISTS, SmallTask, small

from san.data import task_data
from san.data.packed_task import PackedTask
from san.data.prepare.sources import find_source
from san.data.verify import verify
from san.errors import DataError

CUB = small(FGVC.task("cub"), train=4, val=2, test=3)
IMAGENET = small(GIC.task("imagenet"), train=3, test=3)
JSON: dict[str, dict[str, object]] = {
    "train": {"b/1.jpg": 17, "b/2.jpg": 3, "c/1.jpg": 40, "c/2.jpg": 17},
    "val": {"v/1.jpg": 3, "v/2.jpg": 40},
    "test": {"t/1.jpg": 25, "t/2.jpg": 3, "t/3.jpg": 17},
}


def refused(case: SmallTask, path: Path, root: Path, message: str) -> None:
    """Preparing leaves nothing; forced, it is packed, and a run has to be forced, too."""
    source = find_source(case.task, path)
    with pytest.raises(DataError, match=f"{message}.*--force packs it nevertheless"):
        case.pack_source(source, root)
    assert not [file for file in root.rglob("*") if file.is_file()]
    assert not list(root.glob("*/*/*"))

    case.pack_source(source, root, force=True)
    packed = case.open(root)
    for part in case.task.splits:
        with pytest.raises(DataError, match=f"{message}.*allow_unverified_data=true"):
            task_data.usable_split(packed, part)
        assert task_data.usable_split(packed, part, force=True).problems
    assert any(found.good is False for found in verify(case.task, packed.folder))

    # What is packed stays, whether or not the next call is forced.
    with pytest.raises(DataError, match=message):
        case.pack_source(source, root)
    assert len(case.open(root).load_part("test")) == case.task.splits["test"]


def first_lines(name: str, count: int) -> Callable[[Path], str]:
    def lines(folder: Path) -> str:
        return "".join((folder / name).read_text().splitlines(keepends=True)[:count])

    return lines


@pytest.mark.parametrize(
    ("spoilt", "lines", "message"),
    [
        ("val200.txt", first_lines("train800.txt", 4), "train and val share 4 images: images/tra"),
        ("train800.txt", first_lines("test.txt", 6), "train and test share 6 images: images/test"),
        ("test.txt", first_lines("train800.txt", 6), "train and test share 6 images: images/tra"),
    ],
)
def test_a_list_that_names_images_of_another(
    spoilt: str, lines: Callable[[Path], str], message: str, tmp_path: Path
) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS | {"train800": 6}, 47)
    (folder / spoilt).write_text(lines(folder))
    case = small(DTD.task, train=6, val=4, test=6)
    refused(case, folder, tmp_path / "data", message)


def test_one_image_is_too_many(tmp_path: Path) -> None:
    """However large the splits are: an id says what it is."""
    folder = pictures.vtab_lists(tmp_path / "dtd", {"train800": 80, "val200": 4, "test": 60}, 47)
    lines = (folder / "test.txt").read_text().splitlines()
    lines[0] = "images/train800/000000.jpg 0"
    (folder / "test.txt").write_text("\n".join(lines))
    case = small(DTD.task, train=80, val=4, test=60)
    refused(case, folder, tmp_path / "data", "train and test share 1 images: images/train800/00000")


def test_a_list_that_spells_the_paths_of_another_in_another_way(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    lines = first_lines("train800.txt", 4)(folder)
    (folder / "val200.txt").write_text(lines.replace("images/", "./images//"))
    with pytest.raises(DataError, match="train and val share 4 images: images/train800/000000.jpg"):
        DTD.pack(folder, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_copies_of_images_in_another_list(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    for i in range(4):
        name = f"{i:06d}.jpg"
        shutil.copy(folder / "images/train800" / name, folder / "images/val200" / name)
    message = "4 of 4 images of val are in train under other names: images/val200/000000.jpg is im"
    refused(DTD, folder, tmp_path / "data", message)


def test_what_was_packed_before_stays_where_a_new_split_is_removed(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    for i in range(4):
        name = f"{i:06d}.jpg"
        shutil.copy(folder / "images/train800" / name, folder / "images/val200" / name)
    source = find_source(DTD.task, folder)
    DTD.pack_source(source, tmp_path / "data", force=True)
    home = DTD.open(tmp_path / "data").folder
    shutil.rmtree(home / "val")
    with pytest.raises(DataError, match="4 of 4 images of val are in train"):
        DTD.pack_source(source, tmp_path / "data")
    assert sorted(path.name for path in home.iterdir()) == ["test", "train"]


@pytest.mark.parametrize("source", ["train", "test"])
def test_json_that_names_images_of_another(source: str, tmp_path: Path) -> None:
    folder = pictures.vpt_json(tmp_path / "cub", JSON)
    names = dict(list(JSON[source].items())[:2])
    (folder / "val.json").write_text(json.dumps(names))
    first = next(iter(names))
    pair = "train and val" if source == "train" else "val and test"
    refused(CUB, folder, tmp_path / "data", f"{pair} share 2 images: {first}")


def test_json_that_is_mapped_to_the_images_of_another(tmp_path: Path) -> None:
    folder = pictures.vpt_json(tmp_path / "cub", JSON)
    paths = {"v/1.jpg": "images/b/1.jpg", "v/2.jpg": "images/b/2.jpg"}
    (folder / "paths.json").write_text(json.dumps(paths))
    with pytest.raises(DataError, match="train and val share 2 images: images/b/1.jpg, images/b/2"):
        CUB.pack(folder, tmp_path / "data")


def test_copies_of_images_in_another_json(tmp_path: Path) -> None:
    folder = pictures.vpt_json(tmp_path / "cub", JSON)
    shutil.copy(folder / "images/b/1.jpg", folder / "images/t/3.jpg")
    message = "1 of 3 images of test are in train under other names: t/3.jpg is b/1.jpg"
    refused(CUB, folder, tmp_path / "data", message)


def link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("copy", [shutil.copy, link])
def test_copies_and_links_in_image_folders(
    copy: Callable[[Path, Path], object], tmp_path: Path
) -> None:
    for part, start in (("train", 0), ("val", 10)):
        for i, name in enumerate(("n01440764", "n01443537", "n15075141")):
            pictures.save(tmp_path / "in" / part / name / "x.png", i, start + i)
    one = tmp_path / "in/train/n01440764/x.png"
    other = tmp_path / "in/val/n01440764/x.png"
    if copy is link:
        link(other, one)
    else:
        shutil.copy(one, other)
    message = "1 of 3 images of test are in train under other names: val/n01440764/x.png is train"
    refused(IMAGENET, tmp_path / "in", tmp_path / "data", message)


def test_a_split_that_is_a_link_to_another(tmp_path: Path) -> None:
    for i, name in enumerate(("n01440764", "n01443537", "n15075141")):
        pictures.save(tmp_path / "in/train" / name / "x.png", i, i)
    (tmp_path / "in/val").symlink_to("train")
    refused(IMAGENET, tmp_path / "in", tmp_path / "data", "3 of 3 images of test are in train")


def own(folder: Path) -> Path:
    for part in ("train", "test"):
        for name in ("ants", "bees"):
            for i in range(30):
                pictures.save(folder / part / name / f"{i}.png", len(part + name), i)
    for i in range(30):  # ants and bees are of one length
        pictures.save(folder / "train/bees" / f"{i}.png", 20, i)
        pictures.save(folder / "test/bees" / f"{i}.png", 21, i)
    return folder


def opened(folder: Path, root: Path) -> PackedTask:
    suite = task_data.folder_suite(str(folder))
    (task,) = suite.tasks.values()
    return task_data.open_task(suite, task, root, "vtab", 8)


def test_own_images_in_two_splits(tmp_path: Path) -> None:
    folder = own(tmp_path / "own")
    assert task_data.usable_split(opened(folder, tmp_path / "data"), "train+val").problems == ()

    for i in range(30):
        shutil.copy(folder / f"train/ants/{i}.png", folder / f"test/ants/copy-{i}.png")
    task_data._folder_source.cache_clear()
    packed = opened(folder, tmp_path / "data")
    for name in ("train+val", "test"):
        with pytest.raises(DataError, match="under other names: .*allow_unverified_data=true"):
            task_data.usable_split(packed, name)
        problems = task_data.usable_split(packed, name, force=True).problems
        assert any("images of train are in test" in problem for problem in problems)
