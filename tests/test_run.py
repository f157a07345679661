"""train.py as its user runs it: one process each, real data, real records."""

import datetime
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, resolved
from msgspec.structs import replace
from safetensors.torch import load_file
from torch import nn

import san
from san import record, record_file
from san.backbones import Backbone
from san.data import task_data
from san.data.batches import Batches
from san.data.preprocess import Preprocess
from san.errors import FileAccessError, Preempted
from san.experiment import from_config
from san.run import RunOutcome, run
from san.runtime import environment, lease
from san.runtime.device import is_out_of_memory
from san.runtime.lease_holder import Holder, Lease
from san.settings import RunConfig
from san.tasks import load_suite
from san.training.history import Evaluation
from san.training.loop import evaluate
from san.training.schedule import lr_at

ROOT = Path(__file__).parents[1]
QUICK = ("epochs=1", "method=linear", "logger=none")


class Shell:
    """Runs train.py with results and data in folders of its own."""

    def __init__(self, results: Path, data: Path) -> None:
        self.results = results
        self.places = (f"results_dir={results}", f"data_root={data}")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(ROOT / "train.py"), *arguments, *self.places]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=300, check=False
        )

    def records(self) -> list[record.Record]:
        found, problems = record_file.read_records(self.results / "records")
        assert problems == []
        return found


@pytest.fixture
def train(tmp_path: Path, data_root: Path) -> Shell:
    return Shell(tmp_path / "results", data_root)


def values(r: record.Record) -> tuple[object, ...]:
    return r.id, r.last, r.best, r.curve, r.params, r.weights, r.data, r.config


def assert_tells_all(done: record.Record, results: Path) -> None:
    """A run of an epoch of the digits says what a verdict needs."""
    (entry,) = done.history
    assert (entry.epoch, entry.score) == (1, done.last)
    assert entry.train_loss > 0
    assert entry.lr == lr_at(19, 20, 40, 0.1)
    assert done.last.loss > 0
    assert done.validation is None  # it was trained on
    digits = load_suite("demo").tasks["digits"]
    assert [each.name for each in done.classes] == list(digits.classes)
    assert sum(each.total for each in done.classes) == 797
    assert sum(each.correct for each in done.classes) == done.last.correct
    (path,) = results.rglob("*.answers")
    assert path.stat().st_size == 100
    assert record_file.read_answers(done, path).sum() == done.last.correct
    began = datetime.datetime.fromisoformat(done.started)
    seconds = (datetime.datetime.fromisoformat(done.created) - began).total_seconds()
    spent = done.seconds.fit + done.seconds.build + done.seconds.evaluate
    assert spent < 3600 * done.device_hours < seconds + 1
    assert done.host == environment.host_name()
    assert done.adapter_bytes == 4 * 1290
    assert done.warnings == []


def test_a_run_a_second_call_and_a_forced_one(train: Shell) -> None:
    first = train(*QUICK)
    assert first.returncode == 0, first.stderr
    (done,) = train.records()
    assert done.status == "done"
    assert done.last.total == 797
    assert done.variant == "epochs=1"
    assert done.params.head == done.params.trainable == 1290
    assert done.peak_bytes > 0
    assert_tells_all(done, train.results)
    again = train(*QUICK)
    assert again.returncode == 0
    assert "already complete" in again.stderr
    assert "force=true" in again.stderr
    assert train.records() == [done]
    assert run(*resolved(*QUICK, "force=true", *train.places)).outcome == RunOutcome.COMPLETED
    (repeated,) = train.records()
    assert values(repeated)[:7] == values(done)[:7]


def test_a_deterministic_run_is_the_same_run_and_gives_the_same_bits(train: Shell) -> None:
    settings = ("epochs=1", "method=lora", "logger=none", "save_adapter=true")
    stored = []
    for words in ((), ("deterministic=true",), ("deterministic=true",)):
        run(*resolved(*settings, *words, "force=true", *train.places))
        (path,) = train.results.rglob("*.safetensors")  # one identity
        stored.append((train.records()[0], load_file(path)))
    for done, tensors in stored[1:]:
        assert values(done)[:7] == values(stored[0][0])[:7]
        assert done.variant == "epochs=1"
        assert tensors.keys() == stored[0][1].keys()
        assert all(torch.equal(tensors[name], stored[0][1][name]) for name in tensors)


@pytest.mark.sweep
def test_a_compiled_run_is_the_same_run(train: Shell) -> None:
    stored = []
    for words in (("compile=false",), ("compile=true", "force=true")):
        done = train("epochs=2", "method=san", "logger=none", *words)
        assert done.returncode == 0, done.stderr
        stored += train.records()  # one identity
    plain, compiled = stored
    assert (plain.id, plain.variant) == (compiled.id, compiled.variant)
    assert abs(plain.last.loss - compiled.last.loss) < 1e-3
    assert compiled.config["compile"]


def test_a_run_with_a_cooldown_and_an_average_says_so_and_saves_the_average(
    train: Shell,
) -> None:
    settings = ("method=ssf", "epochs=1", "warmup_epochs=0", "logger=none")
    words = ("schedule=timm", "schedule.cooldown_epochs=2", "schedule.min_lr=1e-3")
    words += ("ema_decay=0.95", "drop_last=true", "head_init=zero", "batch_size=64")
    run(*resolved(*settings, *words, "save_adapter=true", *train.places))
    (found,) = train.records()
    assert [entry.epoch for entry in found.history] == [1, 2, 3]
    assert [entry.lr for entry in found.history] == pytest.approx([1e-2, 1e-3, 1e-3])
    assert found.last.epoch == 3
    assert found.config["epochs"] == 1
    again = run(*resolved(*settings, *words, *train.places))
    assert again.outcome is RunOutcome.ALREADY_COMPLETE
    # What was evaluated is what was saved.
    (path,) = train.results.rglob("*.safetensors")
    run(*resolved("method=ssf", "logger=none", f"adapter_checkpoint={path}", *train.places))
    (again,) = [r for r in train.records() if r.config["restore"]]
    assert again.last.correct == found.last.correct
    assert again.last.loss == pytest.approx(found.last.loss, rel=1e-6)


def test_a_result_near_chance_is_a_warning(train: Shell, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        untrained = run(*resolved(*QUICK, "lr=1e-12", *train.places))
        trained = run(*resolved(*QUICK, *train.places))
    assert untrained.score.accuracy < 100 * 92 / 797  # of the digits, 92 are the most frequent one
    assert trained.score.accuracy > 50
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "WARNING",
            f"demo/digits linear [epochs=1 lr=1e-12] seed 0: {untrained.score.accuracy:.2f} % "
            "is not shown to be better than always answering the most frequent class (11.54 %)",
        )
    ]


def test_an_adapter_is_saved_where_asked(train: Shell) -> None:
    settings = ("epochs=1", "method=ssf", "logger=none", *train.places)
    run(*resolved(*settings))
    (done,) = train.records()
    assert done.variant == "epochs=1"
    (path,) = train.results.rglob("*.json")
    assert not path.with_suffix(".safetensors").exists()
    # The record is there, the adapter is not.
    asked = run(*resolved(*settings, "save_adapter=true"))
    assert asked.outcome is RunOutcome.COMPLETED
    assert [values(r)[:7] for r in train.records()] == [values(done)[:7]]
    model = Backbone.from_config(composed()["backbone"]).build(10).model
    adapter = san.restore(model, path.with_suffix(".safetensors"))
    assert adapter.counts.trainable == done.params.trainable
    suite = load_suite("demo")
    test = task_data.load_split(
        suite,
        suite.task("digits"),
        "test",
        Path(train.places[1].removeprefix("data_root=")),
        "vtab",
        32,
    )
    batches = Batches.for_evaluation(
        split=test,
        batch_size=256,
        preprocess=Preprocess("vtab", "inception"),
        image_size=32,
        device=torch.device("cpu"),
    )
    evaluation = evaluate(model, batches, 1)
    assert evaluation.score.correct == done.last.correct
    kept = record_file.read_answers(done, record_file.answers_path(path))
    assert kept.tolist() == evaluation.answers.tolist()
    stored = load_file(path.with_suffix(".safetensors")).values()
    assert done.adapter_bytes == sum(tensor.numel() * 4 for tensor in stored)
    again = run(*resolved(*settings, "save_adapter=true"))
    assert again.outcome is RunOutcome.ALREADY_COMPLETE
    elsewhere = f"adapter_checkpoint={path.with_suffix('.safetensors')}"
    run(*resolved("method=ssf", "logger=none", elsewhere, *train.places))
    (tested,) = [r for r in train.records() if r.config["restore"]]
    assert (tested.last.correct, tested.last.epoch, tested.data.train) == (
        done.last.correct,
        0,
        "",
    )
    wrong = train("method=san", "logger=none", elsewhere)
    assert wrong.returncode == 1
    assert "is ssf with" in wrong.stderr
    assert "Give method=... as it was trained" in wrong.stderr


def test_a_multirun_fills_cells(train: Shell) -> None:
    done = train("-m", "epochs=1", "method=linear,norm", "seed=1", "logger=none")
    assert done.returncode == 0, done.stderr
    assert {(r.method, r.seed) for r in train.records()} == {("linear", 1), ("norm", 1)}


def test_a_loss_that_explodes_is_recorded_as_failed(train: Shell) -> None:
    died = train("epochs=2", "lr=1e9", "logger=none")
    assert died.returncode == 1
    assert "The loss became" in died.stderr
    assert "with lr" in died.stderr
    assert "Traceback" not in died.stderr
    (failed,) = train.records()
    assert failed.status == "failed"
    assert "NonFiniteLossError" in failed.error


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("method=sann", "Did you mean san "),
        ("data=demo/digts", "Did you mean demo/digits"),
        ("backbone=vit_nan", "Did you mean vit_nano?"),
        ("lrr=1", "Did you mean lr?"),
        ("epochs=0", "epochs came as 0; allowed: `int` >= 1"),
        ("backbone.weights=no.safetensors", "No weights at"),
    ],
)
def test_bad_input_ends_with_a_message_and_no_record(
    argument: str, message: str, train: Shell
) -> None:
    refused = train(argument, "logger=none")
    assert refused.returncode == 1
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    assert train.records() == []


def test_an_unwritable_results_folder_is_found_before_training(
    tmp_path: Path, data_root: Path
) -> None:
    (tmp_path / "file").write_text("")
    refused = Shell(tmp_path / "file", data_root)(*QUICK)
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr


def test_interrupting_leaves_no_record(train: Shell) -> None:
    command = train.command("epochs=1000", "logger=none")
    heed = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # a job in the background inherits that it is ignored
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)  # noqa: PLW1509
    assert "head train" in process.stderr.readline()  # the model is built: training begins
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "no record was written" in errors
    assert train.records() == []
    assert [p for p in train.results.rglob("*") if p.is_file()] == []


class HeldRun:
    """A small run that a process on another host holds."""

    def __init__(self, train: Shell) -> None:
        self.config: RunConfig = resolved(*QUICK, *train.places)
        self.path = from_config(*self.config).record_path(train.results)
        self.file = lease.lease_path(self.path)
        self.file.parent.mkdir(parents=True)
        content = Lease("another-host", 1, "1", since=0.0, token="0a")
        self.file.write_text(json.dumps(asdict(content)))


def test_a_run_that_another_host_holds_is_left_and_the_way_out_said(
    train: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    held = HeldRun(train)
    with caplog.at_level(logging.INFO):
        assert run(*held.config).outcome == RunOutcome.HELD_ELSEWHERE
    (said,) = caplog.messages
    assert "another-host process 1 is running it" in said
    assert f"if that process is gone, remove {held.file}" in said
    held.file.unlink()
    assert run(*held.config).outcome == RunOutcome.COMPLETED


def test_a_run_whose_lease_says_nothing_of_life_is_watched_until_a_signal(
    train: Shell, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldRun(train)
    os.utime(held.file, (0, 0))
    before = held.file.read_text()
    announce = lease._announce

    def announce_and_signal(holder: Holder) -> None:
        announce(holder)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(lease, "_announce", announce_and_signal)
    with pytest.raises(Preempted, match="Stopped while it waited"):
        run(*held.config)
    assert "another-host process 1 holds this run" in caplog.text
    assert held.file.read_text() == before
    assert not held.path.exists()


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_an_adapter_that_cannot_be_written_costs_the_adapter_alone(
    train: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolved(*QUICK, "save_adapter=true", *train.places)
    with monkeypatch.context() as full:
        full.setattr("san.adapter.adapter_file.save_file", full_disk)
        assert run(*config).outcome == RunOutcome.COMPLETED
    (done,) = train.records()
    assert done.status == "done"
    (warning,) = done.warnings
    assert "The adapter was not saved" in warning
    assert "No space left on device" in warning
    assert run(*config).outcome == RunOutcome.COMPLETED  # again, as the adapter is asked for
    (again,) = train.records()
    assert values(again)[:7] == values(done)[:7]
    assert again.warnings == []
    (path,) = train.results.rglob("*.json")
    assert path.with_suffix(".safetensors").exists()


def test_a_record_that_cannot_be_written_costs_no_training(
    train: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = resolved(*QUICK, *train.places)
    monkeypatch.setattr("san.training.checkpoint.SAVE_EVERY_S", 0.0)
    with monkeypatch.context() as full:
        full.setattr("san.record_file.write_text", full_disk)
        with pytest.raises(FileAccessError, match=r"The run is done, with (\d+\.\d\d) %; the same"):
            run(*config)
    assert "Of this failure there is no record" in caplog.text
    assert train.records() == []
    with monkeypatch.context() as no_training:
        no_training.setattr("san.training.loop._train_step", full_disk)
        assert run(*config).outcome == RunOutcome.COMPLETED
    assert len(train.records()) == 1


def test_answers_that_cannot_be_written_cost_the_answers_alone(
    train: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolved(*QUICK, *train.places)
    path = from_config(*config).record_path(train.results)
    record_file.write_answers(np.ones(797, np.bool_), record_file.answers_path(path))
    with monkeypatch.context() as full:
        full.setattr("san.record_file.write_bytes", full_disk)
        assert run(*config).outcome == RunOutcome.COMPLETED
    (done,) = train.records()
    assert done.answers is None
    assert done.warnings == ["The answers were not kept: [Errno 28] No space left on device"]
    assert not record_file.answers_path(path).exists()  # those that were there were another run's
    assert run(*config).outcome == RunOutcome.ALREADY_COMPLETE


def test_a_crash_between_answers_and_record_leaves_a_run_that_is_not_done(
    train: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    config = resolved(*QUICK, *train.places)
    path = from_config(*config).record_path(train.results)
    with monkeypatch.context() as crash:
        crash.setattr("san.run_outputs.write_record", die)
        with pytest.raises(Killed):
            run(*config)
    assert record_file.answers_path(path).exists()
    assert train.records() == []
    with monkeypatch.context() as diverging:
        diverging.setattr("san.run.train_and_evaluate", full_disk)
        with pytest.raises(OSError, match="No space left"):
            run(*config)
    assert [r.status for r in train.records()] == ["failed"]
    assert not record_file.answers_path(path).exists()
    assert run(*config).outcome == RunOutcome.COMPLETED
    (done,) = train.records()
    assert record_file.read_answers(done, record_file.answers_path(path)).size == 797


def test_an_interrupted_run_tells_the_same(
    train: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of best_test: what was right at the best epoch, and every epoch's loss and score."""
    settings = ("protocol=best_test", "method=linear", "epochs=4", "logger=none")
    monkeypatch.setattr("san.trainer.evaluate", best_at_epoch_2)
    whole_places = (f"results_dir={tmp_path / 'whole'}", train.places[1])
    assert run(*resolved(*settings, *whole_places)).outcome == RunOutcome.COMPLETED
    config = resolved(*settings, *train.places)
    path = from_config(*config).record_path(train.results)
    (whole,) = record_file.read_records(tmp_path / "whole")[0]
    assert whole.best.epoch == 2  # else the last answers would do
    for step in (47, 55):  # in the third epoch
        with monkeypatch.context() as stopping:
            stop_at(step, stopping)
            with pytest.raises(Preempted):
                run(*config)
        assert path.with_suffix(".checkpoint").is_file()
    assert run(*config).outcome == RunOutcome.COMPLETED
    (resumed,) = train.records()
    assert values(resumed)[:7] == values(whole)[:7]
    assert len(whole.history) == 4
    assert resumed.history == whole.history
    assert resumed.classes == whole.classes
    assert resumed.answers == whole.answers
    assert record_file.read_answers(resumed, record_file.answers_path(path)).sum() == (
        whole.best.correct
    )


def best_at_epoch_2(model: nn.Module, batches: Batches, epoch: int, *words: object) -> Evaluation:
    """The evaluation, but for some of the images that were right after another epoch."""
    found = evaluate(model, batches, epoch, *words)
    if epoch == 2:
        return found
    answers = found.answers & (np.arange(len(found.answers)) > 400)
    score = replace(found.score, correct=int(answers.sum()))
    return Evaluation(score, answers)


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run get SIGTERM after a step."""
    from san.trainer import _RunCallbacks

    on_step_end = _RunCallbacks.on_step_end

    def signalled(callbacks: _RunCallbacks, done: int, steps: int, loss: float, lr: float) -> None:
        on_step_end(callbacks, done, steps, loss, lr)
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(_RunCallbacks, "on_step_end", signalled)


def test_val_is_scored_where_nothing_was_chosen_or_trained_on_it(train: Shell) -> None:
    run(*resolved(*QUICK, "protocol.train=train", *train.places))
    (done,) = train.records()
    assert (done.validation.epoch, done.validation.total) == (1, 200)
    assert 0 < done.validation.correct < 200
    run(*resolved(*QUICK, "protocol=tune", *train.places))
    (tuned,) = [r for r in train.records() if r.protocol == "tune"]
    assert tuned.validation is None
    # Trained on the same images, scored on the same val.
    assert tuned.last == done.validation


@pytest.mark.parametrize("suffix", [".json", ".answers", ".safetensors", ".checkpoint"])
def test_a_folder_in_the_place_of_a_file_is_found_before_training(
    suffix: str, train: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolved(*QUICK, *train.places)
    path = from_config(*config).record_path(train.results)
    path.with_suffix(suffix).mkdir(parents=True)
    monkeypatch.setattr("san.run.train_and_evaluate", full_disk)
    with pytest.raises(FileAccessError, match="is a directory; a run writes a file there"):
        run(*config)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_no_memory_is_recorded_as_such(
    error: Exception, train: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("san.run.train_and_evaluate", fails)
    with pytest.raises(type(error)):
        run(*resolved(*QUICK, *train.places))
    (failed,) = train.records()
    assert failed.status == "oom"


def test_torch_and_numpy_say_that_memory_ran_out_in_ways_that_are_known() -> None:
    for allocate in (torch.empty, np.empty):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            allocate(10**15)
        assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_help_and_completion_need_no_torch(train: Shell) -> None:
    code = (
        "import sys, runpy; sys.argv = ['train.py', '--cfg', 'job'];\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "qkv_anterior: patch" in shown.stdout
    environment = os.environ | {"COMP_LINE": "python train.py data=demo/o", "COMP_POINT": "27"}
    query = [sys.executable, str(ROOT / "train.py"), "-sc", "query=bash"]
    completed = subprocess.run(
        query, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert completed.stdout.split() == ["data=demo/orientation"]


def test_the_table_skips_a_corrupt_record_and_names_it(train: Shell) -> None:
    run(*resolved(*QUICK, *train.places))
    (train.results / "records" / "demo" / "broken.json").write_text("{")
    command = [
        sys.executable,
        str(ROOT / "scripts/tables.py"),
        "demo",
        "--results",
        str(train.results),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "broken.json is not a record of this suite" in shown.stderr
    assert "linear [epochs=1]" in shown.stdout
    assert (train.results / "tables" / "demo.tex").is_file()


def test_a_table_of_nothing_says_what_to_run(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/tables.py"), "demo", "--results", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert "Run `python scripts/reproduce.py demo --seeds 0` first" in shown.stderr
