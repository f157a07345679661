"""What has to happen before a task can be trained on, and how much disk that takes."""

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from san.data.layout import packed_bytes, packed_dir
from san.data.packed_task import PackedTask
from san.data.prepare.sources import Source, find_source, tfds
from san.data.prepare.sources.files import open_root
from san.errors import DataError, FileAccessError, MissingFileError, SanError
from san.runtime.formatting import format_bytes
from san.tasks import Suite, Task

# TFDS keeps a download, what it unpacks to, and what it prepares from that.
TFDS_COPIES = 3

log = logging.getLogger(__name__)


class Action(StrEnum):
    """What has to happen for a task."""

    DONE = "done"
    PACK = "pack"
    BUILD = "build"  # fetch and convert with TFDS, then pack
    MANUAL = "manual"  # somebody has to bring files, or to mend them


@dataclass(frozen=True)
class Paths:
    """Where things are.

    root: packed images. tfds: TFDS's copies, found or made. manual: files brought by hand.
    user_path: a folder or a zip file that a user has.
    """

    root: Path
    tfds: Path
    manual: Path
    user_path: Path | None = None

    def manual_dir(self, task: Task) -> Path:
        """Return the folder for a task's files that are brought by hand."""
        return self.manual / tfds.source_of(task).builder


@dataclass(frozen=True)
class Step:
    """What has to happen for one task, and why. source: of the images, where it was found."""

    suite: Suite
    task: Task
    resize: str
    action: Action
    note: str
    source: Source | None = None

    @property
    def name(self) -> str:
        """The task's name as a user gives it."""
        return f"{self.task.suite}/{self.task.name}"

    @property
    def dataset(self) -> str | None:
        """TFDS's data set that has to be built; tasks may share it."""
        return tfds.dataset_name(self.task) if self.action is Action.BUILD else None


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that steps take.

    download: over the network. tfds: of TFDS's copies, at most. packed: of packed images, but
    for those of the tasks in `unknown`, whose files are kept as they are.
    """

    download: int
    tfds: int
    packed: int
    unknown: Sequence[str]


@dataclass(frozen=True)
class DiskCheck:
    """Whether there is room for all steps. text: what they take, for people."""

    is_enough: bool
    text: str

    def require(self, force: bool = False) -> None:
        """Raise FileAccessError if there is not enough room.

        force: warn only. What is forced need not have the counts by which the need is known.
        """
        if self.is_enough:
            return
        message = f"Not enough disk: {self.text}."
        if not force:
            raise FileAccessError(
                f"{message} Prepare fewer tasks at a time, or choose --root and --tfds. "
                "(--force begins nevertheless.)"
            )
        log.warning("%s Going on, as --force says.", message)


def plan_steps(
    tasks: Sequence[tuple[Suite, Task]], paths: Paths, resize: str | None, image_size: int
) -> list[Step]:
    """Return a step for each task, in order; nothing is fetched or written.

    resize: None for each suite's own. Raises MissingFileError or DataError where `user_path` is
    neither a folder nor a zip file.
    """
    steps = []
    for suite, task in tasks:
        step = _plan_step(suite, task, paths, resize or suite.resize, image_size)
        steps.append(step)
    return steps


def _plan_step(suite: Suite, task: Task, paths: Paths, resize: str, image_size: int) -> Step:
    """Return what has to happen for one task."""

    def step(action: Action, note: str, source: Source | None = None) -> Step:
        return Step(suite, task, resize, action, note, source)

    if suite.source == "drawn":
        return step(Action.DONE, "is drawn where it is needed")
    if paths.user_path is not None:
        return step(*_look_at_user_path(task, paths.user_path))
    folder = packed_dir(task, paths.root, resize, image_size)
    if is_complete(task, folder):
        return step(Action.DONE, str(folder))
    return step(*_look_at_tfds(task, paths))


def _look_at_user_path(task: Task, path: Path) -> tuple[Action, str, Source | None]:
    """Return action, note and source of a task for what the user has."""
    open_root(path)  # raises an error that concerns all tasks
    try:
        source = find_source(task, path)
    except MissingFileError:
        note = f"nothing of it is at {path}; prepare.py --help lists the layouts"
        return Action.MANUAL, note, None
    except Exception as error:  # whatever is wrong with one source, the other tasks go on
        return Action.MANUAL, describe_error(error), None
    return Action.PACK, f"from {path}", source


def _look_at_tfds(task: Task, paths: Paths) -> tuple[Action, str]:
    """Return action and note of a task that is not packed, for what TFDS has."""
    if task.tfds is None:
        return Action.MANUAL, f"TFDS does not have it: --from FOLDER_OR_ZIP. {task.how_to_get}"
    copies = tfds.copies(task, paths.tfds)
    if copies:
        return Action.PACK, f"from {copies[-1]}"
    folder = paths.manual_dir(task)
    missing = [name for name in task.manual_files if not (folder / name).exists()]
    if missing:
        return Action.MANUAL, f"{folder} lacks {', '.join(missing)}: {task.how_to_get}"
    name = tfds.dataset_name(task)
    return Action.BUILD, f"TFDS {name}, {task.download_gb:g} GB to download"


def describe_error(error: BaseException) -> str:
    """Return the message of an error, with its kind where that is not one for users.

    The trace of the latter is logged.
    """
    if isinstance(error, SanError | OSError | ModuleNotFoundError):
        return str(error)
    log.error("Unexpected error", exc_info=error)
    return f"{type(error).__name__}: {error}"


def is_complete(task: Task, folder: Path) -> bool:
    """Return whether all splits of a task are packed, undamaged and from one source."""
    packed = PackedTask.open(task, folder)
    try:
        packed.check_single_source()
        for part in packed.parts("+".join(task.splits)):
            packed.load_part(part)
    except DataError:
        return False
    return True


def disk_need(steps: Sequence[Step], image_size: int) -> DiskNeed:
    """Return what steps that are not done take. Tasks of one data set share its download."""
    datasets = {}  # one task of each
    packed = 0
    unknown = []
    for step in steps:
        if step.action is Action.BUILD:
            builder = tfds.source_of(step.task).builder
            datasets[builder] = step.task
        if step.action in (Action.BUILD, Action.PACK):
            size = packed_bytes(step.task, image_size)
            if size is None:
                unknown.append(step.name)
            else:
                packed += size
    download_gb = sum(task.download_gb for task in datasets.values())
    files_gb = sum(task.size_gb for task in datasets.values())
    return DiskNeed(
        download=int(1e9 * download_gb),
        tfds=int(1e9 * (TFDS_COPIES * download_gb + files_gb)),
        packed=packed,
        unknown=unknown,
    )


def check_disk(steps: Sequence[Step], paths: Paths, image_size: int) -> DiskCheck:
    """Compare what steps take with what is free; `root` and `tfds` may be on two disks."""
    need = disk_need(steps, image_size)
    needed = Counter[int]()
    free = {}
    for path, count in ((paths.root, need.packed), (paths.tfds, need.tfds)):
        folder = _nearest_existing(path)
        disk = folder.stat().st_dev
        needed[disk] += count
        free[disk] = shutil.disk_usage(folder).free
    text = (
        f"{format_bytes(need.download)} to download, "
        f"at most {format_bytes(need.tfds + need.packed)} of disk, "
        f"{format_bytes(min(free.values()))} free"
    )
    if need.unknown:
        text += f"; and the files of {', '.join(need.unknown)}, as large as they are"
    is_enough = all(needed[disk] <= free[disk] for disk in free)
    return DiskCheck(is_enough, text)


def _nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
