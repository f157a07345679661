"""Pack a task: images of a source, decoded once, in the form and place that training looks for."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from san.data import pack
from san.data.images import decode_image
from san.data.layout import class_name_mismatch, expected_count, packed_dir
from san.data.manifest import Manifest, load_manifest, no_permission
from san.data.overlap import describe_shared_names
from san.data.pack import Example
from san.data.packed_task import PackedTask
from san.data.prepare.sources import Source
from san.data.resize import resize as resize_images
from san.data.split import open_split
from san.errors import DataError
from san.tasks import Suite, Task

# Of the files of images in memory at a time.
CHUNK = 256
CHUNK_BYTES = 2**28

# Called with examples, a title and their number, it yields them and shows how far it is.
Progress = Callable[[Iterable[Example], str, int], Iterable[Example]]


def no_progress(examples: Iterable[Example], title: str, total: int) -> Iterable[Example]:
    """Show nothing."""
    return examples


def pack_splits(
    suite: Suite,
    task: Task,
    source: Source,
    root: Path,
    resize: str,
    image_size: int,
    force: bool = False,
    progress: Progress = no_progress,
) -> list[str]:
    """Pack every split of a task that is not packed from the same source already.

    force: pack although counts or class names are not the row's, or splits share images; a run on
    it must be forced, too. Returns what was done with each split, in words. Raises DataError, which
    names the image or list that is wrong; the splits that were complete before that stay, but for
    those of this call where images are found to be shared.
    """
    folder = packed_dir(task, root, resize, image_size)
    form = _StoredForm(
        task,
        folder.name,
        resize,
        image_size,
        source.pixel_scale,
        source.as_shown,
    )
    if not force:
        _check_source(task, source)
        _check_lists(task, source)
    done = {}
    new = []
    for part in source.parts:
        about = source.describe(part) | {"form": form.name}
        old = _read_old(folder / part)
        if old is not None and _is_current(task, folder / part, old, about):
            done[part] = "already packed"
            continue
        manifest = _pack_part(source, part, folder, about, form, progress)
        _hardlink_shared_images(suite, task, folder, part)
        new.append(part)
        done[part] = f"{manifest['count']} images"
        if old is not None:
            done[part] += f" instead of {old['source']['made_by']}'s"
    if not force:
        _check_pixels(task, folder, new)
    return [f"{part}: {text}" for part, text in done.items()]


def _pack_part(
    source: Source,
    part: str,
    folder: Path,
    about: dict[str, Any],
    form: "_StoredForm",
    progress: Progress,
) -> Manifest:
    """Write a split of a source, made as `about` says."""
    # Not compared with what is packed: another Pillow is no reason to pack again.
    made_by = about | {
        "decoder": f"Pillow {PIL.__version__}",
        "names": source.names,
    }
    examples = _stored_examples(source, part, form, progress)
    return pack.write_split(folder / part, examples, made_by)


def _read_old(folder: Path) -> Manifest | None:
    """Return the manifest of a packed split, or None where there is none that can be used.

    Raises DataError where it may not be read: what belongs to somebody else is not replaced.
    """
    try:
        return load_manifest(folder)
    except DataError as error:
        if no_permission(error, folder) is not None:
            raise
        return None


def _is_current(task: Task, folder: Path, manifest: Manifest, about: dict[str, Any]) -> bool:
    """Return whether a packed split was made as `about` says, and is undamaged.

    Raises DataError where it may not be read.
    """
    if not about.items() <= manifest["source"].items():
        return False
    count = int(manifest["count"])
    try:
        open_split(folder, manifest, count, len(task.classes))
    except DataError as error:
        if no_permission(error, folder) is not None:
            raise
        return False
    return True


def _check_source(task: Task, source: Source) -> None:
    """Raise DataError where the source names other classes than the row, or lacks images."""
    mismatch = class_name_mismatch(task, source.names or ())
    if mismatch:
        raise DataError(
            f"{mismatch}. Labels would mean something else. (--force packs it nevertheless.)"
        )
    for part in source.parts:
        found = source.count(part)
        expected = expected_count(task, source.describe(part), part)
        if found != expected:
            raise DataError(
                f"{task.suite}/{task.name}: {part} has {found} images; {expected} are expected. "
                "The source is not complete, or another data set. "
                "(--force packs it nevertheless.)"
            )


def _check_lists(task: Task, source: Source) -> None:
    """Raise DataError where two splits of a source name the same image."""
    for names in (source.ids, source.paths):
        shared = describe_shared_names({part: names(part) for part in source.parts})
        if shared:
            raise DataError(_describe_leak(task, shared))


def _check_pixels(task: Task, folder: Path, new: Sequence[str]) -> None:
    """Raise DataError where packed splits share images, and remove those that are `new`."""
    overlaps = PackedTask.open(task, folder).overlaps
    shared = [finding.text for finding in overlaps if finding.good is False]
    if not shared:
        return
    for part in new:
        pack.remove_split(folder / part)
    with contextlib.suppress(OSError):  # splits that were there before stay
        folder.rmdir()
    raise DataError(_describe_leak(task, shared))


def _describe_leak(task: Task, shared: Sequence[str]) -> str:
    return (
        f"{task.suite}/{task.name}: {'; '.join(shared)}. "
        "A model would be tested on what it was trained on. Mend the lists or folders. "
        "(--force packs it nevertheless.)"
    )


def _check_labels(examples: Iterable[Example], task: Task) -> Iterator[Example]:
    """Pass on examples; raise DataError at a label that the task does not have."""
    classes = len(task.classes)
    for name, label, image in examples:
        if not 0 <= label < classes:
            raise DataError(
                f"{name} of {task.suite}/{task.name} has label {label}; "
                f"0..{classes - 1} are allowed."
            )
        yield name, label, image


@dataclass(frozen=True)
class _StoredForm:
    """How the images of a task are stored.

    name: of the form, as `layout.storage_format` says. pixel_scale: the factor for the pixels.
    as_shown: how files are decoded; see `images.decode_image`.
    """

    task: Task
    name: str
    resize: str
    image_size: int
    pixel_scale: int
    as_shown: bool

    def convert_all(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Yield examples as they are stored, in order, made in threads on all cores.

        Decoding and resizing release the GIL.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for chunk in _chunks(examples):
                yield from pool.map(self._convert, chunk)

    def _convert(self, example: Example) -> Example:
        name, label, file = example
        assert isinstance(file, bytes)
        # A file that is stored as it is has to be one that can be decoded, too.
        image = _decode(name, file, self.task, self.as_shown)
        if self.name == "encoded":
            return name, label, file
        scaled = image * np.uint8(self.pixel_scale)  # stays uint8
        if self.name == "native":
            return name, label, scaled
        resized = resize_images([scaled], self.resize, self.image_size)
        return name, label, resized[0]


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield examples in lists that are short, and not large in memory."""
    chunk: list[Example] = []
    size = 0
    for example in examples:
        chunk.append(example)
        size += len(example[2])
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk = []
            size = 0
    if chunk:
        yield chunk


def _stored_examples(
    source: Source, part: str, form: _StoredForm, progress: Progress
) -> Iterator[Example]:
    """Yield the examples of a split as they are stored, and show how far it is."""
    title = f"{form.task.suite}/{form.task.name} {part}"
    examples = progress(
        source.examples(part),
        title,
        source.count(part),
    )
    return form.convert_all(_check_labels(examples, form.task))


def _decode(name: str, file: bytes, task: Task, as_shown: bool) -> NDArray[np.uint8]:
    """Decode an image to uint8 `(H, W, 3)`.

    Raises DataError, which names it, where that fails or it is not of the size that the row states.
    """
    where = f"Image {name} of {task.root or f'{task.suite}/{task.name}'}"
    try:
        image = decode_image(file, as_shown)
    except DataError as error:
        advice = " Mend it, or move it away." if task.root else ""
        raise DataError(f"{where} cannot be decoded ({error}).{advice}") from error
    size = task.native_size
    if size and image.shape != (size, size, 3):
        height, width = image.shape[:2]
        raise DataError(f"{where} is {height}x{width}; {size}x{size} is expected.")
    return image


def _hardlink_shared_images(suite: Suite, task: Task, folder: Path, part: str) -> None:
    """Keep one file of images that two tasks of the suite share (clevr, dsprites, smallnorb)."""
    if task.tfds is None:
        return
    for other in suite.tasks.values():
        if other is task or other.tfds is None:
            continue
        if other.tfds.builder == task.tfds.builder:
            other_folder = folder.parents[1] / other.name / folder.name
            pack.hardlink_images(folder / part, other_folder / part)
