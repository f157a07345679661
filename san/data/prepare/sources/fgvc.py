"""The fine-grained sets: VPT's json splits over the official images, or the official bird layout.

VPT (KMnP/vpt 4410440) reads `{train,val,test}.json`, path -> class value, and ranks the values of
each file. Here the rank is over the union of the three, so that a class which one split lacks does
not shift the labels of the others.
"""

from collections.abc import Mapping, Sequence

from san.data.prepare.sources.files import (
    FileList,
    ImageFile,
    Root,
    check_length,
    has_file,
    join,
    read_text,
    require_images,
)
from san.errors import DataError, InvalidValueError
from san.runtime.files import parse_json
from san.tasks import Task

JSON = {
    "train": "train.json",
    "val": "val.json",
    "test": "test.json",
}
PATH_MAP = "paths.json"

ClassValue = int | str


def open_json(task: Task, root: Root) -> FileList | None:
    """Return VPT's splits, if `root` or a folder of the task's name in it has the three files."""
    for folder in (root, root / task.name):
        if all((folder / name).exists() for name in JSON.values()):
            return _read_splits(task, folder)
    return None


def _read_splits(task: Task, root: Root) -> FileList:
    """Read VPT's splits; raise DataError where a file is damaged or names a missing image."""
    splits = {}
    for part, name in JSON.items():
        splits[part] = _read_split(task, root, name)
    labels = _rank_classes(root, splits)
    places = ["", *(f"{place}/" for place in task.image_folders)]
    path_map = _read_path_map(task, root)

    files: dict[str, list[ImageFile]] = {}
    for part, classes in splits.items():
        files[part] = []
        for name, value in classes.items():
            path = _locate_image(root, _remap_path(name, path_map), places)
            files[part].append(ImageFile(name, path, labels[value]))

    class_names = [value for value in labels if isinstance(value, str)]
    return FileList(
        root,
        "VPT's json splits",
        files,
        names=class_names or None,
    )


def _read_split(task: Task, root: Root, name: str) -> dict[str, ClassValue]:
    """Read a map from image paths to numbers or names of classes."""
    text = read_text(task, root, name)
    try:
        classes: dict[str, ClassValue] = parse_json(text, dict[str, ClassValue])
        if not classes:
            raise InvalidValueError("it is empty")
    except InvalidValueError as error:
        raise DataError(
            f"{name} of {root} is not a map from image paths to classes ({error})."
        ) from error
    check_length(task, root, name, len(classes))
    return classes


def _rank_classes(
    root: Root, splits: Mapping[str, Mapping[str, ClassValue]]
) -> dict[ClassValue, int]:
    """Return a label for each class value, in ascending order of the values of all splits."""
    values: set[ClassValue] = set()
    for classes in splits.values():
        values.update(classes.values())
    if len({type(value) for value in values}) != 1:
        raise DataError(
            f"The json files of {root} mix kinds of class values; "
            "all numbers or all names are allowed."
        )
    # Either all are numbers or all are names, which mypy cannot know.
    ascending = sorted(values)  # type: ignore[type-var]
    return {value: label for label, value in enumerate(ascending)}


def _read_path_map(task: Task, root: Root) -> dict[str, str]:
    """Read paths.json beside the json files, if it is there: where images really are.

    It maps a path or the beginning of one (`car_ims/`) to what replaces it (`cars/car_ims/`).
    """
    if not (root / PATH_MAP).exists():
        return {}
    text = read_text(task, root, PATH_MAP)
    try:
        path_map: dict[str, str] = parse_json(text, dict[str, str])
    except InvalidValueError as error:
        raise DataError(
            f"{PATH_MAP} of {root} is not a map from paths to paths ({error})."
        ) from error
    check_length(task, root, PATH_MAP, len(path_map))
    return path_map


def _remap_path(path: str, path_map: Mapping[str, str]) -> str:
    """Return a path of the json files with the longest beginning that is mapped replaced."""
    for length in range(len(path), 0, -1):
        start = path[:length]
        if start in path_map:
            return path_map[start] + path[length:]
    return path


def _locate_image(root: Root, path: str, places: Sequence[str]) -> str:
    """Return where the image is, below the first of `places` that has it.

    Raises DataError, which lists all places that were tried, where none has it.
    """
    for place in places:
        if has_file(root, place + path):
            return place + path
    shown = path[:200]
    tried = " or ".join(str(join(root, place, shown)) for place in places)
    raise DataError(
        f"The json files name {shown}, but it is not there: "
        f"put the images so that {tried} exists, or map it in {PATH_MAP}."
    )


def open_birds(task: Task, root: Root) -> FileList | None:
    """Return the official split of CUB-200-2011 or NABirds, if their three lists are there.

    images.txt: `ID PATH`. image_class_labels.txt: `ID CLASS`, classes ranked by number (NABirds
    leaves gaps). train_test_split.txt: `ID 1` for training. There is no val.
    """
    folder = _find_bird_lists(task, root)
    if folder is None or task.official_splits is None:
        return None
    paths = _read_table(task, folder, "images.txt")
    classes = _read_table(task, folder, "image_class_labels.txt")
    is_training = _read_table(task, folder, "train_test_split.txt")
    if not paths.keys() == classes.keys() == is_training.keys():
        counts = f"{len(paths)}, {len(classes)}, {len(is_training)}"
        raise DataError(f"The lists of {folder} do not name the same images: {counts}.")

    for number in classes.values():
        if not number.isdecimal() or len(number) > 9:
            raise DataError(
                f"image_class_labels.txt of {folder} has a class '{number[:100]}'; "
                "numbers are allowed."
            )
    numbers = sorted(set(classes.values()), key=int)
    labels = {number: label for label, number in enumerate(numbers)}
    files: dict[str, list[ImageFile]] = {"train": [], "test": []}
    for key, path in paths.items():
        part = "train" if is_training[key] == "1" else "test"
        image = ImageFile(path, f"images/{path}", labels[classes[key]])
        files[part].append(image)
    for images in files.values():
        require_images(folder, images, "images.txt")
    return FileList(
        folder,
        "CUB-style lists",
        files,
        names=_bird_names(task, folder, numbers),
        layout="official",
    )


def _find_bird_lists(task: Task, root: Root) -> Root | None:
    """Return the folder that has the official lists: beside that of the images, or `root`."""
    for place in task.image_folders:
        folder = join(root, place.removesuffix("images").rstrip("/"))
        if (folder / "train_test_split.txt").exists():
            return folder
    return root if (root / "train_test_split.txt").exists() else None


def _bird_names(task: Task, folder: Root, numbers: Sequence[str]) -> list[str]:
    """Return the names of classes, or their numbers where classes.txt does not have them."""
    known = {}
    if (folder / "classes.txt").exists():
        known = _read_table(task, folder, "classes.txt")
    return [known.get(number, number) for number in numbers]


def _read_table(task: Task, root: Root, name: str) -> dict[str, str]:
    """Read lines `KEY VALUE`; raise DataError where a line is not so, or a key stands twice."""
    lines = [line for line in read_text(task, root, name).splitlines() if line.strip()]
    check_length(task, root, name, len(lines))
    rows = {}
    for line in lines:
        words = line.split(maxsplit=1)
        if len(words) == 2:
            rows[words[0]] = words[1]
    if len(rows) != len(lines):
        raise DataError(f"{name} of {root} has lines that are not KEY VALUE, or a key twice.")
    return rows
