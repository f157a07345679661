"""The runs of a sweep, and how far each is: from records and claims alone, at any moment, whoever runs them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from san import record
from san.data import task_data
from san.data.split import Split
from san.errors import NotPreparedError, RecordError
from san.experiment import from_config
from san.record import Record
from san.runtime import lease
from san.tasks import Suite, Task

STATES = ("done", "running", "interrupted", "failed", "oom", "lost", "missing", "blocked")
PENDING = ("missing", "interrupted", "lost")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep. path: of its record; None where it cannot be run, for the reason in `blocked`.

    task, key: suite and task; suite, backbone and method, which runs of like cost share. needs: bytes that the data it
    waits for will take.
    """

    title: str
    task: str
    key: tuple[str, str, str]
    config: Mapping[str, Any]
    overrides: Sequence[str]
    path: Path | None
    blocked: str = ""
    needs: int = 0


@dataclass(frozen=True)
class RunStatus:
    """What is known of a cell: one of STATES; its record, or who runs it (or ran it, where it is lost)."""

    name: str
    record: Record | None = None
    holder: lease.Lease | None = None


def plan_runs(configs: Sequence[tuple[Mapping[str, Any], Sequence[str]]]) -> list[PlannedRun]:
    """Return the runs that resolved configurations describe; each split of a task is looked at once."""
    known: dict[tuple[Any, ...], Split | Exception] = {}

    def load(suite: Suite, task: Task, *place: Any) -> Split:
        """Load a split, or raise what it raised, once."""
        key = (suite.name, task.name, *place)
        if key not in known:
            try:
                known[key] = task_data.load_split(suite, task, *place)
            except (LookupError, ValueError, OSError) as error:
                known[key] = error
        found = known[key]
        if isinstance(found, Exception):
            raise found
        return found

    return [plan_run(config, overrides, load) for config, overrides in configs]


def plan_run(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    load: Callable[..., Split] = task_data.load_split,
) -> PlannedRun:
    """Return the run that a resolved configuration describes; what hinders it is kept, not raised."""
    method, chosen = config["method"]["name"], config["data"]
    task = f"{chosen['suite']}/{chosen['task']}"
    title = f"{task} {method} seed {config['seed']}"
    key = (chosen["suite"], config["backbone"]["name"], method)
    try:
        path = from_config(dict(config), overrides, load).record_path()
    except (LookupError, ValueError, OSError) as error:
        needs = error.bytes_needed if isinstance(error, NotPreparedError) else 0
        return PlannedRun(title, task, key, config, overrides, None, str(error), needs)
    return PlannedRun(title, task, key, config, overrides, path)


def run_status(cell: PlannedRun) -> RunStatus:
    """Look up how far a run is."""
    if cell.path is None:
        return RunStatus("blocked")
    held = lease.read_lease(lease.lease_path(cell.path))
    if held is not None and held.alive(lease.lease_path(cell.path)):
        return RunStatus("running", holder=held)
    try:
        found = record.read_record(cell.path)
        if (
            found.status == "done"
            and record.find_completed(cell.path, cell.config["save_adapter"]) is None
        ):
            return RunStatus("missing")
        return RunStatus(found.status, found)
    except RecordError:
        if held is not None:
            return RunStatus("lost", holder=held)
        return RunStatus(
            "interrupted" if cell.path.with_suffix(".checkpoint").exists() else "missing"
        )


def pending_runs(
    cells: Sequence[PlannedRun], retry: Sequence[str] = (), before: int | None = None
) -> list[PlannedRun]:
    """Return the runs that have no record yet or are lost, those that others run (who may die of it), and retries.

    retry: states that are tried again, where the record has been written before that time (nanoseconds; None: ever).
    """
    return [c for c in cells if should_run(c, run_status(c).name, retry, before)]


def should_run(cell: PlannedRun, name: str, retry: Sequence[str], before: int | None) -> bool:
    """Return whether a run in a state is to be run."""
    old = cell.path is not None and (before is None or record.mtime_ns(cell.path) < before)
    return name in (*PENDING, "running") or (name in retry and old)


def heartbeat_overdue(cell: PlannedRun) -> bool:
    """Return whether somebody who has claimed a run has missed signs of life, but may not be taken for dead yet."""
    assert cell.path is not None
    path = lease.lease_path(cell.path)
    try:
        return (
            run_status(cell).name == "running"
            and time.time() - path.stat().st_mtime > 3 * lease.HEARTBEAT_S
        )
    except FileNotFoundError:
        return False
