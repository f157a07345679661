"""Sweeps: planned in seconds, resumed after anything, shared without doing a run twice."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import a_record, composed
from msgspec.structs import replace

from san import compose, methods, record_file
from san.record import Seconds, Status
from san.runtime import lease
from san.runtime.lease_holder import Lease, Liveness, find_holder
from san.score import Score
from san.sweep import disk, plan, status
from san.sweep.duration import TimeLeft, estimate_time_left
from san.sweep.plan import PlannedRun, RunState, RunStatus
from san.tasks import load_suite

pytestmark = pytest.mark.sweep
ROOT = Path(__file__).parents[2]
PATIENCE_S = 1200  # a machine that does other work may be ten times slower
DIVERGING = ["epochs=1", "warmup_epochs=0", "lr=1e30"]


class Sweep:
    """Runs scripts/reproduce.py on a part of the demo suite."""

    def __init__(self, results: Path, data: Path) -> None:
        self.results = results
        self.overrides = ["epochs=2", "logger=none", f"results_dir={results}", f"data_root={data}"]

    def command(self, *options: str) -> list[str]:
        script = [sys.executable, str(ROOT / "scripts/reproduce.py"), "demo"]
        chosen = ["--methods", "san,linear", "--tasks", "digits,count", "--seeds", "0"]
        return [*script, *chosen, *options, *self.overrides]

    def __call__(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*options), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def start(self, *options: str) -> subprocess.Popen[str]:
        # Programs that run in the background ignore Ctrl-C.
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(self.command(*options), preexec_fn=heed, **pipes)  # noqa: PLW1509

    def table(self) -> str:
        return (self.results / "tables" / "demo.csv").read_text()

    def runs(self) -> list[PlannedRun]:
        tasks = ["demo/digits", "demo/count"]
        return plan.plan_runs(compose.compose_grid(tasks, ["san", "linear"], [0], self.overrides))


@pytest.fixture
def sweep(tmp_path: Path, data_root: Path) -> Sweep:
    return Sweep(tmp_path / "results", data_root)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> str:
    whole = Sweep(tmp_path_factory.mktemp("whole"), data_root)
    done = whole()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 runs: 4 done" in done.stdout
    return whole.table()


def running(sweep: Sweep) -> Lease | None:
    """The lease of a run that is running."""
    for path in sweep.results.rglob("*.claim"):
        holder = find_holder(path)
        if holder is not None and holder.liveness == Liveness.ALIVE:
            return holder.lease
    return None


def test_runs_are_those_that_hydra_composes_one_by_one(data_root: Path) -> None:
    overrides = ["epochs=3", "logger=none", f"data_root={data_root}"]
    tasks = ["demo/count", "vtab/cifar"]
    names = methods.method_names()
    jobs = compose.compose_grid(tasks, names, [0, 2], overrides)
    assert len(jobs) == 2 * len(names) * 2
    for config, base in jobs[::5]:
        data = f"data={config['data']['suite']}/{config['data']['task']}"
        chosen = [data, f"method={config['method']['name']}", f"seed={config['seed']}"]
        assert config == composed(*chosen, *overrides)
        # All tasks of a suite with the same recipe have the same default.
        suite = load_suite(config["data"]["suite"])
        first = f"data={suite.name}/{next(iter(suite.tasks))}"
        assert base == (composed(first, chosen[1]), {})


def test_a_second_sweep_finds_everything_done(sweep: Sweep, undisturbed: str) -> None:
    assert sweep().returncode == 0
    times = record_times(sweep)
    assert len(times) == 4
    again = sweep()
    assert again.returncode == 0
    assert record_times(sweep) == times
    assert sweep.table() == undisturbed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_sweep_goes_on(number: signal.Signals, sweep: Sweep, undisturbed: str) -> None:
    for moment in (0.3, 1.5):
        driver = sweep.start()
        while running(sweep) is None:
            time.sleep(0.05)
        time.sleep(moment)
        driver.send_signal(number)
        driver.communicate(timeout=60)
        assert driver.returncode in (-number, 143)
    time.sleep(4)  # what runs without its sweep saves itself and ends
    states = [plan.run_status(run).state for run in sweep.runs()]
    assert len(states) == 4
    assert RunState.RUNNING not in states
    done = sweep()
    assert done.returncode == 0, done.stdout + done.stderr
    assert sweep.table() == undisturbed
    assert suffixes(sweep) == {".json", ".answers"}


def suffixes(sweep: Sweep) -> set[str]:
    """Of the files among the records; leases and checkpoints would show."""
    return {path.suffix for path in (sweep.results / "records").rglob("*") if path.is_file()}


def record_times(sweep: Sweep) -> dict[Path, int]:
    return {path: record_file.mtime_ns(path) for path in sweep.results.rglob("records/**/*.json")}


def workers_of(pid: int) -> list[int]:
    """The processes that take runs: children of a sweep, but not Python's own resource tracker."""
    found = []
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        number, _, words = line.strip().partition(" ")
        if "spawn_main" in words:
            found.append(int(number))
    return found


def test_a_killed_run_has_crashed_and_the_rest_goes_on(sweep: Sweep, undisturbed: str) -> None:
    driver = sweep.start()
    while running(sweep) is None:
        time.sleep(0.05)
    (worker,) = workers_of(driver.pid)
    os.kill(worker, signal.SIGKILL)
    text, _ = driver.communicate(timeout=200)
    assert driver.returncode == 1, text
    assert "worker killed (SIGKILL); the same command resumes the run" in text
    assert "3 done, 1 crashed" in text
    assert "is gone; run the same command to resume it" in sweep("--status").stdout
    assert sweep().returncode == 0
    assert sweep.table() == undisturbed


def test_two_sweeps_share_the_work(sweep: Sweep, undisturbed: str) -> None:
    both = [sweep.start(), sweep.start()]
    texts = [p.communicate(timeout=PATIENCE_S)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0], texts
    done = [line for text in texts for line in text.splitlines() if " % in " in line]
    assert len(done) == 4
    assert sweep.table() == undisturbed


def test_a_run_that_fails_is_recorded_and_tried_again_on_request(sweep: Sweep) -> None:
    sweep.overrides = [*DIVERGING, *sweep.overrides[1:]]
    failed = sweep("--tasks", "digits")
    assert failed.returncode == 1
    assert re.search(r"^failed +demo/digits san \[.*\] seed 0: ", failed.stdout, re.MULTILINE)
    assert "NonFiniteLossError" in failed.stdout
    times = record_times(sweep)
    assert len(times) == 2
    again = sweep("--tasks", "digits")
    assert record_times(sweep) == times
    assert again.returncode == 1
    assert "2 failed" in again.stdout
    sweep("--tasks", "digits", "--retry", "failed")
    assert record_times(sweep) != times


def test_fail_fast_stops_another_sweep_before_its_next_run(sweep: Sweep) -> None:
    sweep.overrides[0] = "epochs=12"
    last = sweep.runs()[-1]
    first = sweep.start("--fail-fast")
    while running(sweep) is None:
        time.sleep(0.05)
    assert last.path is not None
    failure = a_record(status=Status.FAILED, task="count", method="linear")
    record_file.write_record(
        replace(failure, id=last.path.stem[-12:], error="elsewhere"), last.path
    )
    text, _ = first.communicate(timeout=200)
    assert first.returncode == 1, text
    assert "1 done, 1 failed, 2 missing" in " ".join(text.split("4 runs: ")[-1].split())


def test_a_run_whose_worker_is_stopped_is_resumed(sweep: Sweep, undisturbed: str) -> None:
    first = sweep.start()
    while running(sweep) is None:
        time.sleep(0.05)
    (worker,) = workers_of(first.pid)
    os.kill(worker, signal.SIGTERM)  # somebody stops the run, not the sweep
    text, _ = first.communicate(timeout=200)
    assert first.returncode == 0, text
    assert sweep.table() == undisturbed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--jobs", "0"], "--jobs: invalid positive value: '0'"),
        (["--seeds", "a"], "--seeds came as 'a'; allowed: whole numbers"),
        (["--retry", "faild"], "Unknown --retry 'faild'. Did you mean failed"),
        (["force=true"], "force=true would run everything again"),
    ],
)
def test_bad_arguments_are_said(options: list[str], said: str, sweep: Sweep) -> None:
    refused = sweep(*options)
    assert refused.returncode in (1, 2)
    assert said in refused.stderr
    assert not sweep.results.exists()


def test_a_run_that_takes_too_long_has_failed(sweep: Sweep) -> None:
    sweep.overrides = ["epochs=3000", "max_hours=0.0001", *sweep.overrides[1:]]
    late = sweep("--methods", "san", "--tasks", "digits")
    assert late.returncode == 1
    assert "TimeLimitError" in late.stdout
    assert "which is max_hours" in late.stdout


def test_fail_fast_stops_at_the_first(sweep: Sweep) -> None:
    sweep.overrides = [*DIVERGING, *sweep.overrides[1:]]
    assert sweep("--fail-fast").returncode == 1
    assert len(record_times(sweep)) == 1


def test_the_plan_runs_nothing_and_the_status_knows_who_runs(sweep: Sweep) -> None:
    assert "4 runs: 4 missing" in sweep("--plan").stdout
    assert not sweep.results.exists()
    path = sweep.runs()[0].path
    assert path is not None
    with lease.hold(lease.lease_path(path)) as held:
        assert held is not None
        held.report(1, 2)
        text = sweep("--status").stdout
        assert "4 runs: 1 running, 3 missing" in text
        assert f"process {os.getpid()}, for" in text
        assert "epoch 1 of 2" in text
    assert sweep("--methods", "sann").returncode == 1


def test_runs_without_data_are_listed_and_the_rest_is_planned(
    tmp_path: Path, data_root: Path
) -> None:
    overrides = [f"data_root={tmp_path}", f"results_dir={tmp_path}", "logger=none"]
    jobs = compose.compose_grid(["vtab/cifar", "demo/count"], ["linear"], [0], overrides)
    runs = plan.plan_runs(jobs)
    statuses = [plan.run_status(run) for run in runs]
    assert [s.state for s in statuses] == [RunState.NOT_RUNNABLE, RunState.MISSING]
    assert list(status.details(statuses)) == [
        "not_runnable 1 runs: 1 tasks are not prepared. python scripts/prepare.py vtab/cifar"
    ]
    assert plan.pending_runs(runs) == [runs[1]]
    estimate = disk.disk_estimate(statuses, jobs=1)
    parts = "260 kB records, 2 MB checkpoints of 1 concurrent run, 34 MB images of 1 tasks"
    assert f"({parts} to prepare)" in estimate
    assert "2 without an estimate" in status.summary(statuses)


def test_the_disk_of_a_plan_is_that_of_its_records_adapters_and_checkpoints(
    tmp_path: Path, data_root: Path
) -> None:
    overrides = ["save_adapter=true", f"data_root={data_root}", f"results_dir={tmp_path}"]
    runs = plan.plan_runs(compose.compose_grid(["demo/count"], ["full", "san"], [0, 1], overrides))
    head = 129 * 6  # six classes of 128 features and a bias
    full, san = 1_216_896 + head, 10_368 + head
    assert [disk.trainable_parameters(run) for run in runs] == [full, full, san, san]
    adapters = 2 * 4 * (full + san)  # two seeds; bytes of a float32
    checkpoints = 2 * 3 * 3 * 4 * full  # new and old; three runs; weights and two moments
    total = (adapters + checkpoints + 4 * disk.RECORD_BYTES) / 1e6
    statuses = [plan.run_status(run) for run in runs]
    estimate = disk.disk_estimate(statuses, jobs=3)
    assert estimate.startswith(f"disk needed: at most {total:.0f} MB")


def test_time_left_is_estimated_from_finished_runs(sweep: Sweep) -> None:
    runs = sweep.runs()
    path = runs[0].path
    assert path is not None
    statuses = [RunStatus(run, RunState.MISSING) for run in runs]
    assert "4 without an estimate" in status.summary(statuses)
    finished = a_record(
        id=path.stem[-12:],
        task="digits",
        method="linear",
        config={"epochs": 4},
        last=Score(4, 700, 797),
        best=Score(4, 700, 797),
        seconds=Seconds(fit=8.0, build=1.0, evaluate=2.0),
    )
    record_file.write_record(finished, path)
    statuses[0] = plan.run_status(runs[0])
    # Three runs of two epochs.
    seconds = 3 * (2 * 2.0 + 3.0)
    assert estimate_time_left(statuses, [finished]) == TimeLeft(seconds, 3, 0)
    assert json.loads(path.read_text())["status"] == "done"


def test_twenty_runs_killed_at_random_moments(sweep: Sweep, tmp_path: Path) -> None:
    sweep.overrides[0] = "epochs=6"
    whole = Sweep(tmp_path / "whole", tmp_path)
    whole.overrides = [
        o if not o.startswith("results_dir=") else f"results_dir={whole.results}"
        for o in sweep.overrides
    ]
    assert whole().returncode == 0
    records, _ = record_file.read_records(whole.results / "records")
    seconds = max(r.seconds.fit for r in records)
    draw = random.Random(0)
    kills = 0
    while kills < 20:
        driver = sweep.start()
        while driver.poll() is None and kills < 20:
            held = running(sweep)
            time.sleep(0.02 if held is None else draw.uniform(0, 0.5 * seconds))
            now = running(sweep)
            if held is not None and now is not None and now.token == held.token:
                os.kill(held.pid, signal.SIGKILL)
                kills += 1
        driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode != 0 or kills == 20, "the runs are too short to be killed"
    done = sweep()
    assert done.returncode == 0, done.stdout + done.stderr
    assert sweep.table() == whole.table()
    assert suffixes(sweep) == {".json", ".answers"}


FAILING = """
import contextlib
import errno, os, signal, torch

def failing(*args, **options):
    if not ({when}):
        return original(*args, **options)
    try:
        os.close(os.open(os.environ["ONCE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return original(*args, **options)
    {statement}

original = {function}
{function} = failing
"""


class Failure(NamedTuple):
    """What the first call of a function of the sweep's processes does, and what becomes of it."""

    function: str
    statement: str
    state: str
    said: str
    when: str = "True"


FAILURES = {
    "out of memory": Failure(
        "torch.autograd.backward",
        "raise torch.OutOfMemoryError('simulated')",
        "oom",
        "OutOfMemoryError: simulated",
    ),
    "exception": Failure(
        "torch.autograd.backward",
        "raise RuntimeError('an exception')",
        "failed",
        "RuntimeError: an exception",
    ),
    "kill -9": Failure(
        "torch.autograd.backward",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "crashed",
        "worker killed (SIGKILL)",
    ),
    "disk full": Failure(
        "os.fsync",
        "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))",
        "failed",
        "No space left on device",
        # Leases are synced as well, and are allowed to fail.
        when="'.json-' in os.readlink(f'/proc/self/fd/{args[0]}')",
    ),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_one_failure_costs_one_run(
    failure: Failure,
    sweep: Sweep,
    undisturbed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first step (or the first record) of the sweep fails, in whatever process it is."""
    text = FAILING
    for name in ["function", "when", "statement"]:
        text = text.replace(f"{{{name}}}", getattr(failure, name))
    (tmp_path / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    first = sweep()
    assert first.returncode == 1, first.stdout + first.stderr
    assert failure.said in first.stdout
    assert f"3 done, 1 {failure.state}" in first.stdout
    again = sweep("--retry", "failed,oom")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "4 runs: 4 done" in again.stdout
    assert sweep.table() == undisturbed


@pytest.fixture
def small_disk(sweep: Sweep) -> Iterator[Path]:
    """The results are on a file system of 4 MB, of which 16 kB are free: a record and a bit."""
    sweep.results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(sweep.results)]
    subprocess.run(mount, check=True)
    filler = sweep.results / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - 16384)
    yield filler
    subprocess.run(["umount", "--lazy", str(sweep.results)], check=True)


def test_a_file_system_that_fills_up_costs_no_run(
    sweep: Sweep, undisturbed: str, small_disk: Path
) -> None:
    first = sweep()
    said = first.stdout + first.stderr
    assert first.returncode == 1, said
    assert "No space left on device" in said
    assert "Traceback" not in said
    records, problems = record_file.read_records(sweep.results / "records")
    assert problems == []
    done = record_times(sweep)
    assert len(records) == len(done) < 4
    small_disk.unlink()
    second = sweep("--retry", "failed")
    assert second.returncode == 0, second.stdout + second.stderr
    assert sweep.table() == undisturbed
    assert suffixes(sweep) == {".json", ".answers"}
    assert done.items() <= record_times(sweep).items()


def test_what_another_sweep_has_tried_meanwhile_is_not_tried_again(sweep: Sweep) -> None:
    sweep.overrides = [*DIVERGING, *sweep.overrides[1:]]
    both = [sweep.start(), sweep.start()]
    texts = [p.communicate(timeout=PATIENCE_S)[0] for p in both]
    assert sum(text.count(": failed (The loss became") for text in texts) == 4


HOST = """
import os, time
from san.runtime import lease_holder

lease_holder.HEARTBEAT_S = 0.3
lease_holder.ALIVE_FOR_S = 15.0
lease_holder.STALE_AFTER_S = 30.0  # a busy machine must not let a heart seem to stop
right_time, right_utime = time.time, os.utime

def skewed_time():
    return right_time() + {skew}

def skewed_utime(path, times=None, **options):
    if times is None and not options:
        times = (skewed_time(), skewed_time())
    return right_utime(path, times, **options)

time.time = skewed_time
os.utime = skewed_utime
"""


class Host:
    """A host of its own name and clock that works on a sweep; its heart beats fast.

    skew: seconds by which its clock, and the times that it gives to files, are wrong.
    """

    def __init__(self, name: str, folder: Path, skew: float) -> None:
        self.name = name
        folder = folder / name
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HOST.format(skew=skew))
        self.environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}

    def start(self, sweep: Sweep, *options: str) -> subprocess.Popen[str]:
        script = f'hostname {self.name} && exec "$@"'
        unshared = ["unshare", "--uts", "--fork", "sh", "-c", script, "sh"]
        return subprocess.Popen(
            [*unshared, *sweep.command(*options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            start_new_session=True,
        )


def runs_done(text: str) -> int:
    return text.count(" % in ")


def test_two_hosts_whose_clocks_are_wrong_share_the_work(
    sweep: Sweep, data_root: Path, tmp_path: Path
) -> None:
    whole = Sweep(tmp_path / "whole", data_root)
    for each in (whole, sweep):
        each.overrides[0] = "epochs=6"  # runs take longer than a host takes to start
    alone = whole()
    assert alone.returncode == 0, alone.stdout + alone.stderr
    hosts = [Host("behind", tmp_path, skew=-400), Host("ahead", tmp_path, skew=400)]
    both = [host.start(sweep) for host in hosts]
    texts = [process.communicate(timeout=PATIENCE_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    done = [runs_done(text) for text in texts]
    assert sum(done) == 4, texts
    assert min(done) > 0, texts
    assert sweep.table() == whole.table()
    assert suffixes(sweep) == {".json", ".answers"}


def test_the_run_of_a_host_that_died_is_taken_over(
    sweep: Sweep, undisturbed: str, tmp_path: Path
) -> None:
    dying = Host("dying", tmp_path, skew=3600).start(sweep)
    while not (held := lease_of("dying", sweep)):
        time.sleep(0.05)
    os.killpg(dying.pid, signal.SIGKILL)
    before, _ = dying.communicate(timeout=60)
    heir = Host("heir", tmp_path, skew=0).start(sweep)
    text, _ = heir.communicate(timeout=PATIENCE_S)
    assert heir.returncode == 0, text
    assert f"dying process {held.pid}" in text
    assert "ahead of this host's clock; if that process is gone, remove " in text
    assert runs_done(before) + runs_done(text) == 4
    assert sweep.table() == undisturbed
    assert suffixes(sweep) == {".json", ".answers"}


def lease_of(host: str, sweep: Sweep) -> Lease | None:
    """The lease of a run that a host holds, once it has touched it."""
    for path in sweep.results.rglob("*.claim"):
        holder = find_holder(path)
        if holder is not None and (holder.lease.host, holder.liveness) == (host, Liveness.ALIVE):
            return holder.lease
    return None
