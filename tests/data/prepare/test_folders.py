"""Folders of images, one a class: benchmarks' and users' own."""

from pathlib import Path

import pictures
import pytest
from small_tasks import GIC, small

from san.data.prepare.sources import find_source
from san.errors import DataError
from san.tasks import load_suite


def test_class_folders_as_imagenet_has_them(tmp_path: Path) -> None:
    imagenet = small(GIC.task("imagenet"), train=3, test=2)
    for i, name in enumerate(("n01440764", "n01443537", "n15075141")):
        pictures.save(tmp_path / "train" / name / "x.JPEG", i, i)
    for i, name in enumerate(("n01440764", "n15075141")):
        pictures.save(tmp_path / "val" / name / "y.JPEG", i, 10 + i)
    packed = imagenet.pack(tmp_path, tmp_path / "data")
    assert packed.load_part("train").labels.tolist() == [0, 1, 999]
    assert packed.load_part("test").labels.tolist() == [0, 999]

    pictures.save(tmp_path / "val" / "n00000000" / "y.JPEG", 0, 0)
    message = r"folders that are not classes of small/imagenet: \['n00000000'\]"
    with pytest.raises(DataError, match=message):
        find_source(imagenet.task, tmp_path)


def test_imagenet_a_has_its_class_folders_at_the_top(tmp_path: Path) -> None:
    imagenet_a = small(load_suite("robustness").task("imagenet_a"), test=2)
    for i, name in enumerate(("n01498041", "n15075141")):
        pictures.save(tmp_path / "a" / name / "z.jpg", i, i)
    packed = imagenet_a.pack(tmp_path / "a", tmp_path / "data")
    assert packed.load_part("test").labels.tolist() == [6, 999]


def test_imagenet_c_has_five_severities_of_a_corruption(tmp_path: Path) -> None:
    frost = small(load_suite("robustness").task("imagenet_c_frost"), test=5)
    for severity in range(1, 6):
        folder = tmp_path / "c" / "frost" / str(severity)
        pictures.save(folder / "n01440764" / "z.jpg", 0, severity)
    packed = frost.pack(tmp_path / "c", tmp_path / "data")
    expected = [f"frost/{severity}/n01440764/z.jpg" for severity in range(1, 6)]
    assert packed.load_part("test").ids == expected
