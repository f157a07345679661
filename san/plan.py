"""The runs of a sweep, and how far each is: from records and claims alone, at any moment, whoever runs them."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from san import claim, data, record
from san.data.split import Split
from san.errors import RecordError
from san.experiment import from_config
from san.record import Record
from san.tasks import Suite, Task

STATES = ("done", "running", "failed", "oom", "lost", "missing", "blocked")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. path: of its record; None where it cannot be run, for the reason in `blocked`."""

    title: str
    key: tuple[str, str, str]
    config: Mapping[str, Any]
    overrides: Sequence[str]
    path: Path | None
    blocked: str = ""


@dataclass(frozen=True)
class State:
    """What is known of a cell: one of STATES; its record, or who runs it (or ran it, where it is lost)."""

    name: str
    record: Record | None = None
    holder: claim.Claim | None = None


def cells(configs: Sequence[tuple[Mapping[str, Any], Sequence[str]]]) -> list[Cell]:
    """Return the runs that resolved configurations describe; each split of a task is looked at once."""
    known: dict[tuple[Any, ...], Split | Exception] = {}

    def load(suite: Suite, task: Task, *place: Any) -> Split:
        """Load a split, or raise what it raised, once."""
        key = (suite.name, task.name, *place)
        if key not in known:
            try:
                known[key] = data.load(suite, task, *place)
            except (LookupError, ValueError, OSError) as error:
                known[key] = error
        found = known[key]
        if isinstance(found, Exception):
            raise found
        return found

    return [cell(config, overrides, load) for config, overrides in configs]


def cell(config: Mapping[str, Any], overrides: Sequence[str], load: Callable[..., Split] = data.load) -> Cell:
    """Return the run that a resolved configuration describes; what hinders it is kept, not raised."""
    method, chosen = config["method"]["name"], config["data"]
    title = f"{chosen['suite']}/{chosen['task']} {method} seed {config['seed']}"
    key = (chosen["suite"], config["backbone"]["name"], method)
    try:
        path = from_config(dict(config), overrides, load).record_path()
    except (LookupError, ValueError, OSError) as error:
        return Cell(title, key, config, overrides, None, str(error))
    return Cell(title, key, config, overrides, path)


def state(cell: Cell) -> State:
    """Look up how far a run is."""
    if cell.path is None:
        return State("blocked")
    held = claim.read(claim.path_of(cell.path))
    if held is not None and held.alive(claim.path_of(cell.path)):
        return State("running", holder=held)
    try:
        found = record.read(cell.path)
        return State(found.status, found)
    except RecordError:
        return State("lost", holder=held) if held is not None else State("missing")


def todo(cells: Sequence[Cell], retry: Sequence[str] = ()) -> list[Cell]:
    """Return the runs that have no record yet, those that are lost, and those whose state is in `retry`."""
    wanted = {"missing", "lost", *retry}
    return [c for c in cells if state(c).name in wanted]


def seconds_left(cells: Sequence[Cell], states: Sequence[State]) -> tuple[float, int]:
    """Estimate the seconds of training that are left from the runs that are done, and how many runs have no estimate.

    The median of the same method, backbone and suite; where there is none, of the backbone and suite.
    """
    exact: dict[tuple[str, ...], list[float]] = {}
    for c, s in zip(cells, states, strict=True):
        if s.record is not None and s.name == "done":
            for key in (c.key, c.key[:2]):
                exact.setdefault(key, []).append(s.record.seconds["fit"])
    left, unknown = 0.0, 0
    for c, s in zip(cells, states, strict=True):
        if s.name in ("missing", "lost", "running"):
            known = exact.get(c.key) or exact.get(c.key[:2])
            share = 1 - s.holder.epoch / s.holder.epochs if s.name == "running" and s.holder and s.holder.epochs else 1
            left, unknown = (left + share * statistics.median(known), unknown) if known else (left, unknown + 1)
    return left, unknown


def summary(cells: Sequence[Cell], states: Sequence[State]) -> str:
    """Return one line: how many runs are in which state, and how long the rest will take."""
    counts = Counter(s.name for s in states)
    parts = [f"{counts[name]} {name}" for name in STATES if counts[name]]
    left, unknown = seconds_left(cells, states)
    waiting = counts["missing"] + counts["lost"] + counts["running"]
    time_left = f"; about {hours(left)} of training left" if waiting > unknown else ""
    no_estimate = f" and {unknown} runs like none that is done" if unknown else ""
    return f"{len(cells)} runs: {', '.join(parts)}{time_left}{no_estimate}"


def hours(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def lines(cells: Sequence[Cell], states: Sequence[State]) -> list[str]:
    """Return a line for each run that is neither done nor missing: who runs it, or why it is not done."""
    said = []
    for c, s in zip(cells, states, strict=True):
        if s.name == "running" and s.holder is not None:
            epoch = f", epoch {s.holder.epoch} of {s.holder.epochs}" if s.holder.epochs else ""
            since = hours(max(0.0, time.time() - s.holder.since))
            said.append(f"running  {c.title}: {s.holder.host} process {s.holder.pid}, for {since}{epoch}")
        elif s.name == "lost" and s.holder is not None:
            said.append(
                f"lost     {c.title}: {s.holder.host} process {s.holder.pid} is gone; the same command runs it again"
            )
        elif s.name in ("failed", "oom") and s.record is not None:
            reason = (s.record.error or "").strip().splitlines()
            said.append(f"{s.name:8} {c.title}: {reason[-1] if reason else 'no reason'} ({c.path})")
        elif s.name == "blocked":
            said.append(f"blocked  {c.title}: {c.blocked.splitlines()[0]}")
    return said
