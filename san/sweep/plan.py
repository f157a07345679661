"""The runs of a sweep, and the state of each.

A state is read off records and leases alone, so it can be asked at any moment, whichever process
does the run.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from san import record_file, settings
from san.backbones import Backbone
from san.config_keys import check_keys
from san.data import task_data
from san.data.packed_task import PackedTask
from san.errors import FileAccessError, InvalidValueError, NotPreparedError, RecordError, SanError
from san.experiment import Experiment, OpenTask, Seed, from_config
from san.record import Record, Status
from san.run_options import RunOptions
from san.runtime import lease
from san.runtime.lease_holder import Holder, Liveness, find_holder
from san.schema import check_value
from san.settings import RunConfig
from san.tasks import Suite, Task
from san.training.schedule import trained_epochs


class RunState(StrEnum):
    """How far a run is, in the order in which a summary lists them.

    interrupted: it left a checkpoint. crashed: its process died without removing its lease.
    missing: nothing is there. not_runnable: planning it raised an error, such as missing data, or
    something is in the place of its lease.
    """

    DONE = "done"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    OOM = "oom"
    CRASHED = "crashed"
    MISSING = "missing"
    NOT_RUNNABLE = "not_runnable"


PENDING = (RunState.MISSING, RunState.INTERRUPTED, RunState.CRASHED)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, and what estimates of its cost need to know.

    run_config: what the process that does the run is given. variant: what sets it apart from its
    default, in words. path: of the record; None if the run
    cannot be done, for the reason in `obstacle`. is_prepared: False if that reason is that the
    task's images are not packed yet; they take `bytes_needed` (0 where unknown).
    """

    task: Task
    backbone: Backbone
    method: str
    method_options: dict[str, Any]
    seed: int
    epochs: int
    optimizer: str
    options: RunOptions
    run_config: RunConfig
    variant: str = ""
    path: Path | None = None
    obstacle: str = ""
    is_prepared: bool = True
    bytes_needed: int = 0

    @property
    def task_name(self) -> str:
        """The task as users write it, such as `vtab/cifar`."""
        return f"{self.task.suite}/{self.task.name}"

    @property
    def display_name(self) -> str:
        """The name of the run in messages."""
        extra = f" [{settings.shorten_variant(self.variant)}]" if self.variant else ""
        return f"{self.task_name} {self.method}{extra} seed {self.seed}"


@dataclass(frozen=True)
class RunStatus:
    """The state of a run, with its record if it has one.

    A run that is done, but for its adapter, is missing, with its record.
    holder: the process that does the run, or that crashed. On another host it counts as running
    until this process has watched its lease for long enough.
    """

    run: PlannedRun
    state: RunState
    record: Record | None = None
    holder: Holder | None = None

    @property
    def is_left(self) -> bool:
        """Whether the run is still to be finished: it waits, runs, or only lacks its data."""
        if self.state == RunState.NOT_RUNNABLE:
            return not self.run.is_prepared
        return self.state in PENDING or self.state == RunState.RUNNING


def plan_runs(configs: Sequence[RunConfig]) -> list[PlannedRun]:
    """Return the runs of resolved configurations.

    Each task is opened once, and what differs in its seed alone is checked once. Raises SanError if
    a setting of the whole sweep is wrong; an error of a single run becomes its `obstacle`.
    """
    open_task = _TaskCache().open
    runs: list[PlannedRun] = []
    for seeds in _by_seed(configs):
        runs += _plan_seeds(seeds, open_task)
    return runs


def _by_seed(configs: Sequence[RunConfig]) -> list[list[RunConfig]]:
    """Return neighbours that differ in their seed alone, group by group."""
    groups: list[list[RunConfig]] = []
    for config in configs:
        if groups and _differ_in_seed(groups[-1][0], config):
            groups[-1].append(config)
        else:
            groups.append([config])
    return groups


def _differ_in_seed(a: RunConfig, b: RunConfig) -> bool:
    """Return whether two runs have the very same settings, but for their valid seeds."""
    if a.base is not b.base or a.config.keys() != b.config.keys():
        return False
    # Equal values would not do: 1, 1.0 and True are.
    others = a.config.keys() - {"seed"}
    if any(a.config[key] is not b.config[key] for key in others):
        return False
    return _is_seed(a.config.get("seed")) and _is_seed(b.config.get("seed"))


def _is_seed(value: object) -> bool:
    """Return whether a run can have this seed; others are planned alone."""
    try:
        check_value(value, Seed, "seed")
    except InvalidValueError:
        return False
    return True


def _plan_seeds(configs: Sequence[RunConfig], open_task: OpenTask) -> list[PlannedRun]:
    """Return the runs of configurations that differ in their seed alone; see `plan_runs`."""
    run = _describe_run(configs[0])
    try:
        experiment = from_config(*configs[0], open_task)
        return [_with_path(run, config, experiment) for config in configs]
    except NotPreparedError as error:
        needed = error.bytes_needed
        run = replace(run, obstacle=str(error), is_prepared=False, bytes_needed=needed)
        return [_with_seed(run, config) for config in configs]
    except SanError as error:
        run = replace(run, obstacle=str(error))
        return [_with_seed(run, config) for config in configs]


def _with_seed(run: PlannedRun, config: RunConfig) -> PlannedRun:
    """Return a run with the seed of a configuration that differs in nothing else."""
    return replace(run, seed=config.config["seed"], run_config=config)


def _with_path(run: PlannedRun, config: RunConfig, experiment: Experiment) -> PlannedRun:
    """Return the same with the place of its record; experiment: of a run with any seed."""
    path = experiment.with_seed(config.config["seed"]).record_path(run.options.results_dir)
    return replace(_with_seed(run, config), path=path, variant=experiment.variant)


def run_status(run: PlannedRun) -> RunStatus:
    """Look up the state of a run."""
    if run.path is None:
        return RunStatus(run, RunState.NOT_RUNNABLE)
    # The lease is read first: a run that ends meanwhile has written its record by then.
    try:
        holder = find_holder(lease.lease_path(run.path))
    except FileAccessError as error:
        status = _recorded_status(run, run.path, None)
        if status.state not in PENDING:
            return status
        return RunStatus(replace(run, obstacle=str(error)), RunState.NOT_RUNNABLE)
    if holder is not None and holder.liveness != Liveness.DEAD:
        return RunStatus(run, RunState.RUNNING, holder=holder)
    return _recorded_status(run, run.path, holder)


def _recorded_status(run: PlannedRun, path: Path, holder: Holder | None) -> RunStatus:
    """Return the state of a run that no process does.

    path: of its record; holder: the process that left its lease when it died.
    """
    try:
        found = record_file.read_record_of_run(path)
    except RecordError:
        if holder is not None:
            return RunStatus(run, RunState.CRASHED, holder=holder)
        has_checkpoint = path.with_suffix(".checkpoint").is_file()
        return RunStatus(run, RunState.INTERRUPTED if has_checkpoint else RunState.MISSING)
    # `save_adapter` may have been set only after the run was done.
    is_done = found.status == Status.DONE
    if is_done and record_file.find_completed(path, run.options.save_adapter) is None:
        return RunStatus(run, RunState.MISSING, found, holder)
    return RunStatus(run, RunState(found.status), found, holder)


def pending_runs(
    runs: Sequence[PlannedRun],
    retry: Collection[Status] = (),
    recorded_before_ns: int | None = None,
) -> list[PlannedRun]:
    """Return the runs that have to be done, and those that run now, as their process may yet die.

    retry: states that run again, if their record was written before `recorded_before_ns` (None: at
    any time).
    """
    return [run for run in runs if should_run(run_status(run), retry, recorded_before_ns)]


def should_run(
    status: RunStatus, retry: Collection[Status] = (), recorded_before_ns: int | None = None
) -> bool:
    """Return whether a run in this state has to be done; see `pending_runs`."""
    if status.state in PENDING or status.state == RunState.RUNNING:
        return True
    failed = status.record
    if failed is None or failed.status not in retry or status.run.path is None:
        return False
    if recorded_before_ns is None:
        return True
    return record_file.mtime_ns(status.run.path) < recorded_before_ns


class _TaskCache:
    """Opens each task once; one that cannot be opened raises the same error again."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], PackedTask | SanError] = {}

    def open(
        self, suite: Suite, task: Task, root: Path, resize: str, image_size: int
    ) -> PackedTask:
        """Open a task; the arguments are those of `task_data.open_task`."""
        key = (suite.name, task.name, root, resize, image_size)
        if key not in self._found:
            try:
                self._found[key] = task_data.open_task(suite, task, root, resize, image_size)
            except SanError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, SanError):
            # Without this, each raise would add its frames to those of all raises before it.
            raise found.with_traceback(None)
        return found


def _describe_run(run_config: RunConfig) -> PlannedRun:
    """Return a run without a path; the only place of a sweep that reads configuration keys."""
    config = run_config.config
    check_keys(config)
    method_options = dict(config["method"])
    method = method_options.pop("name")
    return PlannedRun(
        task=task_data.task_of(config["data"])[1],
        backbone=Backbone.from_config(config["backbone"]),
        method=method,
        method_options=method_options,
        seed=config["seed"],
        epochs=trained_epochs(config),
        optimizer=config["optimizer"],
        options=RunOptions.from_config(config),
        run_config=run_config,
    )
