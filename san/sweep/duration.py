"""How long the runs that are left will take, estimated from finished ones."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from san.record import Record, Status
from san.sweep.plan import PlannedRun, RunState, RunStatus
from san.training.schedule import trained_epochs

# What similar runs have in common: suite, task, backbone and method, or fewer of these.
Key = tuple[str, ...]


@dataclass(frozen=True)
class RunCost:
    """Seconds of a run: of one epoch of training, and of what does not depend on the epochs."""

    epoch: float
    fixed: float


@dataclass(frozen=True)
class TimeLeft:
    """Seconds that are left on one device, for the `estimated_runs` alone."""

    seconds: float
    estimated_runs: int
    other_runs: int


def estimate_time_left(statuses: Sequence[RunStatus], records: Sequence[Record]) -> TimeLeft:
    """Estimate the seconds that are left from the records of finished runs.

    A run takes the median of those of the same method, backbone and task; else of method, backbone
    and suite; else of backbone and suite; else it has no estimate.
    """
    costs = _costs_by_key(records)
    seconds = 0.0
    estimated_runs = 0
    other_runs = 0
    for status in statuses:
        if not status.is_left:
            continue
        cost = _expected_cost(status.run, costs)
        if cost is None:
            other_runs += 1
        else:
            estimated_runs += 1
            epochs_left = status.run.epochs - _finished_epochs(status)
            seconds += epochs_left * cost.epoch + cost.fixed
    return TimeLeft(seconds, estimated_runs, other_runs)


def _costs_by_key(records: Sequence[Record]) -> dict[Key, list[RunCost]]:
    costs: dict[Key, list[RunCost]] = defaultdict(list)
    for record in records:
        cost = _cost(record)
        if cost is None:
            continue
        keys = _similarity_keys(record.suite, record.task, record.backbone, record.method)
        for key in keys:
            costs[key].append(cost)
    return costs


def _cost(record: Record) -> RunCost | None:
    """Return what a finished run took, or None where that is not known."""
    seconds = record.seconds
    epochs = trained_epochs(record.config)
    if record.status != Status.DONE or seconds is None or seconds.fit is None:
        return None
    if not isinstance(epochs, int) or epochs < 1:  # a record that was made by hand
        return None
    build = seconds.build or 0.0
    evaluate = seconds.evaluate or 0.0
    return RunCost(epoch=seconds.fit / epochs, fixed=build + evaluate)


def _similarity_keys(suite: str, task: str, backbone: str, method: str) -> tuple[Key, ...]:
    """Return keys to look up similar runs, most specific first."""
    return (
        (suite, task, backbone, method),
        (suite, backbone, method),
        (suite, backbone),
    )


def _expected_cost(run: PlannedRun, costs: Mapping[Key, Sequence[RunCost]]) -> RunCost | None:
    """Return the median cost of the most similar runs, or None if there are none."""
    keys = _similarity_keys(run.task.suite, run.task.name, run.backbone.name, run.method)
    for key in keys:
        if key in costs:
            return RunCost(
                epoch=statistics.median(cost.epoch for cost in costs[key]),
                fixed=statistics.median(cost.fixed for cost in costs[key]),
            )
    return None


def _finished_epochs(status: RunStatus) -> int:
    """Return how many epochs a run that is running has behind it."""
    if status.state != RunState.RUNNING or status.holder is None:
        return 0
    return min(status.holder.lease.epoch, status.run.epochs)
