"""Pack a task: images of a source, decoded once, in the form and place that training looks for."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from san.data import pack
from san.data.layout import class_name_mismatch, expected_count, packed_dir
from san.data.prepare.sources import Source
from san.data.resize import resize
from san.data.split import decode_image, read_split
from san.tasks import Suite, Task

CHUNK = 256  # images in memory at a time
Progress = Callable[[Iterable[pack.Example], str, int], Iterable[pack.Example]]


def pack_splits(
    suite: Suite,
    task: Task,
    source: Source,
    root: Path,
    wanted: str,
    side: int,
    force: bool,
    progress: Progress,
) -> list[str]:
    """Pack every split of a task that is not packed from the same source already; return what was done, in words.

    wanted: the resize. force: pack although counts or class names are not the row's; a run on it must be forced, too.
    Raises ValueError that names the image or list that is wrong; splits that are whole stay, the others are not there.
    """
    home = packed_dir(task, root, wanted, side)
    form = home.name
    if not force:
        check_source(task, source)
    done = []
    for part in source.parts:
        about = source.describe(part) | {"form": form}
        old = pack.read_manifest(home / part)
        if (
            old is not None
            and about.items() <= old["source"].items()
            and readable(task, home / part, old)
        ):
            done.append(f"{part}: there already")
            continue
        about |= {"decoder": f"Pillow {PIL.__version__}", "names": source.names}
        examples = progress(
            source.examples(part), f"{task.suite}/{task.name} {part}", source.count(part)
        )
        manifest = pack.write_split(
            home / part,
            transformed(checked(examples, task), task, source.times, form, wanted, side),
            about,
        )
        hardlink_shared_images(suite, task, home, part)
        done.append(
            f"{part}: {manifest['count']} images"
            + (f" instead of {old['source']['made_by']}'s" if old else "")
        )
    return done


def readable(task: Task, folder: Path, manifest: dict[str, Any]) -> bool:
    """Return whether a packed split is what its manifest says."""
    try:
        read_split(folder, int(manifest["count"]), len(task.classes))
    except ValueError:
        return False
    return True


def check_source(task: Task, source: Source) -> None:
    """Raise ValueError where the source names other classes than the row, or a split has not as many images."""
    odd = class_name_mismatch(task, source.names or ())
    if odd:
        raise ValueError(
            f"{odd}. Labels would mean something else. (--force packs it nevertheless.)"
        )
    for part in source.parts:
        found, wanted = source.count(part), expected_count(task, source.describe(part), part)
        if found != wanted:
            raise ValueError(
                f"{task.suite}/{task.name}: {part} has {found} images; {wanted} are expected. The source is not "
                "whole, or another data set. (--force packs it nevertheless.)"
            )


def checked(examples: Iterable[pack.Example], task: Task) -> Iterator[pack.Example]:
    """Pass on examples; raise ValueError at a label that the task does not have."""
    for name, label, image in examples:
        if not 0 <= label < len(task.classes):
            raise ValueError(
                f"{name} of {task.suite}/{task.name} has label {label}; 0..{len(task.classes) - 1} are allowed."
            )
        yield name, label, image


def transformed(
    examples: Iterable[pack.Example], task: Task, times: int, form: str, wanted: str, side: int
) -> Iterator[pack.Example]:
    """Yield examples as they are stored, in order, made in threads on all cores (decoding lets go of the GIL)."""

    def one(example: pack.Example) -> pack.Example:
        name, label, data = example
        image = decode_example(name, data, task) * np.uint8(times)
        return (
            name,
            label,
            data if form == "encoded" else image if form == "native" else resized(image),
        )

    def resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = resize([image], wanted, side)[0]
        return pixels

    examples = iter(examples)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(examples, CHUNK)):
            yield from pool.map(one, chunk)


def decode_example(name: str, data: bytes | NDArray[np.uint8], task: Task) -> NDArray[np.uint8]:
    """Decode an image; raise ValueError that names it where it cannot be, or has not the size that the row states."""
    assert isinstance(data, bytes)
    try:
        image = decode_image(data)
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # PIL's ways to refuse a file
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(
            f"Image {name} of {task.suite}/{task.name} cannot be decoded ({reason})."
        ) from error
    native = task.native_size
    if native and image.shape != (native, native, 3):
        height, width = image.shape[:2]
        raise ValueError(
            f"Image {name} of {task.suite}/{task.name} is {height}x{width}; {native}x{native} is expected."
        )
    return image


def hardlink_shared_images(suite: Suite, task: Task, home: Path, part: str) -> None:
    """Keep one file of the images that another task of the suite has, too (clevr, dsprites, smallnorb)."""
    builder = task.tfds and task.tfds.builder
    for other in suite.tasks.values():
        if other is not task and builder and other.tfds and other.tfds.builder == builder:
            pack.hardlink_images(home / part, home.parents[1] / other.name / home.name / part)
