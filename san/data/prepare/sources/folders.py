"""Folders of images, one a class: any images of a user's, or ImageNet's `train/SYNSET/`, `val/SYNSET/`."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from san.data.layout import folder_name
from san.data.prepare.sources.files import Listed, Root, class_folders, images_below
from san.tasks import Task

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
PLACES = {
    "train": ("train",),
    "val": ("val", "validation", "valid"),
    "test": ("test", "val", "validation", "valid"),
}


def open_task(task: Task, root: Root) -> Listed | None:
    """Return the task's splits, if `root` has a folder for each of them and in it the task's classes.

    A task has its test images in `test`, or where there is none in `val` (ImageNet's). A task without training images
    (ImageNet-A) has its class folders in `root`.
    """
    labels = {folder_name(name): label for label, name in enumerate(task.classes)}
    places: dict[str, Sequence[str]] = {}
    for part in task.splits:
        near = [place for place in PLACES[part] if (root / place).is_dir()][:1]
        places[part] = task.test_folders or near
    if (
        list(task.splits) == ["test"]
        and not places["test"]
        and set(class_folders(root)) <= labels.keys()
    ):
        places["test"] = [""]
    if not all(
        found and all(root.joinpath(p).is_dir() for p in found) for found in places.values()
    ):
        return None
    files = {
        part: [row for place in found for row in task_classes(task, root, place, labels)]
        for part, found in places.items()
    }
    return Listed(root, "image folders", files)


def task_classes(
    task: Task, root: Root, place: str, labels: Mapping[str, int]
) -> list[tuple[str, str, int]]:
    """Return the images of a folder of class folders; raise ValueError where one is no class of the task."""
    found = class_folders(root.joinpath(*filter(None, (place,))))
    unknown = [name for name in found if name not in labels]
    if unknown:
        raise ValueError(
            f"{root}/{place} has folders that are no class of {task.suite}/{task.name}: {unknown[:5]} ..."
        )
    return in_classes(root, place, {name: labels[name] for name in found})


def in_classes(root: Root, place: str, labels: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Return the images in each class folder of `root / place`, with their labels, sorted."""
    start = f"{place}/" if place else ""
    return [
        (path, path, label)
        for name, label in sorted(labels.items())
        for path in images_below(root.joinpath(*filter(None, (place, name))), f"{start}{name}/")
    ]


def own_folder(root: Path) -> Listed:
    """Read a user's folder: `train/CLASS/` with `val/` and `test/` beside it, or class folders alone.

    A lone `val/` is the test split. What is not given is taken from the training images by a hash of their paths: 20 %
    test, 10 % val, the same on every machine. Raises ValueError where there are no two classes, one has no images, or
    a split has other ones.
    """
    places = split_folders(root)
    base = root / places["train"] if places else root
    names = class_folders(base)
    if len(names) < 2:
        raise ValueError(
            f"{base} has {len(names)} class folders {names}; train/CLASS/*.jpg or CLASS/*.jpg is allowed."
        )
    labels = {name: i for i, name in enumerate(names)}
    files: dict[str, list[tuple[str, str, int]]] = {"train": [], "val": [], "test": []}
    for part, place in places.items():
        held = class_folders(root / place)
        odd = sorted(set(held) - set(names))
        if odd:
            raise ValueError(f"{root / place} has classes that {base} has not: {odd[:5]}.")
        rows = in_classes(root, place, {name: labels[name] for name in held})
        files[part] += rows if part != "train" else []
    rows = in_classes(root, places.get("train", ""), labels)
    empty = sorted(set(names) - {names[label] for _, _, label in rows})
    if empty:
        raise ValueError(
            f"{base} has no images of {', '.join(empty[:5])}. Remove the folder, or fill it."
        )
    for row in rows:
        files[drawn_split(row[1], places)].append(row)
    without = [part for part, found in files.items() if not found]
    if without:
        raise ValueError(f"{root} has too few images: none for {', '.join(without)}.")
    return Listed(root, "image folders", files, names)


def split_folders(root: Path) -> dict[str, str]:
    """Return the folders of `root` that are splits, by split, in any case; none where no `train` has class folders.

    Raises ValueError where two folders are the same split, or a folder beside the splits is none.
    """
    found: dict[str, str] = {}
    others = []
    for name in class_folders(root):
        part = next((part for part, words in SPLITS.items() if name.lower() in words), None)
        if part is None:
            others.append(name)
        elif part in found:
            raise ValueError(
                f"{root} has {found[part]} and {name}; one folder for {part} is allowed."
            )
        else:
            found[part] = name
    if "train" not in found or not class_folders(root / found["train"]):
        return {}
    if others:
        raise ValueError(
            f"{root} has {', '.join(others[:5])} beside {found['train']}; only val and test may be there."
        )
    if "val" in found and "test" not in found:
        found["test"] = found.pop("val")
    return found


def drawn_split(path: str, given: Collection[str]) -> str:
    """Return the split of a training image by a hash of its path, where a split is not given."""
    share = int(hashlib.md5(path.encode(), usedforsecurity=False).hexdigest()[:8], 16) / 2**32
    if share < 0.2 and "test" not in given:
        return "test"
    return "val" if 0.2 <= share < 0.3 and "val" not in given else "train"
