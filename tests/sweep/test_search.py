"""A search as a sweep: its runs are planned, done, chosen among and written, whatever stops it."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import composed

from san import recipe_files, record_file
from san.commands import search as program
from san.errors import InvalidValueError, UnknownNameError
from san.installation import process_words
from san.record import Status
from san.runtime.lease_holder import Liveness, find_holder
from san.search import space
from san.sweep import ablation, driver
from san.sweep.arguments import make_request
from san.sweep.plan import PlannedRun, run_status
from san.sweep.request import Launcher, SweepRequest
from san.sweep.worker import Assignment, Verdict, do_run

ROOT = Path(__file__).parents[2]
PATIENCE_S = 1200  # a machine that does other work may be ten times slower
OWN = """
sampling: grid
trials: 3
space:
  lr: {values: [0.001, 0.01, 1.0e+30]}
additions:
  lora: {method.rank: [1, 2]}
"""


def request(*words: str) -> SweepRequest:
    args = program.parse_arguments(list(words))
    return make_request(args, args.search, args.trials, args.tuned_dir)


@pytest.fixture
def words(tmp_path: Path, data_root: Path) -> list[str]:
    """The words of a search of one epoch on one task, which writes below `tmp_path`."""
    return [
        "demo",
        "--tasks=digits",
        f"--tuned-dir={tmp_path / 'tuned'}",
        "epochs=1",
        "warmup_epochs=0",
        "logger=none",
        f"results_dir={tmp_path / 'results'}",
        f"data_root={data_root}",
    ]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> list[str]:
    """The same words with a search of one's own, one of whose learning rates diverges."""
    (tmp_path / "searches").mkdir()
    (tmp_path / "searches" / "own.yaml").write_text(OWN)
    monkeypatch.setattr(space, "SPACES", tmp_path / "searches")
    return [*words, "--search=own"]


def do(runs: list[PlannedRun]) -> list[Verdict]:
    """Do runs in this process."""
    return [do_run(Assignment(run.run_config, known_mtime_ns=0)).verdict for run in runs]


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_point_is_a_run_of_every_method_task_and_seed(words: list[str]) -> None:
    asked = request(*words, "--methods=ssf,lora,san:propagation=off", "--seeds=0,1")
    runs = driver.plan_sweep(asked)
    assert len(runs) == 3 * 5 * 2
    assert len({run.path for run in runs}) == 30
    for run in runs:
        config = run.run_config.config
        assert config["protocol"]["name"] == "tune"
        assert (config["epochs"], config["results_dir"][-7:]) == (1, "/search")
    assert {run.run_config.config["lr"] for run in runs} == {
        point["lr"] for point in space.load_search("lr").points("san")
    }
    ranked = driver.plan_sweep(request(*words, "--methods=ssf,lora", "--search=lr_rank"))
    assert len(ranked) == 5 + 15
    ranks = [run.run_config.config["method"].get("rank") for run in ranked]
    assert [ranks.count(rank) for rank in (None, 4, 8, 16)] == [5, 5, 5, 5]
    fewer = request(*words, "--methods=ssf", "--trials=2", "--tasks=digits,count")
    assert len(driver.plan_sweep(fewer)) == 2 * 2


def test_the_command_of_a_job_means_the_same_trials(words: list[str]) -> None:
    asked = request(*words, "--search=lr_wd", "--trials=8", "--launcher=slurm", "--jobs=2")
    start = process_words("search")
    words = asked.worker_command(submitted_ns=17)
    assert words[: len(start)] == start
    job = request(*words[len(start) :])
    # A job writes nothing: the one who submitted does, once all trials are there.
    changes = {"launcher": Launcher.LOCAL, "jobs": None, "tuned_dir": None}
    assert job == replace(asked, submitted_ns=17, **changes)
    assert job.is_job


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["lr=0.1"], "lr=0.1 came beside a search, which tries values of"),
        (["recipe=tuned"], "recipe=tuned came beside a search, which tries values of lr"),
        (["protocol=last_epoch"], "protocol=last_epoch came beside a search"),
        (["--search=lr_rank", "method.rank=4"], "method.rank=4 came beside a search"),
        (["--search=lr_rank", "--methods=lora:rank=4"], "method.rank=4 came beside a search"),
        (["--search=lr_wd", "weight_decay=0"], "weight_decay=0 came beside a search"),
        (["--search=mai", "--trials=5"], "5 trials came; mai takes 4, one for each combination"),
    ],
)
def test_what_a_search_would_swallow_is_refused(
    given: list[str], said: str, words: list[str]
) -> None:
    with pytest.raises(InvalidValueError, match=said):
        driver.plan_sweep(request(*words, "--methods=lora", *given))


def test_an_option_that_is_searched_for_another_method_may_be_given(words: list[str]) -> None:
    asked = request(*words, "--search=lr_rank", "--methods=san_lora:rank=4")
    runs = driver.plan_sweep(asked)
    assert [run.run_config.config["method"]["rank"] for run in runs] == [4] * 5


def test_a_setting_that_is_none_is_named(own: list[str], tmp_path: Path) -> None:
    file = tmp_path / "searches" / "own.yaml"
    for old, new, said in [
        ("  lr:", "  lrr:", "Unknown searched setting 'lrr'. Did you mean lr"),
        ("rank", "ranks", "Unknown searched setting 'method.ranks'. Did you mean method.rank"),
    ]:
        file.write_text(OWN.replace(old, new))
        with pytest.raises(UnknownNameError, match=said):
            driver.plan_sweep(request(*own, "--methods=lora"))


def test_an_option_that_no_recipe_gives_is_not_searched(own: list[str], tmp_path: Path) -> None:
    """What was found would be written, and recipe=tuned would ignore it."""
    (tmp_path / "searches" / "own.yaml").write_text(OWN.replace("method.rank", "method.scale"))
    said = r"Write `scale: \$\{recipe:method.scale,DEFAULT\}` in configs/method/lora.yaml"
    with pytest.raises(InvalidValueError, match=said):
        driver.plan_sweep(request(*own, "--methods=lora"))


def test_a_search_writes_what_it_found(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = request(*own, "--methods=linear,lora")
    runs = driver.plan_sweep(asked)
    assert len(runs) == 3 + 6
    path = tmp_path / "tuned" / "demo_vit_nano_own.csv"
    # Nothing is written of a method that has trials left.
    diverging = [run for run in runs if run.run_config.config["lr"] > 1]
    good = [run for run in runs if run not in diverging]
    assert do(good) == [Verdict.DONE] * 6
    assert not driver.write_search(asked, runs)
    assert not path.exists()
    left = "Trials are left, so nothing is written of: linear on digits, lora on digits."
    assert left in capsys.readouterr().out
    # A trial that failed has ended.
    assert do(diverging) == [Verdict.FAILED] * 3
    capsys.readouterr()
    assert driver.write_search(asked, runs)
    linear, lora = lines(path)
    assert (linear["method"], lora["method"], lora["task"]) == ("linear", "lora", "digits")
    assert (linear["trials"], linear["failed"]) == ("3", "1")
    assert (lora["trials"], lora["failed"], lora["addition"]) == ("6", "2", "method.rank 1 2")
    assert linear["space"] == lora["space"]
    assert linear["space"].endswith("lr 0.001 0.01 1e+30, epochs=1, warmup_epochs=0")
    for line, count in [(linear, 3), (lora, 6)]:
        check(line, runs)
        assert len(line["records"].split()) == count
    said = capsys.readouterr().out
    assert f"Written: {path}. Use it with recipe=tuned recipe.search=own." in said
    # The same again is the same file, and recipe=tuned has it.
    before = path.read_bytes()
    assert driver.write_search(asked, runs)
    assert path.read_bytes() == before
    config = composed("recipe=tuned", f"recipe.rows={path}", "method=lora", "data=demo/digits")
    assert (config["lr"], config["recipe"]["trials"]) == (float(lora["lr"]), 6)
    assert config["method"]["rank"] == int(lora["method.rank"])


def check(line: dict[str, str], runs: list[PlannedRun]) -> None:
    """Check a line against the records of its method."""
    scores = {}
    for run in runs:
        record = run_status(run).record
        assert record is not None
        if run.method == line["method"]:
            assert record.id in line["records"].split()
            if record.status == Status.DONE:
                assert record.last is not None
                assert (record.evaluated_on, record.last.total) == ("val", 200)
                config = run.run_config.config
                scores[record.id] = (record.last.correct, config["lr"])
    best = max(correct for correct, _ in scores.values())
    rates = [lr for correct, lr in scores.values() if correct == best]
    assert float(line["lr"]) == min(rates)
    assert line["val_accuracy"] == f"{best / 2:.2f}"
    assert (line["val_images"], line["ties"]) == ("200", str(len(rates) - 1))


def test_a_method_whose_trials_all_failed_has_no_line(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "searches" / "own.yaml").write_text(OWN.replace("[0.001, 0.01, ", "[1.0e+29, "))
    asked = request(*own, "--methods=linear", "--trials=2")
    runs = driver.plan_sweep(asked)
    assert do(runs) == [Verdict.FAILED] * 2
    assert not driver.write_search(asked, runs)
    assert "No trial has a score: linear on digits." in capsys.readouterr().out
    assert not (tmp_path / "tuned").exists()


def test_another_budget_is_refused_before_the_first_run(own: list[str], tmp_path: Path) -> None:
    asked = request(*own, "--methods=linear")
    runs = driver.plan_sweep(asked)
    do(runs)
    assert driver.write_search(asked, runs)
    path = tmp_path / "tuned" / "demo_vit_nano_own.csv"
    before = path.read_bytes()
    records = sorted((tmp_path / "results").rglob("*.json"))
    assert len(records) == 3
    said = rf"{path} would have methods of different budgets: .*--tuned-dir DIR.*searches"
    other = request(*own, "--methods=ssf", "epochs=2")
    for plan in (True, False):
        with pytest.raises(InvalidValueError, match=said):
            driver.work(other, plan=plan, status=False, cancel=False)
    arms = ablation.Ablation("mine", ("ssf", "linear"))
    asked_of_arm = replace(other, methods=("ssf",))
    with pytest.raises(InvalidValueError, match=said):
        ablation.work(arms, asked_of_arm, only=None, plan=False, status=False, cancel=False)
    assert sorted((tmp_path / "results").rglob("*.json")) == records
    assert path.read_bytes() == before
    # What exists: the same settings; all methods again; another folder.
    elsewhere = tmp_path / "elsewhere"
    for allowed in (
        request(*own, "--methods=ssf"),
        request(*own, "--methods=ssf,linear", "epochs=2"),
        replace(other, tuned_dir=elsewhere),
    ):
        driver.work(allowed, plan=True, status=False, cancel=False)


class Searching:
    """Runs scripts/search.py on two tasks and three methods, with two trials each."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.results = folder / "results"
        self.file = folder / "tuned" / "demo_vit_nano_lr.csv"
        self.shared = ["logger=none", f"results_dir={self.results}", f"data_root={data}"]
        self.command = [sys.executable, str(ROOT / "scripts/search.py"), "demo", "--trials=2"]
        self.command += ["--methods=linear,ssf,san:propagation=off", "--tasks=digits,count"]
        self.command += [f"--tuned-dir={self.file.parent}", "epochs=1", *self.shared]

    def __call__(self) -> str:
        done = subprocess.run(
            self.command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(self.command, stdout=quiet, stderr=quiet)

    def running(self) -> int | None:
        """The process of a trial that is running."""
        for path in self.results.rglob("*.claim"):
            holder = find_holder(path)
            if holder is not None and holder.liveness == Liveness.ALIVE and holder.lease:
                return holder.lease.pid
        return None


@pytest.mark.sweep
def test_a_search_that_is_killed_at_random_moments_finds_the_same(
    tmp_path: Path, data_root: Path
) -> None:
    whole = Searching(tmp_path / "whole", data_root)
    said = whole()
    assert "12 runs: 12 done" in said
    assert f"Written: {whole.file}. Use it with recipe=tuned recipe.search=" in said
    killed = Searching(tmp_path / "killed", data_root)
    draw = random.Random(0)
    kills = 0
    for turn in range(8):
        sweep = killed.start()
        worker = None
        while worker is None and sweep.poll() is None:
            time.sleep(0.02)
            worker = killed.running()
        time.sleep(draw.uniform(0, 0.5))
        if sweep.poll() is None:
            os.kill(worker if turn % 2 and worker is not None else sweep.pid, signal.SIGKILL)
            kills += 1
        if turn % 2 == 0:
            sweep.wait(timeout=PATIENCE_S)
            time.sleep(4)  # what runs without its sweep saves itself and ends
        elif sweep.poll() is None:
            sweep.kill()
            sweep.wait(timeout=PATIENCE_S)
    assert kills >= 4
    killed()
    assert killed.file.read_bytes() == whole.file.read_bytes()
    found = lines(killed.file)
    assert len(found) == 6
    assert {line["settings"] for line in found} == {"", "propagation=off"}
    check_that_a_run_reads(killed)


def check_that_a_run_reads(search: Searching) -> None:
    """Check that train.py takes its learning rate from the file of a search, and records why."""
    cell = recipe_files.Cell("demo", "vit_nano", "ssf", {}, "digits")
    row = recipe_files.find_row(search.file, cell)
    assert row is not None
    words = ["recipe=tuned", f"recipe.rows={search.file}", "method=ssf", "data=demo/digits"]
    command = [sys.executable, str(ROOT / "train.py"), *words, "epochs=1", *search.shared]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,), _ = record_file.read_records(search.results / "records")
    assert record.evaluated_on == "test"
    assert record.config["lr"] == row.values["lr"]
    assert record.config["recipe"]["row"] == {**row.values, **row.evidence}
