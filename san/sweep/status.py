"""How far a sweep is and what is left of it, in words: counts, reasons, time, disk."""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import torch
from tabulate import tabulate

from san import backbones
from san.adapter import attach
from san.data.prepare.download import size
from san.record import Record
from san.sweep.plan import PENDING, STATES, PlannedRun, RunStatus
from san.tasks import load_suite

LEFT = (*PENDING, "running", "blocked")
Column = tuple[str, str]
RECORD = 60_000  # bytes of a record with its tracker's files; measured: 3 to 6 kB and 50 kB
CHECKPOINT_COPIES = 2  # a saved state is whole before the one before it goes
OPTIMIZER_COPIES = {"adamw": 3, "sgd": 2}  # float32 copies of what trains in a run's saved state


def summary(
    cells: Sequence[PlannedRun], states: Sequence[RunStatus], known: Sequence[Record] = ()
) -> str:
    """Return one line: how many runs are in which state, and how long the rest will take, by the runs in `known`."""
    counts = Counter(s.name for s in states)
    parts = [f"{counts[name]} {name}" for name in STATES if counts[name]]
    left, unknown = seconds_left(cells, states, known)
    waiting = sum(counts[name] for name in LEFT)
    kind = next((r.device["type"] for r in known if "type" in r.device), "cpu")
    device = {"cuda": "GPU"}.get(kind, kind.upper())
    time_left = f"; about {format_duration(left)} of one {device} left" if waiting > unknown else ""
    no_estimate = f"; {unknown} like none that is done, so of unknown time" if unknown else ""
    return f"{len(cells)} runs: {', '.join(parts)}{time_left}{no_estimate}"


def seconds_left(
    cells: Sequence[PlannedRun], states: Sequence[RunStatus], known: Sequence[Record]
) -> tuple[float, int]:
    """Estimate the seconds that are left from runs that are done, and count those that have no estimate.

    The median of the same method, backbone and task; else of method, backbone and suite; else of backbone and suite.
    """
    spent: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(
        list
    )  # an epoch's, and what is once
    for r in known:
        if r.status == "done":
            for key in similarity_keys(f"{r.suite}/{r.task}", (r.suite, r.backbone, r.method)):
                once = r.seconds.get("build", 0.0) + r.seconds.get("evaluate", 0.0)
                spent[key].append((r.seconds["fit"] / r.config["epochs"], once))
    left, unknown = 0.0, 0
    for c, s in zip(cells, states, strict=True):
        if s.name in LEFT:
            like = next(
                (spent[key] for key in similarity_keys(c.task, c.key) if key in spent), None
            )
            if like is None:
                unknown += 1
                continue
            epoch, once = (statistics.median(part) for part in zip(*like, strict=True))
            gone = s.holder.epoch if s.name == "running" and s.holder else 0
            left += (c.config["epochs"] - gone) * epoch + once
    return left, unknown


def similarity_keys(task: str, key: tuple[str, str, str]) -> tuple[tuple[str, ...], ...]:
    """Return by what runs are alike, the most alike first."""
    return (task, *key), key, key[:2]


def format_duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def details(cells: Sequence[PlannedRun], states: Sequence[RunStatus]) -> Iterator[str]:
    """Yield a line for each run that is neither done nor missing: who runs it, or why it is not done."""
    for c, s in zip(cells, states, strict=True):
        if s.name == "running" and s.holder is not None:
            epoch = f", epoch {s.holder.epoch} of {s.holder.epochs}" if s.holder.epochs else ""
            since = format_duration(max(0.0, time.time() - s.holder.since))
            yield f"running  {c.title}: {s.holder.host} process {s.holder.pid}, for {since}{epoch}"
        elif s.name == "lost" and s.holder is not None:
            yield f"lost     {c.title}: {s.holder.host} process {s.holder.pid} is gone; the same command runs it again"
        elif s.name in ("failed", "oom") and s.record is not None:
            reason = (s.record.error or "").strip().splitlines()
            yield f"{s.name:8} {c.title}: {reason[-1] if reason else 'no reason'} ({c.path})"
    yield from blocked(cells)


def blocked(cells: Sequence[PlannedRun]) -> Iterator[str]:
    """Yield a line for each reason why runs cannot begin; tasks that are not prepared share one."""
    waiting = Counter(c.task for c in cells if c.needs)
    if waiting:
        what = f"{waiting.total()} runs: {len(waiting)} tasks are not prepared"
        yield f"blocked  {what}. python scripts/prepare.py {' '.join(waiting)}"
    others = Counter(c.blocked.splitlines()[0] for c in cells if c.blocked and not c.needs)
    yield from (f"blocked  {n} runs: {reason}" for reason, n in others.items())


def progress_table(cells: Sequence[PlannedRun], states: Sequence[RunStatus]) -> str:
    """Return a table of how many runs of each task and method there are, and how many of them are done."""
    methods, count, done = (
        list(dict.fromkeys(c.key[2] for c in cells)),
        Counter[Column](),
        Counter[Column](),
    )
    for c, s in zip(cells, states, strict=True):
        count[c.task, c.key[2]] += 1
        done[c.task, c.key[2]] += s.name == "done"
    tasks = dict.fromkeys(c.task for c in cells)
    rows = [[t, *(f"{done[t, m]} of {count[t, m]}" for m in methods)] for t in tasks]
    return tabulate(rows, ["done", *methods])


def disk_estimate(cells: Iterable[PlannedRun], states: Iterable[RunStatus], jobs: int) -> str:
    """Return one line: the disk that the runs that are left take, beside what is there.

    Records and tracker's files; adapters, where they are kept; the state that each of `jobs` runs in flight saves; and
    the packed images of tasks that are not prepared, without what preparing them takes for a while.
    """
    left = [c for c, s in zip(cells, states, strict=True) if s.name in LEFT]
    data = {c.task: c.needs for c in cells if c.needs}
    adapters = [4 * trainable_count(c) for c in left if c.config["save_adapter"]]
    flight = [4 * trainable_count(c) * OPTIMIZER_COPIES[c.config["optimizer"]] for c in left]
    parts = {
        "records": RECORD * len(left),
        "adapters": sum(adapters),
        f"state of {jobs} in flight": CHECKPOINT_COPIES * jobs * max(flight, default=0),
        f"images of {len(data)} tasks to prepare": sum(data.values()),
    }
    said = [f"{size(value)} {name}" for name, value in parts.items() if value]
    return f"disk needed: at most {size(sum(parts.values()))}" + (
        f" ({', '.join(said)})" if said else ""
    )


def trainable_count(cell: PlannedRun) -> int:
    """Return how many parameters a run trains."""
    suite, _, task = cell.task.partition("/")
    classes = len(load_suite(suite).task(task).classes)
    b, method = cell.config["backbone"], dict(cell.config["method"])
    return trainable_parameters(
        b["timm"], hashable(b["arguments"]), method.pop("name"), hashable(method), classes
    )


def hashable(options: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    """Return options so that they can be remembered."""
    return tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(options.items()))


@cache
def trainable_parameters(
    name: str,
    arguments: tuple[tuple[str, object], ...],
    method: str,
    options: tuple[tuple[str, object], ...],
    classes: int,
) -> int:
    """Attach a method to a backbone without weights, and count."""
    with torch.device("meta"):
        model = backbones.build_backbone(name, classes, "random", None, dict(arguments))
        return attach(model, method, **dict(options)).counts.trainable
