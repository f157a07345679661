"""Files of a folder or of a zip archive, read in place.

Nothing is unpacked, so no archive can write a file outside of its folder.
"""

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import stat_result
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from san.data.manifest import ids_digest
from san.errors import DataError, MissingFileError

Root = Path | zipfile.Path
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".bmp",
    ".gif",
    ".webp",
    ".ppm",
    ".tif",
    ".tiff",
)


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
    """

    root: Root
    origin: str
    files: Mapping[str, Sequence[ImageFile]]
    names: Sequence[str] | None = None
    layout: str | None = None
    pixel_scale: int = 1

    @property
    def parts(self) -> Sequence[str]:
        """The splits that were found."""
        return tuple(self.files)

    def describe(self, part: str) -> dict[str, Any]:
        """Say what it is, for the manifest; equal for equal data."""
        lines = [f"{image.id} {image.label}" for image in self.files[part]]
        return {
            "made_by": self.origin,
            "layout": self.layout,
            "lines": ids_digest(lines),
            "stamp": self._stamp,
            "ids": "file names",
        }

    def count(self, part: str) -> int:
        """Return how many images a split has."""
        return len(self.files[part])

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
            yield archive.stat()
            return
        for images in self.files.values():
            for image in images:
                yield self.root.joinpath(image.path).stat()


def open_root(path: Path) -> Root:
    """Return a folder, or the inside of a zip archive.

    Raises MissingFileError where nothing is at `path`, DataError where it is neither of the two.
    """
    path = path.expanduser()
    if path.is_dir():
        return path
    if not path.exists():
        raise MissingFileError(f"{path} does not exist; a folder or a .zip file is allowed.")
    try:
        return zipfile.Path(path)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is not a directory and not a complete zip file ({error}). Fetch it again."
        ) from error


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
            f"'{name}' points out of {root}; paths below it are allowed. "
            "The list is damaged or hostile."
        )
    return root.joinpath(*PurePosixPath(name).parts)


def read_bytes(root: Root, name: str) -> bytes:
    """Return the bytes of a file below `root`; raise DataError, which names it, if that fails."""
    file = inside(root, name)
    try:
        return file.read_bytes()
    except (
        OSError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,  # an encrypted file of an archive
    ) as error:
        raise DataError(f"{name} of {root} cannot be read ({error}).") from error


def read_text(root: Root, name: str) -> str:
    """Return the text of a list below `root`; raise DataError, which names it, if that fails."""
    try:
        # Some editors write a byte order mark, which would become part of the first path.
        return read_bytes(root, name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} of {root} is not a text file ({error.reason}).") from error


def require_images(root: Root, images: Iterable[ImageFile], listed_in: str) -> None:
    """Raise DataError where files that a list names are missing, with the first of them."""
    missing = [image.path for image in images if not inside(root, image.path).is_file()]
    if missing:
        first = ", ".join(missing[:3])
        raise DataError(
            f"{listed_in} names {len(missing)} files that {root} does not have: {first} ..."
        )


def class_folders(root: Root) -> list[str]:
    """Return the names of the folders in `root`, sorted; hidden ones are left out."""
    return sorted(
        path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def images_below(root: Root, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of all image files below `root`, sorted within each folder.

    prefix: what stands before each path. above: the real paths of the folders around `root`.
    Raises DataError where a link leads back to one of them, which would never end.
    """
    here = str(root.resolve()) if isinstance(root, Path) else ""
    if here and here in above:
        raise DataError(
            f"{root} is a link to a folder above it: its images would be read again and again. "
            "Remove it."
        )
    entries: list[Root] = sorted(root.iterdir(), key=lambda path: path.name)
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from images_below(path, f"{prefix}{path.name}/", (*above, here))
        elif _is_image(path.name):
            yield prefix + path.name


def other_files(root: Path) -> Counter[str]:
    """Count the files below `root` that are not images, by suffix; hidden ones are left out."""
    suffixes = Counter[str]()
    for path in root.rglob("*"):
        if path.name.startswith(".") or _is_image(path.name) or not path.is_file():
            continue
        suffixes[path.suffix.lower() or path.name] += 1
    return suffixes


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
