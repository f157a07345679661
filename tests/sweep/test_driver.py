"""A sweep without its processes: the command line, plans, and what a pool does with its runs."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import a_record

from san import compose, record
from san.data import task_data
from san.errors import FileAccessError, InvalidValueError, UnknownNameError
from san.record import Status
from san.runtime import lease
from san.settings import RunConfig
from san.sweep import driver, plan
from san.sweep.plan import PlannedRun, RunState
from san.sweep.pool import Pool
from san.sweep.request import Launcher, SweepRequest
from san.sweep.worker import Report, Verdict, Worker
from scripts import reproduce


def request(*words: str) -> SweepRequest:
    return reproduce.make_request(reproduce.parse_arguments(list(words)))


def test_the_command_of_a_job_means_the_same_sweep() -> None:
    words = ["--methods=ssf,san", "--tasks=digits", "--seeds=0,2", "--backbone=vit_nano"]
    words += ["--retry=failed,oom", "--fail-fast", "--launcher=slurm", "--jobs=3", "epochs=5"]
    asked = request("demo", *words)
    assert asked.seeds == (0, 2)
    assert asked.retry == (Status.FAILED, Status.OOM)
    _, script, *command = asked.worker_command(submitted_ns=17)
    assert Path(script).samefile(reproduce.__file__)
    job = request(*command)
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


def write(status: Status, run: PlannedRun) -> None:
    record.write_record(a_record(status=status), path_of(run))


def test_states_are_read_off_records_leases_and_checkpoints(runs: list[PlannedRun]) -> None:
    write(Status.OOM, runs[0])
    path_of(runs[1]).with_suffix(".checkpoint").touch()
    states = [plan.run_status(run).state for run in runs]
    assert states == [RunState.OOM, RunState.INTERRUPTED, RunState.MISSING]
    with lease.hold(lease.lease_path(path_of(runs[2]))):
        assert plan.run_status(runs[2]).state == RunState.RUNNING
    lease.lease_path(path_of(runs[2])).write_text("{}")  # of a machine that crashed long ago
    os.utime(lease.lease_path(path_of(runs[2])), (0.0, 0.0))
    assert plan.run_status(runs[2]).state == RunState.CRASHED


def test_a_run_without_its_adapter_is_missing_if_adapters_are_saved(
    runs: list[PlannedRun],
) -> None:
    run = runs[0]
    write(Status.DONE, run)
    assert plan.run_status(run).state == RunState.DONE
    saving = replace(run, options=replace(run.options, save_adapter=True))
    assert plan.run_status(saving).state == RunState.MISSING
    path_of(run).with_suffix(".safetensors").touch()
    assert plan.run_status(saving).state == RunState.DONE


def test_failed_runs_run_again_if_asked_for_and_recorded_before(runs: list[PlannedRun]) -> None:
    write(Status.FAILED, runs[0])
    write(Status.OOM, runs[1])
    assert plan.pending_runs(runs) == [runs[2]]
    assert plan.pending_runs(runs, [Status.FAILED]) == [runs[0], runs[2]]
    both = [Status.FAILED, Status.OOM]
    assert plan.pending_runs(runs, both) == runs
    submitted = record.mtime_ns(path_of(runs[1]))
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

    @classmethod
    def start(cls, device: str | None) -> "FakeWorker":
        return cls(device)

    def assign(self, run: PlannedRun, known_mtime: int) -> None:
        self.run = run
        self.assigned.append(run)

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
            assert pooled.lines == [waiting]
        write(Status.DONE, runs[1])
        pooled.pool.requeue_abandoned()
        assert pooled.pool.held_elsewhere == runs[:1]
        assert list(pooled.pool.queue) == runs[2:]
        # One that need not wait does so only for holders that miss their heartbeat.
        hasty = Pooled(runs[:1], jobs=1, wait_for_others=False)
        hasty.pool.requeue_abandoned()
        assert hasty.pool.held_elsewhere == []
