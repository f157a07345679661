"""A sweep without its processes: the command line, plans, and what a pool does with its runs."""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Clock, a_record
from safetensors.torch import save_file

from san import compose, record_file
from san.commands import reproduce
from san.data import task_data
from san.errors import FileAccessError, InvalidValueError, UnknownNameError
from san.installation import process_words
from san.record import Status
from san.runtime import lease, lease_holder
from san.runtime.lease_holder import STALE_AFTER_S, Lease, Sighting
from san.settings import RunConfig
from san.sweep import driver, plan, status
from san.sweep.plan import PlannedRun, RunState
from san.sweep.pool import Pool
from san.sweep.request import Launcher, SweepRequest
from san.sweep.worker import Assignment, Report, Verdict, Worker, do_run


def request(*words: str) -> SweepRequest:
    return reproduce.make_request(reproduce.parse_arguments(list(words)))


def test_the_command_of_a_job_means_the_same_sweep() -> None:
    words = ["--methods=ssf,san", "--tasks=digits", "--seeds=0,2", "--backbone=vit_nano"]
    words += ["--retry=failed,oom", "--fail-fast", "--launcher=slurm", "--jobs=3", "epochs=5"]
    asked = request("demo", *words)
    assert asked.seeds == (0, 2)
    assert asked.retry == (Status.FAILED, Status.OOM)
    start = process_words("reproduce")
    command = asked.worker_command(submitted_ns=17)
    assert command[: len(start)] == start
    job = request(*command[len(start) :])
    assert job.is_job
    assert job == replace(asked, launcher=Launcher.LOCAL, jobs=None, submitted_ns=17)


def test_the_old_option_for_the_cluster_file_still_works(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("num_gpus: 0.5\n")
    for option in ("--cluster", "--profile"):
        asked = request("demo", "--launcher", "ray", option, str(file))
        assert driver.cluster_options(asked) == {"num_gpus": 0.5}
    with pytest.raises(InvalidValueError, match="--cluster is for --launcher slurm or ray"):
        request("demo", "--cluster", str(file))


@pytest.mark.parametrize("launcher", ["slurm", "ray"])
def test_each_launcher_has_a_cluster_file(launcher: str) -> None:
    options = driver.cluster_options(request("demo", "--launcher", launcher))
    assert options


@pytest.mark.parametrize(
    ("text", "error"),
    [("- a list", InvalidValueError), ("a: [", FileAccessError), (None, FileAccessError)],
)
def test_a_bad_cluster_file_is_named(
    text: str | None, error: type[Exception], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=f"--cluster {file}"):
        driver.cluster_options(request("demo", "--launcher=ray", f"--cluster={file}"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--seeds", "a"], "--seeds came as 'a'; allowed: whole numbers"),
        (["--retry", "faild"], "Unknown --retry 'faild'. Did you mean failed"),
        (["--tasks", "digit"], "Unknown task of demo 'digit'. Did you mean digits"),
        (["force=true"], "force=true would run everything again"),
        (["force=True"], "force=true would run everything again"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(words: list[str], text: str) -> None:
    with pytest.raises((InvalidValueError, UnknownNameError)) as caught:
        driver.plan_sweep(request("demo", "--methods=linear", "--tasks=digits", *words))
    assert text in str(caught.value)


@pytest.fixture(scope="module")
def jobs(data_root: Path) -> list[RunConfig]:
    overrides = [f"data_root={data_root}", "logger=none"]
    return compose.compose_grid(["demo/digits"], ["linear"], [0, 1, 2], overrides)


@pytest.fixture
def runs(jobs: list[RunConfig], tmp_path: Path) -> list[PlannedRun]:
    """Three runs that differ in their seeds; nothing is recorded of them."""
    return plan.plan_runs(
        [RunConfig({**config, "results_dir": str(tmp_path)}, base) for config, base in jobs]
    )


def path_of(run: PlannedRun) -> Path:
    assert run.path is not None
    return run.path


def hold_elsewhere(run: PlannedRun, epoch: int = 0) -> Path:
    """Let a process on another host hold a run; return its file."""
    path = lease.lease_path(path_of(run))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = Lease("another-host", 1, "1", since=0.0, token="0a", epoch=epoch, epochs=9)
    path.write_text(json.dumps(asdict(content)))
    return path


def touch(path: Path, skew: float) -> None:
    now = time.time() + skew
    os.utime(path, (now, now))


def write(status: Status, run: PlannedRun) -> None:
    path = path_of(run)
    made = a_record(suite="gone", status=status, id=path.stem[-12:])
    record_file.write_record(made, path)


def test_states_are_read_off_records_leases_and_checkpoints(
    runs: list[PlannedRun], clock: Clock
) -> None:
    write(Status.OOM, runs[0])
    path_of(runs[1]).with_suffix(".checkpoint").touch()
    states = [plan.run_status(run).state for run in runs]
    assert states == [RunState.OOM, RunState.INTERRUPTED, RunState.MISSING]
    with lease.hold(lease.lease_path(path_of(runs[2]))):
        assert plan.run_status(runs[2]).state == RunState.RUNNING
    lease.lease_path(path_of(runs[2])).write_text("{}")  # of a machine that crashed
    assert plan.run_status(runs[2]).state == RunState.RUNNING
    clock.now += STALE_AFTER_S
    assert plan.run_status(runs[2]).state == RunState.CRASHED


def test_a_run_without_its_adapter_is_missing_if_adapters_are_saved(
    runs: list[PlannedRun],
) -> None:
    run = runs[0]
    write(Status.DONE, run)
    assert plan.run_status(run).state == RunState.DONE
    saving = replace(run, options=replace(run.options, save_adapter=True))
    missing = plan.run_status(saving)
    assert missing.state == RunState.MISSING
    (said,) = status.details([missing])
    assert said.endswith(f"{run.display_name}: done, but no adapter was saved ({run.path})")
    os.mkfifo(path_of(run).with_suffix(".safetensors"))
    assert plan.run_status(saving).state == RunState.MISSING
    path_of(run).with_suffix(".safetensors").unlink()
    path_of(run).with_suffix(".safetensors").touch()
    assert plan.run_status(saving).state == RunState.MISSING  # an empty file is no adapter
    save_file({"x": torch.ones(1)}, path_of(run).with_suffix(".safetensors"))
    assert plan.run_status(saving).state == RunState.DONE


def test_failed_runs_run_again_if_asked_for_and_recorded_before(runs: list[PlannedRun]) -> None:
    write(Status.FAILED, runs[0])
    write(Status.OOM, runs[1])
    assert plan.pending_runs(runs) == [runs[2]]
    assert plan.pending_runs(runs, [Status.FAILED]) == [runs[0], runs[2]]
    both = [Status.FAILED, Status.OOM]
    assert plan.pending_runs(runs, both) == runs
    submitted = record_file.mtime_ns(path_of(runs[1]))
    assert plan.pending_runs(runs[1:], both, submitted) == [runs[2]]
    assert plan.pending_runs(runs[1:], both, submitted + 1) == runs[1:]


def test_a_task_is_opened_once_and_a_bug_keeps_its_trace(
    jobs: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = 0

    def broken(*_: Any) -> None:
        nonlocal opened
        opened += 1
        raise error

    monkeypatch.setattr(task_data, "open_task", broken)
    error: Exception = InvalidValueError("the data is broken")
    planned = plan.plan_runs(jobs)
    assert [run.obstacle for run in planned] == ["the data is broken"] * 3
    assert opened == 1
    error = KeyError("a bug of ours")
    with pytest.raises(KeyError, match="a bug of ours"):
        plan.plan_runs(jobs)


class FakeWorker(Worker):
    """A worker without a process: what it reports is given by a test."""

    report = Report(Verdict.DONE)

    def __init__(self, device: str | None) -> None:
        self.device = device
        self.run = None
        self.assigned: list[PlannedRun] = []
        self.dead_leases: list[Sighting | None] = []

    @classmethod
    def start(cls, device: str | None) -> "FakeWorker":
        return cls(device)

    def assign(self, run: PlannedRun, known_mtime_ns: int, dead_lease: Sighting | None) -> None:
        self.run = run
        self.assigned.append(run)
        self.dead_leases.append(dead_lease)

    def receive(self) -> Report:
        return self.report


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "start", FakeWorker.start)


class Pooled:
    """A pool with fake workers, and what it logs."""

    def __init__(self, runs: Sequence[PlannedRun], **options: Any) -> None:
        self.lines: list[str] = []
        self.pool = Pool(runs, log=self.lines.append, **options)

    def assigned(self) -> list[PlannedRun | None]:
        return [worker.run for worker in self.pool.workers]

    def report(self, verdict: Verdict, text: str = "") -> None:
        (worker,) = self.pool.workers
        assert isinstance(worker, FakeWorker)
        worker.report = Report(verdict, text)
        self.pool.collect(worker)


def test_workers_get_the_next_runs_on_the_least_used_device(runs: list[PlannedRun]) -> None:
    pooled = Pooled(runs, jobs=5, devices=["0", "1"])
    pooled.pool.dispatch()
    assert pooled.assigned() == runs  # and no worker more than there are runs
    assert [worker.device for worker in pooled.pool.workers] == ["0", "1", "0"]


def test_a_run_that_another_sweep_has_tried_is_left_out(runs: list[PlannedRun]) -> None:
    pooled = Pooled(runs, jobs=1)
    write(Status.FAILED, runs[0])
    pooled.pool.dispatch()
    assert pooled.assigned() == [runs[1]]


@pytest.mark.parametrize(
    ("verdict", "stays", "held", "logged"),
    [
        (Verdict.DONE, True, False, ""),
        (Verdict.NOT_NEEDED, True, False, ""),
        (Verdict.HELD_ELSEWHERE, True, True, ""),
        (Verdict.STOPPED, False, True, ""),
        (Verdict.CRASHED, False, False, "demo/digits linear seed 0: text"),
        (Verdict.FAILED, False, False, "failed, and no record could be written: text"),
    ],
)
def test_a_verdict_decides_on_worker_and_run(
    verdict: Verdict, stays: bool, held: bool, logged: str, runs: list[PlannedRun]
) -> None:
    pooled = Pooled(runs, jobs=1)
    pooled.pool.dispatch()
    pooled.report(verdict, "text")
    assert len(pooled.pool.workers) == stays
    assert pooled.pool.held_elsewhere == runs[:1] * held
    assert len(pooled.lines) == bool(logged)
    assert logged in "".join(pooled.lines)


def test_a_failure_that_is_recorded_is_not_logged_again(runs: list[PlannedRun]) -> None:
    pooled = Pooled(runs, jobs=1)
    pooled.pool.dispatch()
    write(Status.FAILED, runs[0])
    pooled.report(Verdict.FAILED, "text")
    assert pooled.lines == []


def test_abandoned_runs_return_to_the_queue_and_finished_ones_leave(
    runs: list[PlannedRun],
) -> None:
    leases = [lease.lease_path(path_of(run)) for run in runs]
    with lease.hold(leases[0]):
        with lease.hold(leases[1]), lease.hold(leases[2]):
            pooled = Pooled(runs, jobs=1)
            assert pooled.pool.held_elsewhere == runs
            pooled.pool.requeue_abandoned()
            pooled.pool.requeue_abandoned()
            waiting = "Waiting for 3 runs held by other processes (Ctrl-C to stop waiting)."
            assert pooled.lines[0] == waiting
            assert len(pooled.lines) == 4  # each is said once
            assert f"process {os.getpid()}; it lives and holds {leases[0]}" in pooled.lines[1]
        write(Status.DONE, runs[1])
        pooled.pool.requeue_abandoned()
        assert pooled.pool.held_elsewhere == runs[:1]
        assert list(pooled.pool.queue) == runs[2:]
        # One that need not wait does so only for holders that may be dead.
        hasty = Pooled(runs[:1], jobs=1, wait_for_others=False)
        hasty.pool.requeue_abandoned()
        assert hasty.pool.held_elsewhere == []


@pytest.mark.parametrize("skew", [-400, 0, 3600])
def test_a_run_of_a_dead_host_is_given_to_a_worker_with_its_lease(
    skew: float, runs: list[PlannedRun], clock: Clock
) -> None:
    file = hold_elsewhere(runs[0])
    touch(file, skew)
    pooled = Pooled(runs[:1], jobs=1)
    pooled.pool.requeue_abandoned()
    assert pooled.lines == [
        "Waiting for 1 run held by other processes (Ctrl-C to stop waiting).",
        "  another-host process 1; its run is taken over after 300 s without a sign of life; "
        f"if that process is gone, remove {file}",
    ]
    clock.now += STALE_AFTER_S - 1
    touch(file, skew + 1)
    pooled.pool.requeue_abandoned()
    clock.now += STALE_AFTER_S - 1
    pooled.pool.requeue_abandoned()
    assert list(pooled.pool.queue) == []
    clock.now += 1
    pooled.pool.requeue_abandoned()
    assert list(pooled.pool.queue) == runs[:1]
    pooled.pool.dispatch()
    (worker,) = pooled.pool.workers
    assert isinstance(worker, FakeWorker)
    assert worker.dead_leases == [lease_holder.look(file)]


def test_a_job_waits_only_for_those_that_may_be_dead(runs: list[PlannedRun], clock: Clock) -> None:
    files = [hold_elsewhere(run) for run in runs[:2]]
    pooled = Pooled(runs[:2], jobs=1, wait_for_others=False)
    pooled.pool.requeue_abandoned()
    assert pooled.pool.held_elsewhere == runs[:2]
    clock.now += lease_holder.HEARTBEAT_S
    touch(files[0], 3600)
    pooled.pool.requeue_abandoned()
    assert pooled.pool.held_elsewhere == runs[1:2]
    clock.now += STALE_AFTER_S
    pooled.pool.requeue_abandoned()
    assert pooled.pool.held_elsewhere == []
    assert list(pooled.pool.queue) == runs[1:2]


@pytest.mark.parametrize("retry", [[], [Status.FAILED]])
def test_a_run_that_a_dead_host_had_begun_again_is_tried_again_if_asked_for(
    retry: list[Status], runs: list[PlannedRun], clock: Clock
) -> None:
    write(Status.FAILED, runs[0])
    file = hold_elsewhere(runs[0])
    pooled = Pooled(runs[:1], jobs=1, is_wanted=partial(plan.should_run, retry=retry))
    clock.now += STALE_AFTER_S
    pooled.pool.requeue_abandoned()
    assert list(pooled.pool.queue) == runs[: len(retry)]
    if retry:
        pooled.pool.dispatch()
        (worker,) = pooled.pool.workers
        assert isinstance(worker, FakeWorker)
        assert worker.dead_leases == [lease_holder.look(file)]


def test_a_worker_takes_over_what_the_pool_has_found_dead_and_nothing_else(
    runs: list[PlannedRun],
) -> None:
    file = hold_elsewhere(runs[0])
    touch(file, 3600)
    config = {**runs[0].run_config.config, "epochs": 1}
    assignment = Assignment(RunConfig(config, runs[0].run_config.base), known_mtime_ns=0)
    (planned,) = plan.plan_runs([assignment.run_config])
    file = file.rename(lease.lease_path(path_of(planned)))
    assert do_run(assignment).verdict == Verdict.HELD_ELSEWHERE
    dead = lease_holder.look(file)
    touch(file, 1800)
    told = replace(assignment, dead_lease=dead)
    assert do_run(told).verdict == Verdict.HELD_ELSEWHERE
    told = replace(assignment, dead_lease=lease_holder.look(file))
    assert do_run(told).verdict == Verdict.DONE
    assert plan.run_status(planned).state == RunState.DONE
    assert not file.exists()


@pytest.mark.parametrize(
    ("skew", "said"),
    [
        (0, ""),
        (-3 * 3600 - 60, ", no sign of life for 3.0 h by its file's time"),
        (2 * 3600 + 60, ", its file's time is 2.0 h ahead of this host's clock"),
    ],
)
def test_the_status_says_who_holds_a_run_since_when_and_the_way_out(
    skew: float, said: str, runs: list[PlannedRun]
) -> None:
    file = hold_elsewhere(runs[0], epoch=3)
    touch(file, skew)
    (line,) = status.details([plan.run_status(runs[0])])
    assert re.fullmatch(
        "running +demo/digits linear seed 0: another-host process 1, for [0-9.]+ h, epoch 3 of 9"
        f"{said}; if that process is gone, remove {file}",
        line,
    )
    file.write_text("")
    touch(file, skew)
    (line,) = status.details([plan.run_status(runs[0])])
    assert line.endswith(f": an unknown process{said}; if that process is gone, remove {file}")


def test_a_directory_in_the_place_of_a_lease_keeps_one_run_from_starting(
    runs: list[PlannedRun],
) -> None:
    write(Status.DONE, runs[1])
    for run in runs[:2]:
        lease.lease_path(path_of(run)).mkdir(parents=True)
    statuses = [plan.run_status(run) for run in runs]
    states = [found.state for found in statuses]
    assert states == [RunState.NOT_RUNNABLE, RunState.DONE, RunState.MISSING]
    assert plan.pending_runs(runs) == runs[2:]
    (line,) = status.details(statuses)
    assert f"{lease.lease_path(path_of(runs[0]))} is a directory" in line
    assert line.endswith("Move it away.")
