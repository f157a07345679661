"""Files of a folder or of a zip archive, read in place: nothing is unpacked, so nothing can climb out."""

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from san.data.pack import ids_digest

Root = Path | zipfile.Path
IMAGES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff")


def open_root(path: Path) -> Root:
    """Return a folder, or the inside of a zip; raise FileNotFoundError or ValueError where it is neither."""
    path = path.expanduser()
    if path.is_dir():
        return path
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; a folder or a .zip file is allowed.")
    try:
        return zipfile.Path(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is no folder and no whole zip file ({error}). Fetch it again."
        ) from error


def inside(root: Root, name: str) -> Root:
    """Return `root / name`; raise ValueError where a list or archive names something outside of `root`."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:/", str(path)):
        raise ValueError(
            f"'{name}' points out of {root}; paths below it are allowed. The list is damaged or hostile."
        )
    return root.joinpath(*PurePosixPath(name).parts)


def read(root: Root, name: str) -> bytes:
    """Return the bytes of a file below `root`; raise ValueError that names it where they cannot be had."""
    try:
        return inside(root, name).read_bytes()
    except (
        OSError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
    ) as error:  # RuntimeError: encrypted
        raise ValueError(f"{name} of {root} cannot be read ({error}).") from error


def text(root: Root, name: str) -> str:
    """Return the text of a list below `root`; raise ValueError that names it where it is none."""
    try:
        return read(root, name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} of {root} is no text ({error.reason}).") from error


def require(root: Root, names: Iterable[str], listed_in: str) -> None:
    """Raise ValueError with the first names and their number where files that a list names are missing."""
    missing = [name for name in names if not inside(root, name).is_file()]
    if missing:
        first = ", ".join(missing[:3])
        raise ValueError(
            f"{listed_in} names {len(missing)} files that {root} does not have: {first} ..."
        )


def class_folders(root: Root) -> list[str]:
    """Return the names of the folders in `root`, sorted, hidden ones left out."""
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def images_below(root: Root, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of all image files below `root`, relative to it, sorted within folders; no link may loop."""
    here = str(root.resolve()) if isinstance(root, Path) else ""
    if here and here in above:
        raise ValueError(
            f"{root} is a link to a folder above it: its images would be read again and again. Remove it."
        )
    entries: list[Root] = sorted(root.iterdir(), key=lambda p: p.name)
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from images_below(path, f"{prefix}{path.name}/", (*above, here))
        elif path.name.lower().endswith(IMAGES):
            yield prefix + path.name


def other_files(root: Path) -> Counter[str]:
    """Count the files below `root` that are no images as we know them, by suffix; hidden ones are left out."""
    paths = (p for p in root.rglob("*") if not p.name.startswith(".") and p.is_file())
    return Counter(p.suffix.lower() or p.name for p in paths if not p.name.lower().endswith(IMAGES))


@dataclass(frozen=True)
class Listed:
    """A source whose images are files that are listed.

    files: for each split id, path below `root` and label. layout: which of the row's sizes hold, where not the usual.
    """

    root: Root
    made_by: str
    files: Mapping[str, Sequence[tuple[str, str, int]]]
    names: Sequence[str] | None = None
    layout: str | None = None
    times: int = 1

    @cached_property
    def stamp(self) -> str:
        """What changes when a file does: the sizes and times of all of them, or of the archive."""
        if isinstance(self.root, zipfile.Path):
            stats = [Path(str(self.root.root.filename)).stat()]
        else:
            stats = [
                self.root.joinpath(path).stat()
                for rows in self.files.values()
                for _, path, _ in rows
            ]
        return ids_digest([f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats])

    @property
    def parts(self) -> Sequence[str]:
        """The splits that were found."""
        return tuple(self.files)

    def describe(self, part: str) -> dict[str, Any]:
        """Say what it is, for the manifest."""
        lines = ids_digest([f"{name} {label}" for name, _, label in self.files[part]])
        return {
            "made_by": self.made_by,
            "layout": self.layout,
            "lines": lines,
            "stamp": self.stamp,
            "ids": "file names",
        }

    def count(self, part: str) -> int:
        """Return how many images a split has."""
        return len(self.files[part])

    def examples(self, part: str) -> Iterator[tuple[str, int, bytes]]:
        """Yield id, label and the file's bytes."""
        for name, path, label in self.files[part]:
            yield name, label, read(self.root, path)
