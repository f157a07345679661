"""VPT's json splits and the official bird lists."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pictures
import pytest
from small_tasks import FGVC, SmallTask, small

from san.data.prepare.sources import find_source
from san.errors import DataError, UnknownNameError

CUB = small(FGVC.task("cub"), train=4, val=2, test=3)
JSON = {
    "train": {"b/1.jpg": 17, "b/2.jpg": 3, "c/1.jpg": 40, "c/2.jpg": 17},
    "val": {"v/1.jpg": 3, "v/2.jpg": 40},
    "test": {"t/1.jpg": 25, "t/2.jpg": 3, "t/3.jpg": 17},
}


@pytest.mark.parametrize("place", ["", "images", "CUB_200_2011/images"])
def test_vpt_json_labels_are_ranked_over_all_splits(place: str, tmp_path: Path) -> None:
    pictures.vpt_json(tmp_path / "cub", JSON, place)
    packed = CUB.pack(tmp_path, tmp_path / "data")
    assert packed.folder.name == "encoded"
    assert packed.load_part("train").labels.tolist() == [1, 0, 3, 1]
    # 25 is in no other split; that must not shift the labels of these.
    assert packed.load_part("test").labels.tolist() == [2, 0, 1]
    assert packed.load_part("val").ids == ["v/1.jpg", "v/2.jpg"]
    original = (tmp_path / "cub" / place / "t/2.jpg").read_bytes()
    assert original in (packed.folder / "test" / "images.npy").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": {"v/1.jpg": "three"}}, "mix kinds of class values"),
        ({"val": ["v/1.jpg"]}, "val.json .* is not a map"),
        ({"val": {"v/1.jpg": [1]}}, "val.json .* is not a map"),
        ({"val": {}}, "val.json .* is not a map .*it is empty"),
        (
            {"val": {"v/9.jpg": 3, "v/1.jpg": 3}},
            "name v/9.jpg, but it is not there: put the images so that",
        ),
        ({"val": {"../v.jpg": 3, "v/1.jpg": 3}}, "points out of"),
        (
            {"train": {"x/1.jpg": 3, "b/2.jpg": 3, "c/1.jpg": 3, "c/2.jpg": 3}},
            "name x/1.jpg, but it is not there: put the images so that",
        ),
    ],
)
def test_damaged_json_splits_are_named(
    change: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    folder = pictures.vpt_json(tmp_path, JSON)
    for name, entries in change.items():
        (folder / f"{name}.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match=message):
        CUB.pack(folder, tmp_path / "data")


def test_a_map_says_where_images_are_that_are_elsewhere(tmp_path: Path) -> None:
    pictures.vpt_json(tmp_path, JSON, "elsewhere")
    with pytest.raises(DataError, match="or map it in paths.json"):
        find_source(CUB.task, tmp_path)

    shutil.move(tmp_path / "elsewhere/t/2.jpg", tmp_path / "single.jpg")
    path_map = {start: f"elsewhere/{start}" for start in ("b/", "c/", "v/", "t/")}
    path_map["t/2.jpg"] = "single.jpg"
    (tmp_path / "paths.json").write_text(json.dumps(path_map))
    source = find_source(CUB.task, tmp_path)
    files = [tmp_path / path for path in ("elsewhere/t/1.jpg", "single.jpg", "elsewhere/t/3.jpg")]
    found = [image for _, _, image in source.examples("test")]
    assert found == [file.read_bytes() for file in files]

    (tmp_path / "paths.json").write_text("[1]")
    with pytest.raises(DataError, match="paths.json of .* is not a map from paths to paths"):
        find_source(CUB.task, tmp_path)


BIRDS = [  # id, path, class, 1 for training
    ("11", "a/1.jpg", "5", "1"),
    ("12", "a/2.jpg", "9", "0"),
    ("13", "b/1.jpg", "7", "1"),
    ("14", "b/2.jpg", "5", "0"),
]


def birds(folder: Path) -> Path:
    """The lists of NABirds, and the images."""
    columns = {"images.txt": 1, "image_class_labels.txt": 2, "train_test_split.txt": 3}
    for name, column in columns.items():
        lines = [f"{row[0]} {row[column]}\n" for row in BIRDS]
        (folder / name).write_text("".join(lines))
    (folder / "classes.txt").write_text("5 Raven\n7 Crow\n9 Black-footed Albatross\n")
    for i, (_, path, _, _) in enumerate(BIRDS):
        pictures.save(folder / "images" / path, i, i)
    return folder


def nabirds() -> SmallTask:
    full = small(FGVC.task("nabirds"), train=1, val=1, test=2)
    task = replace(full.task, official_splits={"train": 2, "test": 2}, classes=("0", "1", "2"))
    return replace(full, task=task)


def test_the_official_bird_layout_has_no_val_and_says_so(tmp_path: Path) -> None:
    packed = nabirds().pack(birds(tmp_path), tmp_path / "data")
    assert packed.parts("train+val") == ["train"]
    train = packed.load_part("train")
    assert train.labels.tolist() == [0, 1]
    assert train.source == "CUB-style lists, official split"
    assert train.problems == ()
    assert packed.load_part("test").labels.tolist() == [2, 0]
    names = ["Raven", "Crow", "Black-footed Albatross"]
    assert packed.source("train")["names"] == names
    message = "official layout, which has no val; allowed: train, test"
    with pytest.raises(UnknownNameError, match=message):
        packed.parts("val")


def test_bird_lists_of_other_images_are_refused(tmp_path: Path) -> None:
    birds(tmp_path)
    (tmp_path / "image_class_labels.txt").write_text("11 5\n")
    with pytest.raises(DataError, match="do not name the same images: 4, 1, 4"):
        find_source(nabirds().task, tmp_path)
