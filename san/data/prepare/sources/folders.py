"""Folders of images, one a class, as benchmarks have them: `train/SYNSET/`, `val/SYNSET/`."""

from collections.abc import Mapping, Sequence

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
from san.runtime.paths import printable_path
from san.tasks import Task

# Where a benchmark's split is, the first that exists. ImageNet's test images are in `val`.
BENCHMARK_FOLDERS = {
    "train": ("train",),
    "val": ("val", "validation", "valid"),
    "test": ("test", "val", "validation", "valid"),
}


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
        images += read_classes(root, place, {name: labels[name] for name in found})
    return images


def read_classes(root: Root, place: str, labels: Mapping[str, int]) -> list[ImageFile]:
    """Return the images in the class folders of `root / place`, sorted by class and path."""
    start = f"{place}/" if place else ""
    images = []
    for name, paths in images_by_folder(join(root, place), sorted(labels)).items():
        for path in paths:
            images.append(
                ImageFile(id=printable_path(start + path), path=start + path, label=labels[name])
            )
    return images
