"""The images that are to be answered for, with their labels where these are there."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from san.data.images import SUFFIXES
from san.data.layout import folder_name
from san.errors import DataError, FileAccessError, MissingFileError, choose
from san.runtime import files
from san.runtime.formatting import printable_line
from san.runtime.paths import printable_path


@dataclass(frozen=True)
class ImagePath:
    """An image file. label: the number of its class, None where it is not known."""

    path: Path
    label: int | None = None

    @property
    def name(self) -> str:
        """The path as a table may hold it: bytes that are not UTF-8 are escaped."""
        return _as_text(self.path)


@dataclass(frozen=True)
class FoundImages:
    """Image files. left_out: how many files of folders are of no format that is read, by suffix."""

    images: tuple[ImagePath, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def unlabelled(self) -> list[ImagePath]:
        """Those whose label is not known."""
        return [image for image in self.images if image.label is None]

    @property
    def has_labels(self) -> bool:
        """Whether the label of any is known."""
        return len(self.unlabelled) < len(self.images)


def find_images(paths: Sequence[Path], classes: Sequence[str]) -> FoundImages:
    """Return the files as given, and all image files of folders, each folder sorted.

    The label of a file in `FOLDER/CLASS/` is CLASS if that is the name of a class. Hidden files are
    left out. Raises MissingFileError where nothing is at a path, DataError where there is no image,
    FileAccessError where a folder cannot be read.
    """
    labels = {folder_name(name): label for label, name in enumerate(classes)}
    labels |= {name: label for label, name in enumerate(classes)}
    found: dict[Path, int | None] = {}
    left_out = Counter[str]()
    for path in paths:
        if not path.exists():
            raise MissingFileError(f"{path} does not exist; image files and folders are allowed.")
        if not path.is_dir():
            found.setdefault(path, None)
            continue
        for file in _files_below(path):
            if file.name.lower().endswith(SUFFIXES):
                found.setdefault(file, _label_of(file.relative_to(path), labels))
            else:
                left_out[file.suffix.lower() or file.name] += 1
    if not found:
        others = f" (there are {dict(left_out)})" if left_out else ""
        raise DataError(
            f"{', '.join(map(str, paths))}: no image files{others}. Read are {' '.join(SUFFIXES)}."
        )
    images = [ImagePath(path, label) for path, label in found.items()]
    return FoundImages(tuple(images), left_out)


def with_labels(found: FoundImages, file: Path, classes: Sequence[str]) -> FoundImages:
    """Return the same images with the labels of a CSV file that has the columns `file` and `class`.

    Its files are named as on the command line, or from the folder that it is in. Raises DataError
    where it is no CSV, has other columns, gives a file two classes or names none of the images,
    UnknownNameError on a class that the adapter does not have.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    given: dict[str, int] = {}
    for path, name in _rows_of_labels(file):
        label = numbers[choose(printable_line(name), numbers, f"class in {file}")]
        for named in (_as_text(Path(path)), _as_text(file.parent / path)):
            if given.setdefault(named, label) != label:
                raise DataError(
                    f"{file} has two classes for {named}: {classes[given[named]]} and "
                    f"{classes[label]}. Leave one of its lines."
                )
    images = []
    for image in found.images:
        images.append(replace(image, label=given.get(image.name)))
    labelled = replace(found, images=tuple(images))
    if not labelled.has_labels:
        raise DataError(
            f"{file} names none of the {len(images)} images (the first is {images[0].name})."
        )
    return labelled


def _rows_of_labels(file: Path) -> list[tuple[str, str]]:
    """Return file and class of each row."""
    text = files.read_text(file).removeprefix("\ufeff")  # which Excel begins a file with
    rows = csv.DictReader(io.StringIO(text), restval="")
    try:
        columns = rows.fieldnames or ()
        if not {"file", "class"} <= set(columns):
            raise DataError(
                f"{file} has the columns {list(columns)}; `file` and `class` are required, with "
                "commas between them."
            )
        return [(row["file"], row["class"]) for row in rows]
    except csv.Error as error:
        raise DataError(
            f"{file} cannot be read as CSV, line {rows.line_num}: {error}. Save it with commas, "
            "and quotes around what has one inside."
        ) from error


def _label_of(path: Path, labels: Mapping[str, int]) -> int | None:
    """Return the label of a file of a folder by the folder's own folder that it is in."""
    first, *rest = path.parts
    return labels.get(_as_text(first)) if rest else None


def _as_text(path: str | Path) -> str:
    """Return a path, or its part, as classes are written in records and adapters."""
    return printable_line(printable_path(str(path)))


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its folders, sorted; each folder is read once."""
    seen: set[str] = set()
    for place, names, file_names in os.walk(folder, onerror=_refuse, followlinks=True):
        here = os.path.realpath(place)
        if here in seen:
            names.clear()
            continue
        seen.add(here)
        names[:] = sorted((n for n in names if not n.startswith(".")), key=os.fsencode)
        for name in sorted(file_names, key=os.fsencode):
            if not name.startswith("."):
                yield Path(place, name)


def _refuse(error: OSError) -> None:
    raise FileAccessError(f"{error.filename} cannot be read ({error.strerror}).") from error
