"""From the name of a task to its packed images: what is there, what TFDS has to fetch, what a person has to bring."""

import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from san.data import verify
from san.data.layout import packed_bytes, packed_dir
from san.data.prepare.pack_task import Progress, pack_splits
from san.data.prepare.sources import Source, find_source, tfds
from san.data.prepare.sources.files import open_root
from san.tasks import Suite, Task

UNPACKED = 3  # TFDS holds a download, what it unpacks to, and what it prepares from that
Say = Callable[[str], None]


@dataclass(frozen=True)
class Paths:
    """Where things are: given (a folder or zip of the user's), packed data, TFDS copies, files brought by hand."""

    root: Path
    tfds: Path
    manual: Path
    given: Path | None = None

    def manual_of(self, task: Task) -> Path:
        """Return the folder for a task's files that are brought by hand."""
        return self.manual / tfds.source_of(task).builder


@dataclass(frozen=True)
class Step:
    """What has to happen for one task: nothing (`done`), `pack`, `build` (fetch, convert, pack), or `ask` for files.

    source: what is packed, where it was given and found.
    """

    suite: Suite
    task: Task
    resize: str
    action: str
    note: str
    source: Source | None = None

    @property
    def name(self) -> str:
        """What a person calls the task."""
        return f"{self.task.suite}/{self.task.name}"


def plan(
    pairs: Sequence[tuple[Suite, Task]], places: Paths, resize: str | None, side: int
) -> list[Step]:
    """Return a step for each task, in order; nothing is fetched or written. resize: None for each suite's own."""
    return [step(suite, task, places, resize or suite.resize, side) for suite, task in pairs]


def step(suite: Suite, task: Task, places: Paths, resize: str, side: int) -> Step:
    """Return what has to happen for a task."""
    home = packed_dir(task, places.root, resize, side)
    if suite.name == "demo":
        return Step(suite, task, resize, "done", "is drawn where it is needed")
    if places.given is not None:
        return from_user_path(suite, task, resize, places.given)
    if is_complete(task, home):
        return Step(suite, task, resize, "done", str(home))
    return Step(suite, task, resize, *tfds_step(task, places))


def from_user_path(suite: Suite, task: Task, resize: str, path: Path) -> Step:
    """Look for a task in what the user has; raise FileNotFoundError or ValueError where that is no folder or zip."""
    open_root(path)
    try:
        return Step(suite, task, resize, "pack", f"from {path}", find_source(task, path))
    except FileNotFoundError:
        return Step(
            suite,
            task,
            resize,
            "ask",
            f"nothing of it is at {path}; prepare.py --help lists the layouts",
        )
    except Exception as error:  # whatever is wrong with one source; the other tasks go on
        return Step(suite, task, resize, "ask", error_text(error))


def tfds_step(task: Task, places: Paths) -> tuple[str, str]:
    """Return action and note for a task that is neither packed nor given."""
    if task.tfds is None:
        return "ask", "TFDS does not have it: --from FOLDER_OR_ZIP. " + task.how_to_get
    copies = tfds.copies(task, places.tfds)
    if copies:
        return "pack", f"from {copies[-1]}"
    folder = places.manual_of(task)
    missing = [name for name in task.manual_files if not (folder / name).exists()]
    if missing:
        return "ask", f"{folder} lacks {', '.join(missing)}: {task.how_to_get}"
    return "build", f"TFDS {tfds.name_of(task)}, {task.download_gb:g} GB to download"


def is_complete(task: Task, home: Path) -> bool:
    """Return whether all splits of a task are packed, from one source, as their manifests say."""
    try:
        verify.check_single_source(task, home)
        return all(
            verify.load_part(task, home, part)
            for part in verify.parts_of(task, home, "+".join(task.splits))
        )
    except ValueError:
        return False


def needed_bytes(steps: Sequence[Step], side: int) -> tuple[int, int, int, list[str]]:
    """Return the bytes to download, that TFDS needs at most, and that packed images take; and tasks of unknown size."""
    built = {tfds.source_of(s.task).builder: s.task for s in steps if s.action == "build"}
    download = sum(task.download_gb for task in built.values())
    copies = UNPACKED * download + sum(task.size_gb for task in built.values())
    todo = {s.name: packed_bytes(s.task, side) for s in steps if s.action in ("build", "pack")}
    packed = sum(count for count in todo.values() if count is not None)
    return (
        int(1e9 * download),
        int(1e9 * copies),
        packed,
        [name for name, count in todo.items() if count is None],
    )


def check_disk(steps: Sequence[Step], places: Paths, side: int) -> tuple[str, bool]:
    """Return a line about download and disk, and whether there is room for it."""
    download, copies, packed, unknown = needed_bytes(steps, side)
    disks: dict[int, list[int]] = {}
    for place, need in ((places.root, packed), (places.tfds, copies)):
        here = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
        disk = disks.setdefault(here.stat().st_dev, [0, shutil.disk_usage(here).free])
        disk[0] += need
    free = min(disk[1] for disk in disks.values())
    line = (
        f"{size(download)} to download, at most {size(copies + packed)} of disk, {size(free)} free"
    )
    line += f"; and the files of {', '.join(unknown)}, as large as they are" if unknown else ""
    return line, all(need <= available for need, available in disks.values())


def error_text(error: Exception) -> str:
    """Return the message of an error that we raise ourselves, and of others their kind as well."""
    known = isinstance(error, ValueError | OSError | ModuleNotFoundError)
    return str(error) if known else f"{type(error).__name__}: {error}"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def build_all(steps: Sequence[Step], places: Paths, jobs: int, say: Say) -> dict[str, str]:
    """Let TFDS fetch and prepare what is missing, each data set in its own process; return errors by data set."""
    todo = {tfds.name_of(s.task): s for s in steps if s.action == "build"}
    if not todo:
        return {}
    errors: dict[str, str] = {}
    if jobs == 1:
        for name, s in todo.items():
            try:
                tfds.build(name, places.tfds, places.manual_of(s.task))
            except (
                Exception
            ) as error:  # whatever TFDS and its transports raise; the other tasks go on
                errors[name] = explain(s, places, error)
        return errors
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        running = {
            pool.submit(tfds.build, n, places.tfds, places.manual_of(s.task)): n
            for n, s in todo.items()
        }
        for future in as_completed(running):
            name, problem = running[future], future.exception()
            if problem is not None:
                errors[name] = explain(todo[name], places, problem)
            say(f"{name}: {'failed' if problem else 'prepared by TFDS'}")
    return errors


def explain(s: Step, places: Paths, error: BaseException) -> str:
    """Say what was tried for a task, and what to put where."""
    name, folder = tfds.name_of(s.task), places.manual_of(s.task)
    if isinstance(error, ModuleNotFoundError):
        return f"{s.name}: {error} (pip install -e '.[prepare]' has all that building needs; make prepare-vtab does so.)"
    try:
        files = list(s.task.manual_files) or tfds.file_names(name)
    except Exception:  # TFDS cannot even say what it would fetch
        files = ["its files"]
    reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    return (
        f"{s.name} could not be built ({type(error).__name__}: {reason[:300]}). Tried:\n"
        f"    a prepared copy {places.tfds / tfds.source_of(s.task).builder}/*: none of version "
        f"{' or '.join(map(str, tfds.source_of(s.task).major_versions))}\n"
        f"    files in {folder}: {', '.join(p.name for p in folder.iterdir()) if folder.is_dir() else 'none'}\n"
        f"    TFDS's download of {name}\n"
        f"Either put {', '.join(files)} into {folder} and run this again, or give another copy with --from "
        "(python scripts/prepare.py --help lists the layouts)."
    )


def prepare_all(
    steps: Sequence[Step],
    places: Paths,
    side: int,
    force: bool,
    jobs: int,
    progress: Progress,
    say: Say,
) -> list[str]:
    """Do the steps; return what went wrong, one text a task. A task that fails leaves the others alone."""
    failed = build_all(steps, places, jobs, say)
    errors = list(failed.values())
    for s in steps:
        try:
            if s.action == "ask":
                raise FileNotFoundError(f"{s.name}: {s.note}")
            if s.action != "done" and not (s.action == "build" and tfds.name_of(s.task) in failed):
                source = s.source or find_source(s.task, places.tfds)
                done = pack_splits(
                    s.suite, s.task, source, places.root, s.resize, side, force, progress
                )
                say(f"{s.name}: {'; '.join(done)}")
        except Exception as error:  # whatever is wrong with one source; the other tasks go on
            text = error_text(error)
            errors.append(text if s.name in text else f"{s.name}: {text}")
    return errors
