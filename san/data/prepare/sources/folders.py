"""Folders of images, one a class: a user's own, or ImageNet's `train/SYNSET/`, `val/SYNSET/`."""

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from san.data.layout import folder_name
from san.data.prepare.sources.files import (
    FileList,
    ImageFile,
    Root,
    class_folders,
    images_by_folder,
    join,
)
from san.errors import DataError
from san.tasks import Task

# Names of the folders that a user's splits may have, in lower case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# Where a benchmark's split is, the first that exists. ImageNet's test images are in `val`.
BENCHMARK_FOLDERS = {
    "train": ("train",),
    "val": ("val", "validation", "valid"),
    "test": ("test", "val", "validation", "valid"),
}
# The shares of the training images that become a split which a user does not have.
TEST_SHARE = 0.2
VAL_SHARE = 0.1


def open_task(task: Task, root: Root) -> FileList | None:
    """Return the task's splits, if `root` has a folder for each of them and in it its classes.

    Test images are in `test`, or where that does not exist in `val` (ImageNet's). A task without
    training images (ImageNet-A) may have its class folders in `root` itself.
    """
    labels = {folder_name(name): label for label, name in enumerate(task.classes)}
    places = {}
    for part in task.splits:
        places[part] = _find_places(task, root, part, labels)
        if not places[part]:
            return None
    files = {}
    for part in task.splits:
        files[part] = _read_places(task, root, places[part], labels)
    return FileList(root, "image folders", files)


def _find_places(task: Task, root: Root, part: str, labels: Mapping[str, int]) -> Sequence[str]:
    """Return the folders below `root` that have a split's class folders; none if one is missing."""
    if task.test_folders:
        are_there = all((root / place).is_dir() for place in task.test_folders)
        return task.test_folders if are_there else ()
    for place in BENCHMARK_FOLDERS[part]:
        if (root / place).is_dir():
            return (place,)
    is_test_only = list(task.splits) == ["test"]
    if is_test_only and set(class_folders(root)) <= labels.keys():
        return ("",)
    return ()


def _read_places(
    task: Task, root: Root, places: Sequence[str], labels: Mapping[str, int]
) -> list[ImageFile]:
    """Return the images of folders of class folders, with their labels.

    Raises DataError where one of these is not a class of the task.
    """
    images = []
    for place in places:
        found = class_folders(join(root, place))
        unknown = [name for name in found if name not in labels]
        if unknown:
            raise DataError(
                f"{root}/{place} has folders that are not classes of {task.suite}/{task.name}: "
                f"{unknown[:5]} ..."
            )
        images += _read_classes(root, place, {name: labels[name] for name in found})
    return images


def _read_classes(root: Root, place: str, labels: Mapping[str, int]) -> list[ImageFile]:
    """Return the images in the class folders of `root / place`, sorted by class and path."""
    start = f"{place}/" if place else ""
    images = []
    for name, paths in images_by_folder(join(root, place), sorted(labels)).items():
        for path in paths:
            images.append(ImageFile(start + path, start + path, labels[name]))
    return images


def own_folder(root: Path) -> FileList:
    """Read a user's folder: `train/CLASS/` with `val/` and `test/` beside it, or class folders.

    A `val/` without `test/` is the test split. A split that is not there is taken from the training
    images by a hash of their paths, the same on every machine. Raises DataError where there are not
    two classes, one of them has no images, or a split has other classes.
    """
    places = _split_folders(root)
    train = places.get("train", "")
    base = join(root, train)
    names = class_folders(base)
    if len(names) < 2:
        raise DataError(
            f"{base} has {len(names)} class folders {names}; "
            "train/CLASS/*.jpg or CLASS/*.jpg is allowed."
        )
    labels = {name: label for label, name in enumerate(names)}
    files: dict[str, list[ImageFile]] = {"train": [], "val": [], "test": []}
    for part, place in places.items():
        if part != "train":
            files[part] += _read_given_split(root, place, base, labels)

    images = _read_classes(root, train, labels)
    _check_no_empty_class(base, names, images)
    for image in images:
        part = _drawn_split(image.path, given=places)
        files[part].append(image)
    without = [part for part, found in files.items() if not found]
    if without:
        raise DataError(f"{root} has too few images: none for {', '.join(without)}.")
    return FileList(
        root,
        "image folders",
        files,
        names=names,
    )


def _read_given_split(
    root: Path, place: str, base: Root, labels: Mapping[str, int]
) -> list[ImageFile]:
    """Return the images of a split that the user has; raise DataError at a class without label."""
    found = class_folders(root / place)
    unknown = sorted(set(found) - labels.keys())
    if unknown:
        raise DataError(f"{root / place} has classes that {base} does not have: {unknown[:5]}.")
    return _read_classes(root, place, {name: labels[name] for name in found})


def _check_no_empty_class(base: Root, names: Sequence[str], images: Sequence[ImageFile]) -> None:
    labels = {image.label for image in images}
    empty = [name for label, name in enumerate(names) if label not in labels]
    if empty:
        raise DataError(
            f"{base} has no images of {', '.join(empty[:5])}. Fill the folder, or move it away."
        )


def _split_folders(root: Path) -> dict[str, str]:
    """Return the folders of `root` that are splits, by split; none if these are class folders.

    They are splits only if one for `train` has class folders. Raises DataError where two folders
    are the same split, or one beside the splits is not a split.
    """
    found: dict[str, str] = {}
    others = []
    for name in class_folders(root):
        part = _split_called(name)
        if part is None:
            others.append(name)
        elif part in found:
            raise DataError(
                f"{root} has {found[part]} and {name}; one folder for {part} is allowed."
            )
        else:
            found[part] = name
    if "train" not in found or not class_folders(root / found["train"]):
        return {}
    if others:
        raise DataError(
            f"{root} has {', '.join(others[:5])} beside {found['train']}; "
            "only val and test may be there."
        )
    if "val" in found and "test" not in found:
        found["test"] = found.pop("val")  # as ImageNet's val is used
    return found


def _split_called(name: str) -> str | None:
    """Return the split that a folder's name means, in any case of letters."""
    for part, names in SPLIT_NAMES.items():
        if name.lower() in names:
            return part
    return None


def _drawn_split(path: str, given: Collection[str]) -> str:
    """Return the split of a training image by a hash of its path, unless the split is given."""
    # Unlike a random draw, an image stays in its split when others are added. The bytes of a name
    # are the same in every locale, its characters are not.
    digest = hashlib.md5(os.fsencode(path), usedforsecurity=False).hexdigest()
    fraction = int(digest[:8], 16) / 2**32
    if fraction < TEST_SHARE:
        part = "test"
    elif fraction < TEST_SHARE + VAL_SHARE:
        part = "val"
    else:
        return "train"
    return "train" if part in given else part
