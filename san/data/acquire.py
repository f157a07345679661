"""From the name of a task to its packed images: what is there, what TFDS has to fetch, what a person has to bring."""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from san.data import pack, prove
from san.data.prepare import Progress, packed_bytes, prepare, storage
from san.data.sources import find, tfds
from san.tasks import Suite, Task

UNPACKED = 3  # TFDS holds a download, what it unpacks to, and what it prepares from that
Say = Callable[[str], None]


@dataclass(frozen=True)
class Places:
    """Where things are: given (a folder or zip of the user's), packed data, TFDS copies, files brought by hand."""

    root: Path
    tfds: Path
    manual: Path
    given: Path | None = None

    def manual_of(self, task: Task) -> Path:
        """Return the folder for a task's files that are brought by hand."""
        return self.manual / str(task.facts["tfds"]["builder"])


@dataclass(frozen=True)
class Step:
    """What has to happen for one task: nothing (`done`), `pack`, `build` (fetch, convert, pack), or `ask` for files."""

    suite: Suite
    task: Task
    action: str
    note: str

    @property
    def name(self) -> str:
        """What a person calls the task."""
        return f"{self.task.suite}/{self.task.name}"


def plan(pairs: Sequence[tuple[Suite, Task]], places: Places, resize: str, side: int) -> list[Step]:
    """Return a step for each task, in order; nothing is fetched or written."""
    return [step(suite, task, places, resize, side) for suite, task in pairs]


def step(suite: Suite, task: Task, places: Places, resize: str, side: int) -> Step:
    """Return what has to happen for a task."""
    home = places.root / suite.name / task.name / storage(task, resize, side)
    if places.given is not None:
        return Step(suite, task, "pack", f"from {places.given}")
    if all(pack.manifest_of(home / part) for part in prove.parts_of(task, home, "+".join(task.splits))):
        return Step(suite, task, "done", str(home))
    if "tfds" not in task.facts:
        return Step(suite, task, "ask", "TFDS does not have it: --from FOLDER_OR_ZIP. " + task.facts.get("where", ""))
    copies = tfds.copies(task, places.tfds)
    if copies:
        return Step(suite, task, "pack", f"from {copies[-1]}")
    folder = places.manual_of(task)
    missing = [name for name in task.facts.get("manual", ()) if not (folder / name).exists()]
    if missing:
        return Step(suite, task, "ask", f"{folder} lacks {', '.join(missing)}: {task.facts['where']}")
    return Step(suite, task, "build", f"TFDS {tfds.name_of(task)}, {task.facts['download']} GB to download")


def needed_bytes(steps: Sequence[Step], side: int) -> tuple[int, int]:
    """Return how many bytes will be downloaded, and how many of disk are needed at most while preparing.

    Sizes of files that are packed as they are count as much as their download.
    """
    built = {s.task.facts["tfds"]["builder"]: s.task.facts["download"] for s in steps if s.action == "build"}
    download = int(1e9 * sum(built.values()))
    todo = [s.task for s in steps if s.action in ("build", "pack")]
    packed = sum(packed_bytes(task, side) or int(1e9 * task.facts.get("download", 0)) for task in todo)
    return download, UNPACKED * download + packed


def check_disk(steps: Sequence[Step], places: Places, side: int) -> str:
    """Return a line about download and disk; raise OSError where the disk is too small, before anything is fetched."""
    download, need = needed_bytes(steps, side)
    here = next(p for p in (places.root, *places.root.absolute().parents) if p.exists())
    free = shutil.disk_usage(here).free
    line = f"{size(download)} to download, at most {size(need)} of disk, {size(free)} free"
    if need > free:
        raise OSError(
            f"Not enough disk below {here}: {line}. Prepare fewer tasks at a time, or choose --root and --tfds."
        )
    return line


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def build_all(steps: Sequence[Step], places: Places, jobs: int, say: Say) -> dict[str, str]:
    """Let TFDS fetch and prepare what is missing, each data set in its own process; return errors by data set."""
    todo = {tfds.name_of(s.task): s for s in steps if s.action == "build"}
    if not todo:
        return {}
    errors: dict[str, str] = {}
    if jobs == 1:
        for name, s in todo.items():
            try:
                tfds.build(name, places.tfds, places.manual_of(s.task))
            except Exception as error:  # whatever TFDS and its transports raise; the other tasks go on
                errors[name] = explain(s, places, error)
        return errors
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        running = {pool.submit(tfds.build, n, places.tfds, places.manual_of(s.task)): n for n, s in todo.items()}
        for future in as_completed(running):
            name, problem = running[future], future.exception()
            if problem is not None:
                errors[name] = explain(todo[name], places, problem)
            say(f"{name}: {'failed' if problem else 'prepared by TFDS'}")
    return errors


def explain(s: Step, places: Places, error: BaseException) -> str:
    """Say what was tried for a task, and what to put where."""
    name, folder = tfds.name_of(s.task), places.manual_of(s.task)
    if isinstance(error, ModuleNotFoundError):
        return str(error)
    files = s.task.facts.get("manual") or tfds.file_names(name)
    reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    return (
        f"{s.name} could not be built ({type(error).__name__}: {reason[:300]}). Tried:\n"
        f"    a prepared copy {places.tfds / s.task.facts['tfds']['builder']}/*: none of version "
        f"{' or '.join(map(str, s.task.facts['tfds']['majors']))}\n"
        f"    files in {folder}: {', '.join(p.name for p in folder.iterdir()) if folder.is_dir() else 'none'}\n"
        f"    TFDS's download of {name}\n"
        f"Either put {', '.join(files)} into {folder} and run this again, or give another copy with --from "
        "(python scripts/prepare.py --help lists the layouts)."
    )


def prepare_all(
    steps: Sequence[Step], places: Places, resize: str, side: int, force: bool, jobs: int, progress: Progress, say: Say
) -> list[str]:
    """Do the steps; return what went wrong, one text a task. A task that fails leaves the others alone."""
    failed = build_all(steps, places, jobs, say)
    errors = list(failed.values())
    for s in steps:
        try:
            if s.action == "ask":
                raise FileNotFoundError(f"{s.name}: {s.note}")
            if s.action != "done" and not (s.action == "build" and tfds.name_of(s.task) in failed):
                source = find(s.task, places.given or places.tfds)
                done = prepare(s.suite, s.task, source, places.root, resize, side, force, progress)
                say(f"{s.name}: {'; '.join(done)}")
        except (ValueError, OSError, LookupError, ModuleNotFoundError) as error:
            errors.append(str(error) if s.name in str(error) else f"{s.name}: {error}")
    return errors


def chosen(names: Sequence[str], load: Callable[[str], Suite]) -> Iterator[tuple[Suite, Task]]:
    """Yield suite and task for names such as `vtab` (all its tasks) and `vtab/cifar`; raise LookupError as lookup."""
    for name in names:
        suite_name, _, task_name = name.partition("/")
        suite = load(suite_name)
        for task in [suite.task(task_name)] if task_name else suite.tasks.values():
            yield suite, task
