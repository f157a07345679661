"""Files of a folder or of a zip archive, read in place."""

import contextlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import stat_result
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from san.data.images import SUFFIXES
from san.data.manifest import ids_digest
from san.data.prepare.sources.archives import (
    MAX_DEPTH,
    names_below,
    open_archive,
    read_member,
)
from san.errors import DataError, MissingFileError, SanError
from san.runtime import files
from san.runtime.paths import expand_path
from san.tasks import Task

Root = Path | zipfile.Path
# A list may have this many times the images of its task: it may be packed by force.
MOST_TIMES = 2
# Of a list, or more where a task has so many images: JSON of ImageNet takes 40 bytes for each.
LIST_BYTES = 2**24
LINE_BYTES = 64


class ImageFile(NamedTuple):
    """One image of a split. path: below the root of its source."""

    id: str
    path: str
    label: int


@dataclass(frozen=True)
class FileList:
    """A source whose images are files that are listed.

    origin: what it is, in words. files: the images of each split. names: of the classes, in label
    order, where it states them. layout: `official` where the splits are not those of the papers.
    as_shown: whether they are decoded as viewers show them; see `images.decode_image`.
    """

    root: Root
    origin: str
    files: Mapping[str, Sequence[ImageFile]]
    names: Sequence[str] | None = None
    layout: str | None = None
    pixel_scale: int = 1
    as_shown: bool = False

    @property
    def parts(self) -> Sequence[str]:
        """The splits that were found."""
        return tuple(self.files)

    def describe(self, part: str) -> dict[str, Any]:
        """Say what it is, for the manifest; equal for equal data."""
        lines = [f"{image.id} {image.label}" for image in self.files[part]]
        about = {
            "made_by": self.origin,
            "layout": self.layout,
            "lines": ids_digest(lines),
            "stamp": self._stamp,
            "ids": "file names",
        }
        return about | {"as_shown": True} if self.as_shown else about

    def count(self, part: str) -> int:
        """Return how many images a split has."""
        return len(self.files[part])

    def ids(self, part: str) -> Sequence[str]:
        """Return the ids of a split's images."""
        return [image.id for image in self.files[part]]

    def paths(self, part: str) -> Sequence[str]:
        """Return the paths of a split's images, each spelt in one way (no `./`)."""
        return [str(PurePosixPath(image.path)) for image in self.files[part]]

    def examples(self, part: str) -> Iterator[tuple[str, int, bytes]]:
        """Yield id, label and the file's bytes; raise DataError where a file cannot be read."""
        for image in self.files[part]:
            yield image.id, image.label, read_bytes(self.root, image.path)

    @cached_property
    def _stamp(self) -> str:
        """A digest that changes with a file: of the sizes and times of all, or of the archive's."""
        stats = [f"{stat.st_size} {stat.st_mtime_ns}" for stat in self._file_stats()]
        return ids_digest(stats)

    def _file_stats(self) -> Iterator[stat_result]:
        if isinstance(self.root, zipfile.Path):
            archive = Path(str(self.root.root.filename))
            yield _stat(archive)
            return
        for images in self.files.values():
            for image in images:
                yield _stat(self.root.joinpath(image.path))


def _stat(path: Path) -> stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def open_root(path: Path) -> Root:
    """Return a folder, or the inside of a zip archive.

    Raises MissingFileError where nothing is at `path`, FileAccessError where it may not be looked
    at, DataError where it is neither of the two.
    """
    path = expand_path(path)
    if path.is_dir():
        return path
    if not path.exists():
        raise MissingFileError(f"{path} does not exist; a folder or a .zip file is allowed.")
    return open_archive(path)


def join(root: Root, *names: str) -> Root:
    """Return the path of `names` below `root`; empty ones are left out."""
    return root.joinpath(*filter(None, names))


def inside(root: Root, name: str) -> Root:
    """Return `root / name`; raise DataError where that is outside of `root`."""
    # Lists made on Windows; `..` must not hide behind its separators.
    path = PurePosixPath(name.replace("\\", "/"))
    has_drive = re.match(r"[A-Za-z]:/", str(path)) is not None
    if path.is_absolute() or has_drive or ".." in path.parts:
        raise DataError(
            f"'{name[:200]}' points out of {root}; paths below it are allowed. "
            "The list is damaged or hostile."
        )
    return root.joinpath(*PurePosixPath(name).parts)


def has_file(root: Root, name: str) -> bool:
    """Return whether `root` has a file; raise DataError where the name points out of it."""
    try:
        return inside(root, name).is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def read_bytes(root: Root, name: str, limit: int = files.MAX_BYTES) -> bytes:
    """Return the bytes of a file below `root`; raise DataError, which names it, if that fails.

    limit: of its bytes.
    """
    file = inside(root, name)
    try:
        if isinstance(file, zipfile.Path):
            return read_member(file, limit)
        return files.read_bytes(file, limit)
    except SanError as error:
        reason = str(error).rstrip(".")
        raise DataError(f"{name} of {root} cannot be read ({reason}).") from error


def read_text(task: Task, root: Root, name: str) -> str:
    """Return the text of a task's list below `root`.

    Raises DataError, which names it, if that fails, or it is too long for a list of the task.
    """
    limit = max(LIST_BYTES, LINE_BYTES * _count_images(task))
    try:
        # Some editors write a byte order mark, which would become part of the first path.
        return read_bytes(root, name, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} of {root} is not a text file ({error.reason}).") from error


def check_length(task: Task, root: Root, name: str, count: int) -> None:
    """Raise DataError where a list has more entries than are looked up, one by one, for a task."""
    most = MOST_TIMES * _count_images(task)
    if count > most:
        raise DataError(
            f"{name} of {root} has {count} entries; {task.suite}/{task.name} has "
            f"{_count_images(task)} images, and lists of at most {most} are read. "
            "Give the list of this task."
        )


def _count_images(task: Task) -> int:
    return sum(task.splits.values())


def require_images(root: Root, images: Iterable[ImageFile], listed_in: str) -> None:
    """Raise DataError where files that a list names are missing, with the first of them."""
    missing = [image.path for image in images if not has_file(root, image.path)]
    if missing:
        first = ", ".join(path[:100] for path in missing[:3])
        raise DataError(
            f"{listed_in} names {len(missing)} files that {root} does not have: {first} ..."
        )


def class_folders(root: Root) -> list[str]:
    """Return the names of the folders in `root`, sorted; hidden ones are left out."""
    if isinstance(root, zipfile.Path):
        names = {name.partition("/")[0] for name in names_below(root) if "/" in name}
    else:
        names = {path.name for path in _list_folder(root) if path.is_dir()}
    # macOS writes its own folder into archives.
    return sorted(name for name in names if not name.startswith((".", "__MACOSX")))


def images_by_folder(root: Root, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the paths, below `root`, of all images in some of its folders.

    They are sorted within each folder; hidden files and folders are left out. Raises DataError
    where a folder is reached twice, by a link, or lies too deep.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    if isinstance(root, zipfile.Path):
        # Once over all members of the archive, which is a list, and not once for each folder.
        for path in _images_of_archive(root):
            name, separator, _ = path.partition("/")
            if separator and name in found:
                found[name].append(path)
    else:
        for name, paths in found.items():
            paths.extend(f"{name}/{path}" for path in _images_of_folder(root / name, (), set()))
    return found


def _images_of_archive(root: zipfile.Path) -> Iterator[str]:
    """Yield the paths of all image files below `root`; goes over all members of the archive."""
    for parts in sorted(name.split("/") for name in names_below(root)):
        is_hidden = any(part.startswith(".") for part in parts)
        if not is_hidden and _is_image(parts[-1]):
            yield "/".join(parts)


def _images_of_folder(root: Path, above: tuple[str, ...], seen: set[str]) -> Iterator[str]:
    """Yield the paths of all image files below `root`.

    above: the real paths of the folders around `root`. seen: those of all that were read.
    """
    here = str(root.resolve())
    if here in seen:
        what = "a folder above it" if here in above else f"{here}, which is below it, too"
        raise DataError(
            f"{root} is a link to {what}: its images would be read again and again. Move it away."
        )
    if len(above) > MAX_DEPTH:
        raise DataError(f"{root} is more than {MAX_DEPTH} folders deep. Move its images up.")
    seen.add(here)
    for path in sorted(_list_folder(root), key=lambda path: path.name):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            for name in _images_of_folder(path, (*above, here), seen):
                yield f"{path.name}/{name}"
        elif _is_image(path.name):
            yield path.name


def _list_folder(root: Path) -> list[Path]:
    """Return what is in a folder; raise DataError where it cannot be read."""
    try:
        return list(root.iterdir())
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}).") from error


def other_files(root: Path) -> Counter[str]:
    """Count the files below `root` that are not images, by suffix; hidden ones are left out."""
    suffixes = Counter[str]()
    folders = [str(root)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith(".") or _is_image(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file():
                    suffixes[Path(entry.name).suffix.lower() or entry.name] += 1
    return suffixes


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
