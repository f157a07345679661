"""The packed splits that a run asks for, prepared on the spot where they can be."""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from san.data.layout import packed_bytes, packed_dir
from san.data.packed_task import PackedTask
from san.data.prepare import demo
from san.data.prepare.pack_task import pack_splits
from san.data.prepare.sources import Source
from san.data.prepare.sources.files import other_files
from san.data.prepare.sources.own_folder import read_own_folder
from san.data.split import Split
from san.errors import (
    DataError,
    InvalidValueError,
    MissingFileError,
    NotPreparedError,
    UnknownNameError,
)
from san.installation import IS_CHECKOUT, command
from san.runtime.paths import expand_path, folder_key
from san.schema import check_value
from san.tasks import OWN_IMAGES, Suite, Task, load_suite

_TASK_NAME = re.compile(r"[\w-][\w. -]*")
log = logging.getLogger(__name__)


def load_split(
    suite: Suite,
    task: Task,
    split: str,
    root: Path,
    resize: str,
    image_size: int,
    force: bool = False,
) -> Split:
    """Return a split of a task (`train`, `val`, `test`, or a sum such as `train+val`).

    root, resize, image_size: as in `open_task`. force: accept data that is not the benchmark's;
    the `problems` of the split then say why. Raises UnknownNameError on an unknown split,
    NotPreparedError where the task is not prepared, DataError where its data is not what it
    should be.
    """
    task.parts(split)
    return usable_split(open_task(suite, task, root, resize, image_size), split, force)


def usable_split(packed: PackedTask, split: str, force: bool = False) -> Split:
    """Return a split of an open task; see `load_split`."""
    found = packed.split(split)
    if found.problems and not force:
        mend = "Prepare it again from the right source"
        if packed.task.root is not None:
            mend = f"Leave one of each two in {packed.task.root}"
        raise DataError(
            f"{'; '.join(found.problems)}. {mend}; "
            "allow_unverified_data=true trains nevertheless, and the record and tables say so."
        )
    return found


def unused_val(packed: PackedTask, names: Sequence[str], used: Sequence[Split]) -> Split | None:
    """Return the val split of a task where a run leaves it alone, or None.

    names: of the splits that the run trains on and evaluates; used: those. A val that is damaged,
    or less what it should be than they are, is left out: nothing depends on it.
    """
    taken = [part for name in names for part in packed.parts(name)]
    if "val" not in packed.task.splits or "val" in taken:
        return None
    try:
        val = packed.split("val")
    except UnknownNameError:  # the official layout has none
        return None
    except DataError as error:
        log.warning("The val split is not scored: %s", error)
        return None
    known = [problem for split in used for problem in split.problems]
    more = [problem for problem in val.problems if problem not in known]
    if more:
        log.warning("The val split is not scored: %s", "; ".join(more))
        return None
    return val


def open_task(suite: Suite, task: Task, root: Path, resize: str, image_size: int) -> PackedTask:
    """Return a task's packed splits below `root`.

    resize, image_size: the model's input; a task packed for another input is not used. Tasks that
    are drawn, and a user's folder, are packed now. Raises NotPreparedError, which says what to run,
    where the task is not prepared, FileAccessError where `root` may not be looked at, and DataError
    where its splits come from different sources.
    """
    root = expand_path(root)
    folder = packed_dir(task, root, resize, image_size)
    if suite.source == "drawn":
        demo.pack_demo(suite, task, folder)
    if suite.is_own_images:
        assert task.root is not None
        source = _folder_source(task.root)
        # Whether splits may share images is for the run to say: see `usable_split`.
        pack_splits(suite, task, source, root, resize, image_size, force=True)
        _say_shared_images(PackedTask.open(task, folder))
    if not expand_path(folder).is_dir():
        message = _how_to_prepare(task, root, resize, image_size)
        raise NotPreparedError(message, packed_bytes(task, image_size))
    packed = PackedTask.open(task, folder)
    packed.check_single_source()
    return packed


def _say_shared_images(packed: PackedTask) -> None:
    """Warn of images that two splits of a user's folder have, few as they may be."""
    for finding in packed.overlaps:
        log.warning("%s: %s", packed.task.name, finding.text)


def task_of(data: Mapping[str, Any]) -> tuple[Suite, Task]:
    """Return suite and task of the group `data`; a user's folder is a suite of one task."""
    suite = load_suite(data["suite"])
    if suite.is_own_images:
        check_value(data["root"], str, "data.root")
        check_value(data["task"], str | None, "data.task")
        suite = folder_suite(data["root"], data["task"])
    return suite, suite.task(data["task"] or next(iter(suite.tasks)))


def folder_suite(root: str, name: str | None = None) -> Suite:
    """Return the suite of own images with one task, a user's folder.

    Its layouts are `train/CLASS/` with `val/CLASS/` and `test/CLASS/`, or `CLASS/` alone. name: of
    the task; None calls it like the folder, with digits of its path. Raises MissingFileError where
    there is no such directory, FileAccessError where it may not be looked at, DataError, which says
    what is allowed, where it has neither layout, and InvalidValueError on a name that no file has.
    """
    source = _folder_source(root)
    name = folder_key(root) if name is None else name
    if _TASK_NAME.fullmatch(name) is None:
        raise InvalidValueError(
            f"data.task is '{name}', which is to name files; allowed: letters, digits, _, -, . and "
            "spaces, such as data.task=birds."
        )
    task = Task(
        suite=OWN_IMAGES,
        name=name,
        label=name,
        group="own",
        classes=tuple(source.names or ()),
        splits={part: source.count(part) for part in source.parts},
        storage="encoded",
        covers_all_classes=False,
        root=root,
    )
    return load_suite(OWN_IMAGES).with_tasks([task])


@cache
def _folder_source(root: str) -> Source:
    """Search a user's folder for images, once in a process."""
    path = expand_path(root)
    if not path.is_dir():
        raise MissingFileError(
            f"data.root is '{root}', which is not a directory. "
            "Give data.root=FOLDER with FOLDER/CLASS/*.jpg."
        )
    source = read_own_folder(path)
    names = source.names or ()
    counts = ", ".join(f"{part} {source.count(part)}" for part in source.parts)
    first = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
    log.info("%s: %d classes (%s); images: %s", path, len(names), first, counts)
    others = dict(sorted(other_files(path).items()))
    if others:
        log.warning("%s: left out, not images of a known format: %s", path, others)
    return source


def _how_to_prepare(task: Task, root: Path, resize: str, image_size: int) -> str:
    """Say how to get a task's data."""
    name = f"{task.suite}/{task.name}"
    formats = _packed_formats(root / task.suite / task.name)
    if formats:
        return (
            f"{name} is packed as {', '.join(formats)} in {root / task.suite / task.name}, "
            f"but this run takes resize {resize} at {image_size} px. Run\n"
            f"    {command('prepare')} {name} --resize {resize} --side {image_size}\n"
            "or give data.resize=..., or another backbone."
        )
    size = packed_bytes(task, image_size)
    packed = "the images' own size" if size is None else f"{size / 1e9:.2g} GB"
    build = f"{command('prepare')} {name}"
    if IS_CHECKOUT:  # it has an environment of its own for what is needed to build
        build = f"make prepare-{task.suite} TASKS={task.name}"
    fetch = f"needs files that you have to get: {task.how_to_get}"
    if task.download_gb:
        fetch = f"downloads {task.download_gb} GB with TFDS"
    return (
        f"{name} is not prepared below {root}. Either\n"
        f"    {build}\n"
        f"which {fetch} (and takes {packed} packed), "
        "or, if you have its images (the layouts: --help),\n"
        f"    {command('prepare')} {name} --from FOLDER_OR_ZIP\n"
        f"Meanwhile, offline and at once: {command('train')} data=demo/digits"
    )


def _packed_formats(folder: Path) -> list[str]:
    """Return the formats in which a task is packed."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
