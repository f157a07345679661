"""Demo data, resizes, normalisation, batches and what `load` says."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from san.data import task_data
from san.data.batches import NORMALIZE, Batches, Preprocess
from san.data.prepare import demo, demo_images
from san.data.resize import RESIZE, resize
from san.data.split import Images, Split
from san.tasks import load_suite

DEMO = load_suite("demo")
CPU = torch.device("cpu")
PLAIN = Preprocess("vtab", "unit")


def split_of(images: np.ndarray, labels: list[int]) -> Split:
    return Split(
        (Images(images),),
        np.array(labels),
        [str(i) for i in range(len(labels))],
        "f",
        ({"made_by": "a test"},),
    )


SMALL = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)


@pytest.mark.parametrize("name", DEMO.tasks)
def test_demo_task_is_what_its_row_says(name: str, data_root: Path) -> None:
    task = DEMO.task(name)
    splits = {
        p: task_data.load_split(DEMO, task, p, data_root, "vtab", 32)
        for p in ("train", "val", "test", "train+val")
    }
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


def test_the_suite_has_two_tasks_in_each_group() -> None:
    assert [t.group for t in DEMO.tasks.values()] == [
        g for g in ("natural", "specialised", "structured") for _ in (0, 1)
    ]


@pytest.mark.parametrize("name", sorted(demo_images.DRAW))
def test_drawing_depends_on_the_seed_alone(name: str) -> None:
    classes = len(DEMO.task(name).classes)
    first, labels = demo_images.draw(name, classes, 12, seed=1)
    again, _ = demo_images.draw(name, classes, 12, seed=1)
    other, _ = demo_images.draw(name, classes, 12, seed=2)
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


def test_another_seed_makes_the_demo_anew(tmp_path: Path) -> None:
    task = DEMO.task("count")
    first = task_data.load_split(DEMO, task, "val", tmp_path, "vtab", 32)
    again = task_data.load_split(DEMO, task, "val", tmp_path, "vtab", 32)
    other = task_data.load_split(replace(DEMO, seed=1), task, "val", tmp_path, "vtab", 32)
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize("resident", [True, False])
def test_batches_cover_everything_once_and_change_nothing(
    resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("san.data.batches.DEVICE_CACHE_BYTES", 2**30 if resident else 0)
    split = split_of(SMALL.copy(), [0, 1, 2, 0, 1])
    batches = Batches(split, 2, PLAIN, 4, CPU, torch.Generator().manual_seed(0))
    passes = []
    for _ in range(2):
        seen = {}
        for images, labels in batches:
            for image, label in zip(images, labels, strict=True):
                row = next(
                    i
                    for i in range(5)
                    if np.allclose(image.permute(1, 2, 0) * 255, SMALL[i], atol=1e-3)
                )
                assert label == split.labels[row]
                seen[row] = image.clone()
            images.mul_(0)
        assert sorted(seen) == [0, 1, 2, 3, 4]
        passes.append(seen)
    assert all(torch.equal(passes[0][i], passes[1][i]) for i in range(5))
    assert list(passes[0]) != list(passes[1])
    assert np.array_equal(split.parts[0].data, SMALL)
    assert len(batches) == 3
    stored = [labels.tolist() for _, labels in Batches(split, 2, PLAIN, 4, CPU)]
    assert stored == [[0, 1], [2, 0], [1]]


def test_resident_and_streamed_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 9, 9, 3)).astype(np.uint8)
    made = {}
    for limit in (0, 2**30):
        monkeypatch.setattr("san.data.batches.DEVICE_CACHE_BYTES", limit)
        batches = Batches(
            split_of(images, [0] * 30), 7, PLAIN, 20, CPU, torch.Generator().manual_seed(3)
        )
        made[limit] = torch.cat([x for x, _ in batches])
        assert bool(batches.resident) == bool(limit)
    assert torch.equal(made[0], made[2**30])


@pytest.mark.parametrize("normalise", NORMALIZE)
def test_normalisation(normalise: str) -> None:
    image = torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    ours = Preprocess("vtab", normalise).scale(image)
    mean, std = NORMALIZE[normalise]
    for channel in range(3):
        wanted = (image[..., channel].double() / 255 - mean[channel]) / std[channel]
        assert torch.allclose(ours[:, channel].double(), wanted, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 32), (60, 41, 24), (37, 124, 16)])
def test_vtab_resize_is_the_formula(height: int, width: int, side: int) -> None:
    """Bilinear without antialias at pixel centres, in float64, each pixel from its four neighbours, then rounded."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    y, x = ((np.arange(side) + 0.5) * n / side - 0.5 for n in (height, width))
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
    fy, fx = (y - y0)[:, None, None], (x - x0)[None, :, None]
    a = image.astype(float)
    top = a[y0][:, x0] * (1 - fx) + a[y0][:, x1] * fx
    low = a[y1][:, x0] * (1 - fx) + a[y1][:, x1] * fx
    exact = top * (1 - fy) + low * fy
    ours = resize([image], "vtab", side)[0]
    assert np.abs(ours - exact).max() <= 0.5 + 1e-4


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, which PIL uses."""
    d = np.abs(distance)
    return np.where(
        d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0)
    )


def weights(old: int, new: int) -> np.ndarray:
    """Antialiased bicubic weights `(new, old)`: the kernel is stretched where the image shrinks."""
    scale = old / new
    stretch = max(scale, 1)
    centres = (np.arange(new) + 0.5) * scale
    w = cubic((np.arange(old) + 0.5 - centres[:, None]) / stretch)
    return w / w.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 32), (60, 41, 24), (37, 124, 16)])
def test_bicubic_resize_is_the_formula(height: int, width: int, side: int) -> None:
    """PIL rounds to uint8 between its two passes; which comes first depends on its version and the size."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    ours = resize([image], "bicubic", side)[0]
    errors = []
    for one, other in ((0, 1), (1, 0)):
        first = np.moveaxis(image.astype(float), one, 0)
        half = np.clip(np.rint(np.tensordot(weights(len(first), side), first, 1)), 0, 255)
        second = np.moveaxis(np.moveaxis(half, 0, one), other, 0)
        whole = np.moveaxis(np.tensordot(weights(len(second), side), second, 1), 0, other)
        errors.append(np.abs(ours - np.clip(whole, 0, 255)).max())
    assert min(errors) <= 0.51


@pytest.mark.parametrize(
    ("height", "width"), [(300, 400), (400, 300), (37, 124), (224, 224), (233, 351)]
)
@pytest.mark.parametrize(
    ("name", "short", "mode"),
    [("ssf", 224, InterpolationMode.BICUBIC), ("crop_256", 256, InterpolationMode.BILINEAR), ("crop_248", 248, InterpolationMode.BICUBIC)],
)  # fmt: skip
def test_crops_are_those_of_torchvision(
    name: str, short: int, mode: InterpolationMode, height: int, width: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    chain = transforms.Compose(
        [transforms.Resize(short, interpolation=mode), transforms.CenterCrop(224)]
    )
    assert np.array_equal(resize([image], name, 224)[0], np.asarray(chain(Image.fromarray(image))))


def test_the_shorter_side_before_a_crop_follows_the_papers() -> None:
    assert [side * 256 // 224 for side in (224, 448, 384)] == [256, 512, 438]
    assert math.floor(224 / 0.9) == 248


@pytest.mark.parametrize(
    "name", [name for name in RESIZE if not name.startswith("crop")]
)  # crops are made of files
def test_packing_at_a_side_or_natively_gives_the_model_the_same_pixels(name: str) -> None:
    """What is stored resized is what a batch makes of native images: whichever is smaller may be stored."""
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    native = Batches(split_of(images, [0] * 6), 4, Preprocess(name, "half"), 224, CPU)
    stored = np.concatenate([resize([image], name, 224) for image in images])
    packed = Batches(split_of(stored, [0] * 6), 4, Preprocess(name, "half"), 224, CPU)
    for (a, _), (b, _) in zip(native, packed, strict=True):
        assert torch.equal(a, b)


def test_unknown_names_say_what_is_near() -> None:
    with pytest.raises(LookupError, match="Unknown task of demo 'digit'. Did you mean digits"):
        DEMO.task("digit")
    with pytest.raises(
        LookupError, match="Unknown split of demo/digits 'tests'. Did you mean test"
    ):
        DEMO.task("digits").size("train+tests")
    with pytest.raises(LookupError, match="Unknown suite 'demos'. Did you mean demo"):
        load_suite("demos")
    with pytest.raises(LookupError, match="Unknown data.resize 'area'. Allowed: vtab, bicubic"):
        Preprocess("area", "half")
    with pytest.raises(LookupError, match="Unknown task of vtab 'cifar10'. Did you mean cifar"):
        load_suite("vtab").task("cifar10")


def test_a_task_without_val_has_it_in_no_sum_and_not_alone() -> None:
    task = load_suite("gic").task("cifar100")
    assert task.parts("train+val") == ["train"]
    assert task.size("train+val") == 50000
    with pytest.raises(LookupError, match="Unknown split of gic/cifar100 'val'"):
        task.parts("val")


def test_data_that_is_not_there_says_what_to_run(tmp_path: Path) -> None:
    suite = load_suite("vtab")
    with pytest.raises(FileNotFoundError) as error:
        task_data.load_split(suite, suite.task("cifar"), "train", tmp_path, "vtab", 224)
    for text in (
        "make prepare-vtab TASKS=cifar",
        "downloads 0.17 GB",
        "0.034 GB",
        "--from",
        "data=demo/digits",
    ):
        assert text in str(error.value)
    (tmp_path / "vtab/dtd/vtab-224").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError,
        match="packed as vtab-224 .* this run takes resize bicubic at 224 px(.|\n)*--resize bicubic",
    ):
        task_data.load_split(suite, suite.task("dtd"), "train", tmp_path, "bicubic", 224)
