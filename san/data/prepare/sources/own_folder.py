"""A user's own images: `train/CLASS/` with `val/` and `test/` beside it, or class folders alone."""

import hashlib
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from san.data.images import SUFFIXES
from san.data.prepare.sources.files import (
    FileList,
    ImageFile,
    class_folders,
    other_files,
)
from san.data.prepare.sources.folders import read_classes
from san.errors import DataError
from san.runtime.paths import printable_path

# Words that say which split a folder is, in lower case, and words that say nothing beside them:
# seg_train, Training Images, test-set and val2017 are splits.
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_FILLERS = {
    *("data", "dataset", "folder", "set", "split", "seg"),
    *("image", "images", "img", "imgs", "photo", "photos", "pic", "pics", "picture", "pictures"),
}
_ALLOWED = "train/CLASS/*.jpg, with val/ and test/ beside it, or CLASS/*.jpg is allowed"
# The shares of the training images of each class that become a split which a user does not have.
TEST_SHARE = 0.2
VAL_SHARE = 0.1
_NAMED = 5  # classes in a message
log = logging.getLogger(__name__)


def read_own_folder(root: Path) -> FileList:
    """Return the splits of a user's folder.

    A `val/` without `test/` is the test split. A split that is not there is taken from the training
    images of each class, by a hash of their paths: the same on every machine. Without enough images
    for it there is no val. Says which classes have no test image. Raises DataError where there are
    not two classes, one of them has no images, or a split has other classes.
    """
    places = _split_folders(root)
    train = places.get("train", "")
    base = root / train
    names = class_folders(base)
    if len(names) < 2:
        listed = [printable_path(name) for name in names]
        inside = f" Is it data.root={base / names[0]}?" if names else ""
        raise DataError(f"{base} has {len(names)} class folders {listed}; {_ALLOWED}.{inside}")
    labels = {name: label for label, name in enumerate(names)}
    images = read_classes(root, train, labels)
    _check_no_empty_class(base, names, images)
    _warn_of_stray_images(base)
    files = _draw_splits(images, given=places)
    for part, place in places.items():
        if part != "train":
            files[part] = _read_given_split(root, place, base, labels)
    if not files["test"]:
        raise DataError(
            f"{root} has too few images: none for test. Every class with three of them or more "
            "gives one; or make a folder test/ beside train/."
        )
    _warn_of_untested(root, names, files["test"])
    return FileList(
        root,
        "image folders",
        {part: found for part, found in files.items() if found},
        names=[printable_path(name) for name in names],
        as_shown=True,
    )


def _read_given_split(
    root: Path, place: str, base: Path, labels: Mapping[str, int]
) -> list[ImageFile]:
    """Return the images of a split that the user has; raise DataError at a class without label."""
    found = class_folders(root / place)
    unknown = sorted(set(found) - labels.keys())
    if unknown:
        listed = [printable_path(name) for name in unknown[:_NAMED]]
        raise DataError(
            f"{root / place} has classes that {base} does not have: {listed}. "
            "Give it the same class folders, or leave them out of it."
        )
    images = read_classes(root, place, {name: labels[name] for name in found})
    if not images:
        raise DataError(
            f"{root / place} has no images in class folders; {_ALLOWED}. Images whose class is not "
            f"known cannot be tested on: give data.root={base}, and a test split is drawn."
        )
    return images


def _check_no_empty_class(base: Path, names: Sequence[str], images: Sequence[ImageFile]) -> None:
    """Raise DataError, which says what is there instead, where a class folder has no images."""
    labels = {image.label for image in images}
    empty = [name for label, name in enumerate(names) if label not in labels]
    if not empty:
        return
    others = other_files(base / empty[0])
    instead = f" ({empty[0]} has {dict(sorted(others.items()))})" if others else ""
    raise DataError(
        f"{base} has no images of {_list_names(empty)} in a format that is read{instead}. "
        "Put some there, or give data.root=FOLDER of a folder that holds class folders alone."
    )


def _warn_of_stray_images(base: Path) -> None:
    strays = [path for path in base.iterdir() if path.name.lower().endswith(SUFFIXES)]
    if strays:
        log.warning("%s: %d images beside the class folders are not read.", base, len(strays))


def _warn_of_untested(root: Path, names: Sequence[str], test: Sequence[ImageFile]) -> None:
    tested = {image.label for image in test}
    untested = [name for label, name in enumerate(names) if label not in tested]
    if untested:
        log.warning(
            "%s: no test images of %s: the accuracy says nothing of them.",
            root,
            _list_names(untested),
        )


def _list_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return printable_path(", ".join(names[:_NAMED]) + more)


def _split_folders(root: Path) -> dict[str, str]:
    """Return the folders of `root` that are splits, by split; none if these are class folders.

    They are splits only if one for `train` has class folders. Raises DataError where two folders
    are the same split, one beside the splits is not a split, or class folders look like splits.
    """
    names = class_folders(root)
    found: dict[str, str] = {}
    others = []
    for name in names:
        part = _split_called(name)
        if part is None:
            others.append(name)
        elif part in found:
            raise DataError(
                f"{root} has {found[part]} and {name}; one folder for {part} is allowed. "
                "Join them, or move one away."
            )
        else:
            found[part] = name
    places = {part: _innermost(root, name, part) for part, name in found.items()}
    if "train" not in places or not class_folders(root / places["train"]):
        _refuse_splits_as_classes(root, names, places)
        return {}
    unlabelled = [name for name in others if not class_folders(root / name)]
    if unlabelled:
        log.warning("%s: not read, it has no class folders: %s", root, _list_names(unlabelled))
    others = [name for name in others if name not in unlabelled]
    if others:
        raise DataError(
            f"{root} has {_list_names(others)} beside {found['train']}; only val and test may be "
            f"there. Move {'it' if len(others) == 1 else 'them'} elsewhere."
        )
    if "val" in places and "test" not in places:
        places["test"] = places.pop("val")
        log.info(
            "%s has no test split: %s is taken as that, and val is drawn from %s.",
            root,
            places["test"],
            places["train"],
        )
    return places


def _innermost(root: Path, place: str, part: str) -> str:
    """Return the folder with the classes of a split: some archives have `seg_train/seg_train`."""
    while True:
        names = class_folders(root / place)
        if len(names) != 1 or _split_called(names[0]) != part:
            return place
        place = f"{place}/{names[0]}"


def _refuse_splits_as_classes(root: Path, names: Sequence[str], places: Mapping[str, str]) -> None:
    """Raise DataError where folders that are read as classes are rather splits.

    So they are where names speak of two splits, a split other than train has class folders, or
    folders of the same names are in several.
    """
    spoken_of = {part for name in names for part in _splits_in(name)}
    nested = [place for place in places.values() if class_folders(root / place)]
    shared = _shared_by_several(root, names)
    if shared and all(_split_called(name) for name in shared):
        raise DataError(
            f"{root} has {_list_names(sorted(shared))} inside of {_list_names(names)}; {_ALLOWED}. "
            "Turn the two levels of folders round."
        )
    if len(spoken_of) < 2 and not nested and not shared:
        return
    raise DataError(
        f"{root} has {_list_names(names)}, which look like splits and not like classes; "
        f"{_ALLOWED}. If they are classes, move them into a folder train."
    )


def _shared_by_several(root: Path, names: Sequence[str]) -> set[str]:
    """Return the names of folders that are in several of the folders `names`."""
    seen: set[str] = set()
    shared: set[str] = set()
    for name in names:
        inner = set(class_folders(root / name))
        shared |= seen & inner
        seen |= inner
    return shared


def _splits_in(name: str) -> set[str]:
    """Return the splits of which a folder's name speaks, whatever else it says."""
    words = _words(name)
    return {part for part, known in _SPLIT_WORDS.items() if words & set(known)}


def _split_called(name: str) -> str | None:
    """Return the split that a folder's name means, in any case of letters."""
    parts = _splits_in(name)
    rest = _words(name) - _FILLERS
    return parts.pop() if len(parts) == 1 and len(rest) == 1 else None


def _words(name: str) -> set[str]:
    """Return the words of a name: of `Train-Set 2017`, `TrainSet` and `trainset` `train` alone."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.split(r"[\W\d_]+", apart.lower())
    return {word.removesuffix("set") for word in words} - {""}


def _draw_splits(images: Sequence[ImageFile], given: Collection[str]) -> dict[str, list[ImageFile]]:
    """Sort the training images into the splits that are not given, a share of each class.

    Each class keeps training images. Unlike with a random draw, most images stay in their split
    when others are added.
    """
    files: dict[str, list[ImageFile]] = {"train": [], "val": [], "test": []}
    by_class: dict[int, list[ImageFile]] = {}
    for image in images:
        by_class.setdefault(image.label, []).append(image)
    for members in by_class.values():
        shares = {"test": TEST_SHARE, "val": VAL_SHARE}
        drawn = sorted(members, key=_draw_order)
        start = 0
        for part, share in shares.items():
            count = 0 if part in given else int(share * len(members) + 0.5)
            files[part] += sorted(drawn[start : start + count])
            start += count
        files["train"] += sorted(drawn[start:])
    return files


def _draw_order(image: ImageFile) -> str:
    """Return what orders images for the draw: a hash of the path."""
    # The bytes of a name are the same in every locale, its characters are not.
    return hashlib.md5(os.fsencode(image.path), usedforsecurity=False).hexdigest()
