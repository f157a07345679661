"""VPT's json splits and the official bird lists."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pictures
import pytest
from small_tasks import FGVC, packed, small

from san.data import verify
from san.data.prepare.sources import find_source

CUB = small(FGVC.task("cub"), train=4, val=2, test=3)


JSON = {
    "train": {"b/1.jpg": 17, "b/2.jpg": 3, "c/1.jpg": 40, "c/2.jpg": 17},
    "val": {"v/1.jpg": 3, "v/2.jpg": 40},
    "test": {"t/1.jpg": 25, "t/2.jpg": 3, "t/3.jpg": 17},
}


@pytest.mark.parametrize("place", ["", "images", "CUB_200_2011/images"])
def test_vpt_json_labels_are_ranked_over_all_splits(place: str, tmp_path: Path) -> None:
    pictures.vpt_json(tmp_path / "cub", JSON, place)
    home = packed(*CUB, tmp_path, tmp_path / "data")
    assert home.name == "encoded"
    labelled = {part: verify.load_part(CUB[1], home, part) for part in JSON}
    assert labelled["train"].labels.tolist() == [1, 0, 3, 1]
    assert labelled["test"].labels.tolist() == [
        2,
        0,
        1,
    ]  # 25 is in no other split, and shifts nothing
    assert labelled["val"].ids == ["v/1.jpg", "v/2.jpg"]
    original = (tmp_path / "cub" / place / "t/2.jpg").read_bytes()
    assert original in (home / "test" / "images.npy").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": {"v/1.jpg": "three"}}, "mix kinds of class values"),
        ({"val": ["v/1.jpg"]}, "val.json .* is no map"),
        ({"val": {"v/1.jpg": [1]}}, "val.json .* is no map"),
        ({"val": {}}, "val.json .* is no map .*it is empty"),
        ({"val": {"v/9.jpg": 3, "v/1.jpg": 3}}, "names? v/9.jpg, but it is not there: put the images so that"),
        ({"val": {"../v.jpg": 3, "v/1.jpg": 3}}, "points out of"),
        ({"train": {"x/1.jpg": 3, "b/2.jpg": 3, "c/1.jpg": 3, "c/2.jpg": 3}}, "names? x/1.jpg, but it is not there: put the images so that"),
    ],
)  # fmt: skip
def test_damaged_json_splits_are_named(
    change: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    folder = pictures.vpt_json(tmp_path, JSON)
    for name, entries in change.items():
        (folder / f"{name}.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message):
        packed(*CUB, folder, tmp_path / "data")


def test_a_map_says_where_images_lie_that_are_elsewhere(tmp_path: Path) -> None:
    pictures.vpt_json(tmp_path, JSON, "elsewhere")
    with pytest.raises(ValueError, match="or map it in paths.json"):
        find_source(CUB[1], tmp_path)
    shutil.move(tmp_path / "elsewhere/t/2.jpg", tmp_path / "single.jpg")
    starts = {start: f"elsewhere/{start}" for start in ("b/", "c/", "v/", "t/")}
    (tmp_path / "paths.json").write_text(json.dumps({**starts, "t/2.jpg": "single.jpg"}))
    source = find_source(CUB[1], tmp_path)
    wanted = [
        (tmp_path / path).read_bytes()
        for path in ("elsewhere/t/1.jpg", "single.jpg", "elsewhere/t/3.jpg")
    ]
    assert [image for _, _, image in source.examples("test")] == wanted
    (tmp_path / "paths.json").write_text("[1]")
    with pytest.raises(ValueError, match="paths.json of .* is no map from paths to paths"):
        find_source(CUB[1], tmp_path)


def birds(folder: Path) -> Path:
    rows = [
        ("11", "a/1.jpg", "5", "1"),
        ("12", "a/2.jpg", "9", "0"),
        ("13", "b/1.jpg", "7", "1"),
        ("14", "b/2.jpg", "5", "0"),
    ]
    for name, column in (
        ("images.txt", 1),
        ("image_class_labels.txt", 2),
        ("train_test_split.txt", 3),
    ):
        (folder / name).write_text("".join(f"{row[0]} {row[column]}\n" for row in rows))
    (folder / "classes.txt").write_text("5 Raven\n7 Crow\n9 Black-footed Albatross\n")
    for i, row in enumerate(rows):
        pictures.save(folder / "images" / row[1], i, i)
    return folder


def test_the_official_bird_layout_has_no_val_and_says_so(tmp_path: Path) -> None:
    suite, task = small(FGVC.task("nabirds"), train=1, val=1, test=2)
    task = replace(task, official_splits={"train": 2, "test": 2}, classes=("0", "1", "2"))
    home = packed(suite, task, birds(tmp_path), tmp_path / "data")
    assert verify.parts_of(task, home, "train+val") == ["train"]
    split = verify.load_part(task, home, "train")
    assert (split.labels.tolist(), split.made_by, split.problems) == (
        [0, 1],
        "CUB-style lists, official split",
        (),
    )
    assert verify.load_part(task, home, "test").labels.tolist() == [2, 0]
    with pytest.raises(
        LookupError, match="official layout, which has no val; allowed: train, test"
    ):
        verify.parts_of(task, home, "val")
    (tmp_path / "image_class_labels.txt").write_text("11 5\n")
    with pytest.raises(ValueError, match="do not name the same images: 4, 1, 4"):
        find_source(task, tmp_path)
