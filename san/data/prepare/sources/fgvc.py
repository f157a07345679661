"""The fine-grained sets: VPT's json splits over the official images, or the official bird layout.

VPT (KMnP/vpt 4410440) reads `{train,val,test}.json`, path -> class value, and ranks the values of each file. Here the
rank is over the union of the three, so a class that a split lacks shifts nothing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from san.data.prepare.sources.files import Listed, Root, inside, read, require, text
from san.tasks import Task

JSON = {"train": "train.json", "val": "val.json", "test": "test.json"}


def open_json(task: Task, root: Root) -> Listed | None:
    """Return VPT's splits, if `root` (or a folder of the task's name in it) has the three json files."""
    for folder in (root, root / task.name):
        if all((folder / name).is_file() for name in JSON.values()):
            return read_json(task, folder)
    return None


def read_json(task: Task, root: Root) -> Listed:
    """Read VPT's splits; raise ValueError where a file is no such map, or names an image that is not there."""
    maps: dict[str, dict[str, Any]] = {}
    for part, name in JSON.items():
        try:
            maps[part] = json.loads(read(root, name))
            if not set(maps[part].values()):
                raise ValueError("it is empty")
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{name} of {root} is no map from image paths to classes ({error})."
            ) from error
    values = {value for m in maps.values() for value in m.values()}
    if len({type(value) for value in values}) != 1:
        raise ValueError(
            f"The json files of {root} mix kinds of class values; all numbers or all names are allowed."
        )
    label = {value: i for i, value in enumerate(sorted(values))}
    places = ("", *(f"{place}/" for place in task.image_folders))
    renamed = path_map(root)
    files = {
        part: [
            (path, locate_image(root, remap_path(path, renamed), places), label[value])
            for path, value in m.items()
        ]
        for part, m in maps.items()
    }
    names = [str(value) for value in label] if all(isinstance(v, str) for v in label) else None
    return Listed(root, "VPT's json splits", files, names)


def path_map(root: Root) -> dict[str, str]:
    """Read paths.json beside the json files, if it is there: where images lie that are not where these say.

    A map from a path or the beginning of one (`car_ims/`) to what stands in its place (`cars/car_ims/`).
    """
    if not (root / "paths.json").is_file():
        return {}
    renamed = json.loads(text(root, "paths.json"))
    if not isinstance(renamed, dict) or not all(isinstance(v, str) for v in renamed.values()):
        raise ValueError(f"paths.json of {root} is no map from paths to paths.")
    return renamed


def remap_path(path: str, renamed: Mapping[str, str]) -> str:
    """Return what a path of the json files is called here: by the longest beginning that is mapped."""
    start = max((key for key in renamed if path.startswith(key)), key=len, default="")
    return renamed[start] + path[len(start) :] if start else path


def locate_image(root: Root, path: str, places: Sequence[str]) -> str:
    """Return where an image that the json files name is; raise ValueError with all places where it is nowhere."""
    for place in places:
        if inside(root, place + path).is_file():
            return place + path
    where = " or ".join(str(root.joinpath(*filter(None, (place, path)))) for place in places)
    todo = f"put the images so that {where} exists, or map it in paths.json"
    raise ValueError(f"The json files name {path}, but it is not there: {todo}.")


def open_birds(task: Task, root: Root) -> Listed | None:
    """Return the official split of CUB-200-2011 or NABirds, if their three lists are there; it has no val.

    images.txt: `ID PATH`; image_class_labels.txt: `ID CLASS`, classes ranked by number (NABirds leaves gaps);
    train_test_split.txt: `ID 1` for training.
    """
    within = [place.removesuffix("images").rstrip("/") for place in task.image_folders]
    places = [root.joinpath(*filter(None, (place,))) for place in within]
    root = next((p for p in places if (p / "train_test_split.txt").is_file()), root)
    if not (root / "train_test_split.txt").is_file() or task.official_splits is None:
        return None
    paths, classes = table(root, "images.txt"), table(root, "image_class_labels.txt")
    train = table(root, "train_test_split.txt")
    if not paths.keys() == classes.keys() == train.keys():
        raise ValueError(
            f"The lists of {root} do not name the same images: {len(paths)}, {len(classes)}, {len(train)}."
        )
    label = {value: i for i, value in enumerate(sorted(set(classes.values()), key=int))}
    files: dict[str, list[tuple[str, str, int]]] = {"train": [], "test": []}
    for key, path in paths.items():
        files["train" if train[key] == "1" else "test"].append(
            (path, f"images/{path}", label[classes[key]])
        )
    for rows in files.values():
        require(root, (path for _, path, _ in rows), "images.txt")
    known = table(root, "classes.txt") if (root / "classes.txt").is_file() else {}
    names = [known.get(value, value) for value in label]
    return Listed(root, "CUB-style lists", files, names, "official")


def table(root: Root, name: str) -> dict[str, str]:
    """Read lines `KEY VALUE`."""
    lines = text(root, name).splitlines()
    rows = dict(line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
    if len(rows) != len([line for line in lines if line.strip()]):
        raise ValueError(f"{name} of {root} has lines that are not KEY VALUE, or a key twice.")
    return rows
