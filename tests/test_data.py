"""Demo data, packed splits and batches."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from san import data
from san.data import demo, drawing, pack
from san.data.batches import NORMALISE, Batches, Preprocess
from san.tasks import load_suite

DEMO = load_suite("demo")
CPU = torch.device("cpu")
PLAIN = Preprocess("bilinear", "unit")


@pytest.mark.parametrize("name", DEMO.tasks)
def test_demo_task_is_what_its_row_says(name: str, data_root: Path) -> None:
    task = DEMO.task(name)
    splits = {part: data.load(DEMO, task, part, data_root) for part in ("train", "val", "test", "train+val")}
    assert {part: len(s) for part, s in splits.items()} == {
        "train": 800,
        "val": 200,
        "test": task.splits["test"],
        "train+val": 1000,
    }
    ids = [i for part in ("train", "val", "test") for i in splits[part].ids]
    assert len(set(ids)) == len(ids)
    for split in splits.values():
        histogram = np.bincount(split.labels, minlength=len(task.classes))
        assert len(histogram) == len(task.classes)
        assert histogram.min() > 0.5 * len(split) / len(task.classes)
    assert splits["train+val"].fingerprint == f"{splits['train'].fingerprint}+{splits['val'].fingerprint}"


def test_the_suite_has_two_tasks_in_each_group() -> None:
    assert [t.group for t in DEMO.tasks.values()] == [
        g for g in ("natural", "specialised", "structured") for _ in (0, 1)
    ]


@pytest.mark.parametrize("name", sorted(drawing.DRAW))
def test_drawing_depends_on_the_seed_alone(name: str) -> None:
    classes = len(DEMO.task(name).classes)
    first, labels = drawing.draw(name, classes, 12, seed=1)
    again, _ = drawing.draw(name, classes, 12, seed=1)
    other, _ = drawing.draw(name, classes, 12, seed=2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert labels.tolist() == [i % classes for i in range(12)]
    assert first.dtype == np.uint8
    assert first.std() > 10


def test_digits_are_those_of_scikit_learn() -> None:
    images, labels, ids = demo.digits(seed=0)
    from sklearn.datasets import load_digits

    original = load_digits()
    where = int(ids[5].removeprefix("digits-"))
    assert labels[5] == original.target[where]
    assert np.array_equal(images[5, :, :, 0], np.rint(original.images[where] / 16 * 255))
    assert len(images) == 1797


def packed(folder: Path) -> pack.Split:
    images = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    pack.write(folder, images, np.array([0, 1, 2, 0, 1]), [f"i{i}" for i in range(5)], {"made_by": "a test"})
    return pack.read(folder, 5, 3)


def test_batches_cover_everything_once_and_change_nothing(tmp_path: Path) -> None:
    split = packed(tmp_path / "s")
    before = np.array(split.images)
    batches = Batches(split, 2, PLAIN, 4, CPU, torch.Generator().manual_seed(0))
    orders = []
    for _ in range(2):
        seen = []
        for images, labels in batches:
            seen += labels.tolist()
            images.mul_(0)
        orders.append(seen)
        assert sorted(seen) == [0, 0, 1, 1, 2]
    assert len(batches) == 3
    assert np.array_equal(split.images, before)
    stored = [labels.tolist() for _, labels in Batches(split, 2, PLAIN, 4, CPU)]
    assert stored == [[0, 1], [2, 0], [1]]


@pytest.mark.parametrize("normalise", NORMALISE)
def test_normalisation(normalise: str) -> None:
    image = torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    ours = Preprocess("bilinear", normalise)(image, 5)
    mean, std = NORMALISE[normalise]
    for channel in range(3):
        wanted = (image[..., channel].double() / 255 - mean[channel]) / std[channel]
        assert torch.allclose(ours[:, channel].double(), wanted, atol=1e-6)


def test_bilinear_resize_is_the_formula() -> None:
    image = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8)
    ours = PLAIN(image, 32)[0, 0]
    source = image[0, :, :, 0].double() / 255
    for row, column in ((0, 0), (5, 9), (31, 30), (17, 2)):
        y, x = (np.clip((v + 0.5) / 4 - 0.5, 0, 7) for v in (row, column))
        y0, x0 = int(y), int(x)
        y1, x1, fy, fx = min(y0 + 1, 7), min(x0 + 1, 7), y - y0, x - x0
        top = source[y0, x0] * (1 - fx) + source[y0, x1] * fx
        low = source[y1, x0] * (1 - fx) + source[y1, x1] * fx
        assert ours[row, column].item() == pytest.approx((top * (1 - fy) + low * fy).item(), abs=1e-6)


def damage(folder: Path, how: str) -> None:
    if how == "pixels":
        images = np.array(np.load(folder / "images.npy"))
        images[0, 0, 0, 0] ^= 1
        np.save(folder / "images.npy", images)
    if how == "count":
        np.save(folder / "labels.npy", np.array([0, 1]))
    if how == "label":
        np.save(folder / "labels.npy", np.array([0, 1, 2, 0, 7]))
    if how == "manifest":
        (folder / "manifest.json").write_text("{")
    if how == "version":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 0}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pixels", "does not match its manifest's digest"),
        ("count", "2 labels and 5 ids; 5 of each are expected"),
        ("label", r"labels 0\.\.7; 0\.\.2 are allowed"),
        ("manifest", "no packed split of version 1"),
        ("version", "no packed split of version 1"),
    ],
)
def test_damaged_splits_are_refused(how: str, message: str, tmp_path: Path) -> None:
    packed(tmp_path / "s")
    damage(tmp_path / "s", how)
    with pytest.raises(ValueError, match=message):
        pack.read(tmp_path / "s", 5, 3)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "ids.json"])
def test_truncated_files_are_refused_by_name(file: str, tmp_path: Path) -> None:
    packed(tmp_path / "s")
    (tmp_path / "s" / file).write_bytes((tmp_path / "s" / file).read_bytes()[:20])
    with pytest.raises(ValueError, match="cannot be read .* Delete it and prepare the task again"):
        pack.read(tmp_path / "s", 5, 3)


def test_writing_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    packed(tmp_path / "s")
    packed(tmp_path / "s")
    pack.write(tmp_path / "s", np.zeros((1, 2, 2, 3), np.uint8), np.array([0]), ["a"], {})
    assert len(pack.read(tmp_path / "s", 1, 1)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_another_seed_makes_the_demo_anew(tmp_path: Path) -> None:
    task = DEMO.task("count")
    first = data.load(DEMO, task, "val", tmp_path)
    again = data.load(DEMO, task, "val", tmp_path)
    other = data.load(replace(DEMO, seed=1), task, "val", tmp_path)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        pack.write(tmp_path / "s", np.zeros((1, 2, 2, 3), np.uint8), np.array([0]), ["a"], {"not json": object()})
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_say_what_is_near() -> None:
    with pytest.raises(LookupError, match="Unknown task of demo 'digit'. Did you mean digits"):
        DEMO.task("digit")
    with pytest.raises(LookupError, match="Unknown split 'tests'. Did you mean test"):
        DEMO.task("digits").size("train+tests")
    with pytest.raises(LookupError, match="Unknown suite 'demos'. Did you mean demo"):
        load_suite("demos")
    with pytest.raises(LookupError, match="Unknown data.resize 'area'. Allowed: bilinear, bicubic"):
        Preprocess("area", "half")
