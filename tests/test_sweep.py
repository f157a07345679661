"""Sweeps: planned in seconds, resumed after anything, shared without doing a run twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from conftest import composed

from san import border, claim, methods, plan, record

pytestmark = pytest.mark.sweep
ROOT = Path(__file__).parents[1]


class Sweep:
    """Runs scripts/reproduce.py on a part of the demo suite."""

    def __init__(self, results: Path, data: Path) -> None:
        self.results = results
        self.overrides = ["epochs=2", "logger=none", f"results={results}", f"data_root={data}"]

    def command(self, *options: str) -> list[str]:
        chosen = ["--methods", "linear,san", "--tasks", "digits,count"]
        return [sys.executable, str(ROOT / "scripts/reproduce.py"), "demo", *chosen, *options, *self.overrides]

    def __call__(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*options), capture_output=True, text=True, timeout=300, check=False)

    def start(self, *options: str) -> subprocess.Popen[str]:
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background ignores it
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(self.command(*options), preexec_fn=heed, **pipes)  # noqa: PLW1509

    def table(self) -> str:
        return (self.results / "tables" / "demo.csv").read_text()

    def cells(self) -> list[plan.Cell]:
        found = border.sweep(["demo/digits", "demo/count"], ["linear", "san"], [0], self.overrides)
        return [plan.cell(*each) for each in found]


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


def test_runs_are_those_that_hydra_composes_one_by_one(data_root: Path) -> None:
    overrides = ["epochs=3", "logger=none", f"data_root={data_root}"]
    cells = border.sweep(["demo/count", "vtab/cifar"], methods.names(), [0, 2], overrides)
    assert len(cells) == 2 * 18 * 2
    for config, kept in cells[::5]:
        data = f"data={config['data']['suite']}/{config['data']['task']}"
        wanted = composed(data, f"method={config['method']['name']}", f"seed={config['seed']}", *overrides)
        assert config == wanted
        assert kept == ["epochs=3"]


def test_a_second_sweep_finds_everything_done(sweep: Sweep, undisturbed: str) -> None:
    assert sweep().returncode == 0
    stamps = {p: p.stat().st_mtime_ns for p in sweep.results.rglob("records/**/*.json")}
    assert len(stamps) == 4
    again = sweep()
    assert again.returncode == 0
    assert {p: p.stat().st_mtime_ns for p in sweep.results.rglob("records/**/*.json")} == stamps
    assert sweep.table() == undisturbed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_sweep_goes_on(number: signal.Signals, sweep: Sweep, undisturbed: str) -> None:
    for moment in (5.0, 7.5):
        running = sweep.start()
        time.sleep(moment)
        running.send_signal(number)
        running.communicate(timeout=60)
        assert running.returncode in (-number, 143, 130, 0)
    time.sleep(4)  # what runs without its sweep saves itself and ends
    assert not [c for c in sweep.cells() if plan.state(c).name == "running"]
    done = sweep()
    assert done.returncode == 0, done.stdout + done.stderr
    assert sweep.table() == undisturbed
    assert sorted({p.suffix for p in (sweep.results / "records").rglob("*") if p.is_file()}) == [".json"]


def workers_of(pid: int) -> list[int]:
    """The processes that take runs: children of a sweep, but not Python's own resource tracker."""
    found = []
    for line in subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout.splitlines():
        number, _, words = line.strip().partition(" ")
        if "spawn_main" in words:
            found.append(int(number))
    return found


def test_a_killed_run_is_lost_and_the_rest_goes_on(sweep: Sweep, undisturbed: str) -> None:
    running = sweep.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(plan.state(c).name == "running" for c in sweep.cells()):
        time.sleep(0.1)
    (worker,) = workers_of(running.pid)
    os.kill(worker, signal.SIGKILL)
    text, _ = running.communicate(timeout=200)
    assert running.returncode == 1, text
    assert "its process died of signal 9 (SIGKILL)" in text
    assert "3 done, 1 lost" in text
    status = sweep("--status")
    assert "is gone; the same command runs it again" in status.stdout
    assert sweep().returncode == 0
    assert sweep.table() == undisturbed


def test_two_sweeps_share_the_work(sweep: Sweep, undisturbed: str) -> None:
    both = [sweep.start(), sweep.start()]
    texts = [p.communicate(timeout=280)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0], texts
    done = [line for text in texts for line in text.splitlines() if " % in " in line]
    assert len(done) == 4
    assert sweep.table() == undisturbed


def test_a_run_that_fails_is_recorded_and_tried_again_on_request(sweep: Sweep) -> None:
    sweep.overrides = [o for o in sweep.overrides if not o.startswith("epochs")] + [
        "epochs=1",
        "warmup_epochs=0",
        "lr=1e30",
    ]
    failed = sweep("--tasks", "digits")
    assert failed.returncode == 1
    assert failed.stdout.count("failed   demo/digits") >= 1
    assert "NonFiniteLossError" in failed.stdout
    stamps = {p: p.stat().st_mtime_ns for p in sweep.results.rglob("records/**/*.json")}
    again = sweep("--tasks", "digits")
    assert {p: p.stat().st_mtime_ns for p in sweep.results.rglob("records/**/*.json")} == stamps
    assert "failed" in again.stdout
    sweep("--tasks", "digits", "--retry", "failed")
    assert {p: p.stat().st_mtime_ns for p in sweep.results.rglob("records/**/*.json")} != stamps


def test_fail_fast_stops_at_the_first(sweep: Sweep) -> None:
    sweep.overrides = [o for o in sweep.overrides if not o.startswith("epochs")] + [
        "epochs=1",
        "warmup_epochs=0",
        "lr=1e30",
    ]
    assert sweep("--fail-fast").returncode == 1
    assert len(list(sweep.results.rglob("records/**/*.json"))) < 4


def test_the_plan_runs_nothing_and_the_status_knows_who_runs(sweep: Sweep) -> None:
    assert "4 runs: 4 missing" in sweep("--plan").stdout
    assert not sweep.results.exists()
    cell = sweep.cells()[0]
    assert cell.path is not None
    with claim.held(claim.path_of(cell.path)) as report:
        assert report is not None
        report(1, 2)
        status = sweep("--status").stdout
        assert "4 runs: 1 running, 3 missing" in status
        assert f"process {os.getpid()}, for" in status
        assert "epoch 1 of 2" in status
    assert sweep("--methods", "sann").returncode == 1


def test_what_cannot_be_run_is_said_and_the_rest_is_planned(tmp_path: Path, data_root: Path) -> None:
    overrides = [f"data_root={tmp_path}", f"results={tmp_path}", "logger=none"]
    cells = [plan.cell(*each) for each in border.sweep(["vtab/cifar", "demo/count"], ["linear"], [0], overrides)]
    states = [plan.state(c) for c in cells]
    assert [s.name for s in states] == ["blocked", "missing"]
    assert "vtab/cifar is not prepared" in plan.lines(cells, states)[0]
    assert plan.todo(cells) == [cells[1]]


def test_time_left_is_estimated_from_what_is_done(sweep: Sweep) -> None:
    cells = sweep.cells()
    path = cells[0].path
    assert path is not None
    states = [plan.State("missing") for _ in cells]
    assert "4 runs like none that is done" in plan.summary(cells, states)
    from test_tables import done as made

    one = made(800, task="digits", method="linear")
    record.write(one, path)
    states[0] = plan.state(cells[0])
    left, unknown = plan.seconds_left(cells, states)
    assert (left, unknown) == (3 * one.seconds["fit"], 0)
    assert json.loads(path.read_text())["status"] == "done"


def test_random_moments(sweep: Sweep, undisturbed: str) -> None:
    """Runs are killed without warning at random moments until nothing is left to do."""
    draw = random.Random(0)
    for _ in range(4):
        running = sweep.start()
        time.sleep(draw.uniform(4, 9))
        for worker in workers_of(running.pid):
            os.kill(worker, signal.SIGKILL)
        running.kill()
        running.communicate()
    done = sweep()
    assert done.returncode == 0, done.stdout + done.stderr
    assert sweep.table() == undisturbed
