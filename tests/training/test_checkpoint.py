"""Interrupted and resumed equals uninterrupted, bit for bit on a CPU."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from conftest import tiny_vit
from safetensors import safe_open
from safetensors.torch import save_file

import san
from san.data.augment import NO_AUGMENTATION, Augment
from san.data.batches import Batches
from san.data.preprocess import Preprocess
from san.data.split import Images, Split
from san.errors import Preempted
from san.runtime import cost
from san.runtime.cost import Meter
from san.score import Score
from san.training.checkpoint import Checkpoint, Trained, _digest, _Facts
from san.training.history import Evaluation, History
from san.training.loop import fit
from san.training.recipe import Recipe
from san.training.schedule import Schedule, lr_at

RECIPE = Recipe(
    epochs=3,
    batch_size=4,
    optimizer="adamw",
    lr=1e-2,
    weight_decay=1e-2,
    momentum=0.9,
    warmup_epochs=1,
    label_smoothing=0.1,
    precision="fp32",
)
IMAGES = 10_000  # that a score counts
SCORE = {"epoch": 1, "correct": 1, "total": IMAGES}
EPOCH = {"epoch": 1, "train_loss": 1.0, "lr": 0.1}
AUGMENT = Augment(crop="random", flip=0.5, mixup=0.8, cutmix=1.0)


def batches(augment: Augment) -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (10, 20, 20, 3)).astype(np.uint8)
    split = Split(
        (Images(images),),
        np.arange(10) % 3,
        list(map(str, range(10))),
        "f",
        ({"made_by": "a test"},),
    )
    return Batches.for_training(
        split=split,
        batch_size=4,
        preprocess=Preprocess("vtab", "inception"),
        image_size=16,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
        augment=augment,
        classes=3,
    )


def evaluation(epoch: int, mean_loss: float) -> Evaluation:
    """An evaluation that follows from the loss of the epoch."""
    correct = round(mean_loss * 1e3)
    answers = np.roll(np.arange(IMAGES) < correct, epoch)
    return Evaluation(Score(epoch, correct, IMAGES, mean_loss / 2), answers)


class StopAfter:
    """Callbacks that ask the run to stop after a step, and score every epoch by its loss."""

    def __init__(self, checkpoint: Checkpoint, step: int | None) -> None:
        self.checkpoint = checkpoint
        self.step = step
        self.losses: list[float] = []

    def on_step_end(self, step: int, steps: int, loss: float, lr: float) -> None:
        self.losses.append(loss)
        if step == self.step:
            self.checkpoint.stop.set()

    def on_epoch_end(self, epoch: int, mean_loss: float, lr: float) -> None:
        self.checkpoint.history.add(epoch, mean_loss, lr, evaluation(epoch, mean_loss))


def trained(
    path: Path,
    method: str,
    optimizer: str,
    augment: Augment,
    stop_after: int | None,
    counts_best: bool = False,
    **changes: object,
) -> tuple[torch.Tensor, list[float], History]:
    """Train a model with drop path, to the end or until it is asked to stop."""
    model = tiny_vit(3, drop_path_rate=0.3)
    torch.manual_seed(1)
    adapter = san.attach(model, method)
    history = History(IMAGES, counts_best)
    checkpoint = Checkpoint(path, f"{method} {optimizer}", history, Meter(torch.device("cpu")))
    callbacks = StopAfter(checkpoint, stop_after)
    recipe = replace(RECIPE, optimizer=optimizer, **changes)
    fit(model, batches(augment), recipe, adapter.trainable, callbacks, checkpoint)
    weights = torch.cat([value.flatten() for value in model.state_dict().values()])
    return weights, callbacks.losses, history


def same(one: History, other: History) -> bool:
    """Whether two histories have the same entries, to the bit, and the same answers."""
    assert one.answers is not None
    return one.entries == other.entries and np.array_equal(one.answers, other.answers)


@pytest.mark.parametrize(
    "stop_after", [1, 3, 4, 8]
)  # within an epoch, at its last batch, at the beginning of the next
@pytest.mark.parametrize(
    ("method", "optimizer", "augment"),
    [
        ("san", "adamw", NO_AUGMENTATION),
        ("full", "sgd", AUGMENT),
        ("vpt_deep", "adamw", AUGMENT),
        ("linear", "adamw", Augment(mixup=0.8)),
        ("mlp", "sgd", NO_AUGMENTATION),
    ],
)
def test_resumed_equals_uninterrupted(
    method: str, optimizer: str, augment: Augment, stop_after: int, tmp_path: Path
) -> None:
    whole, losses, history = trained(tmp_path / "a", method, optimizer, augment, None)
    assert len(losses) == 9
    means = [sum(losses[i : i + 3]) / 3 for i in (0, 3, 6)]
    assert [entry.train_loss for entry in history.entries] == means
    assert [entry.lr for entry in history.entries] == [lr_at(i, 9, 3, 1e-2) for i in (2, 5, 8)]
    with pytest.raises(Preempted, match=r"Stopped in epoch \d; checkpoint saved to"):
        trained(tmp_path / "b", method, optimizer, augment, stop_after)
    torch.manual_seed(99)
    resumed, rest, history_again = trained(tmp_path / "b", method, optimizer, augment, None)
    assert rest == losses[stop_after:]
    assert torch.equal(resumed, whole)
    assert same(history_again, history)


AVERAGED = {
    "ema_decay": 0.7,
    "clip_grad": 0.1,
    "head_lr": 5e-2,
    "layer_decay": 0.8,
    "schedule": Schedule(update="epoch", cooldown_epochs=1, lag_epochs=1),
}


@pytest.mark.parametrize("stop_after", [1, 3, 4, 8, 11])
@pytest.mark.parametrize(
    ("method", "optimizer"), [("san", "adamw"), ("full", "sgd"), ("mlp", "adamw")]
)
def test_an_average_survives_an_interruption(
    method: str, optimizer: str, stop_after: int, tmp_path: Path
) -> None:
    case = (method, optimizer, AUGMENT)
    whole, losses, history = trained(tmp_path / "a", *case, None, **AVERAGED)
    assert len(losses) == 12
    assert [entry.epoch for entry in history.entries] == [1, 2, 3, 4]
    with pytest.raises(Preempted):
        trained(tmp_path / "b", *case, stop_after, **AVERAGED)
    torch.manual_seed(99)
    resumed, rest, history_again = trained(tmp_path / "b", *case, None, **AVERAGED)
    assert rest == losses[stop_after:]
    assert torch.equal(resumed, whole)
    assert same(history_again, history)
    without, _, _ = trained(tmp_path / "c", *case, None, **AVERAGED | {"ema_decay": None})
    assert not torch.equal(without, whole)


def test_a_run_that_was_saved_at_its_end_has_the_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("san.training.checkpoint.SAVE_EVERY_S", 0.0)
    case = ("san", "adamw", NO_AUGMENTATION, None)
    whole, _, _ = trained(tmp_path / "a", *case, **AVERAGED)
    again, losses, _ = trained(tmp_path / "a", *case, **AVERAGED)
    assert losses == []
    assert torch.equal(again, whole)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_checkpoint_with_an_average_too_many_or_too_few_begins_anew(
    averaged: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = ("san", "adamw", NO_AUGMENTATION)
    decays = [{"ema_decay": 0.7}, {}]
    saved, wanted = decays if averaged else decays[::-1]
    whole, _, _ = trained(tmp_path / "a", *case, None, **wanted)
    with pytest.raises(Preempted):
        trained(tmp_path / "b", *case, 5, **saved)
    with caplog.at_level(logging.WARNING):
        again, losses, _ = trained(tmp_path / "b", *case, None, **wanted)
    assert "it has the average of another model" in caplog.text
    assert len(losses) == 9
    assert torch.equal(again, whole)


def test_two_interruptions(tmp_path: Path) -> None:
    whole, _, _ = trained(tmp_path / "a", "san", "adamw", AUGMENT, None)
    for stop in (2, 5):
        with pytest.raises(Preempted):
            trained(tmp_path / "b", "san", "adamw", AUGMENT, stop)
    assert torch.equal(trained(tmp_path / "b", "san", "adamw", AUGMENT, None)[0], whole)


@pytest.mark.parametrize("spoil", ["truncated", "empty", "another method"])
def test_a_damaged_checkpoint_is_left_aside(
    spoil: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _, _ = trained(tmp_path / "a", "san", "adamw", NO_AUGMENTATION, None)
    with pytest.raises(Preempted):
        trained(
            tmp_path / "b",
            "ssf" if spoil == "another method" else "san",
            "adamw",
            NO_AUGMENTATION,
            5,
        )
    if spoil != "another method":
        saved = (tmp_path / "b").read_bytes()
        (tmp_path / "b").write_bytes(saved[: len(saved) // 2] if spoil == "truncated" else b"")
    with caplog.at_level(logging.WARNING):
        again, losses, _ = trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, None)
    assert "training restarts from scratch" in caplog.text
    assert len(losses) == 9
    assert torch.equal(again, whole)


def test_long_runs_save_as_they_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("san.training.checkpoint.SAVE_EVERY_S", 0.0)
    whole, _, _ = trained(tmp_path / "a", "san", "adamw", NO_AUGMENTATION, None)
    assert (tmp_path / "a").exists()  # the run itself removes it when its record is written
    again, losses, history = trained(tmp_path / "a", "san", "adamw", NO_AUGMENTATION, None)
    assert losses == []
    assert [score.epoch for score in history.curve] == [1, 2, 3]
    assert history.answers is not None  # there is nothing left to evaluate
    assert history.answers.sum() == history.curve[-1].correct
    assert torch.equal(again, whole)


@pytest.mark.parametrize("counts_best", [False, True])
def test_answers_of_the_score_that_counts_survive(counts_best: bool, tmp_path: Path) -> None:
    """Losses fall, so that an epoch before the last has the best score here."""
    case = ("san", "adamw", NO_AUGMENTATION)
    _, _, whole = trained(tmp_path / "a", *case, None, counts_best)
    assert whole.best.epoch < whole.curve[-1].epoch == 3  # which one, versions of torch decide
    counted = whole.best if counts_best else whole.curve[-1]
    wanted = evaluation(counted.epoch, 2 * counted.loss).answers
    assert np.array_equal(whole.answers, wanted)
    with pytest.raises(Preempted):
        trained(tmp_path / "b", *case, 5, counts_best)
    _, rest, resumed = trained(tmp_path / "b", *case, None, counts_best)
    assert len(rest) == 4
    assert same(resumed, whole)


def test_what_processes_cost_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = []
    counter = iter([10.0, 13.0, 100.0, 104.5, 200.0, 200.25])
    monkeypatch.setattr(cost, "energy_joules", lambda _: next(counter))
    for stop in (2, 5):
        with pytest.raises(Preempted):
            trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, stop)
        with safe_open(tmp_path / "b", "pt") as file:
            costs.append(json.loads(file.metadata()["facts"])["cost"])
    assert [found["joules"] for found in costs] == [3.0, 7.5]
    assert costs[1]["started"] == costs[0]["started"]
    assert costs[1]["device_seconds"] > costs[0]["device_seconds"] > 0
    model = tiny_vit(3)
    san.attach(model, "san")
    checkpoint = Checkpoint(
        tmp_path / "b", "san adamw", History(IMAGES), Meter(torch.device("cpu"))
    )
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    checkpoint.load(Trained(model, optimizer), torch.Generator(), epochs=3, batches=3)
    assert checkpoint.meter.read().joules == 7.75


def test_short_runs_do_not_save(tmp_path: Path) -> None:
    trained(tmp_path / "a", "san", "adamw", NO_AUGMENTATION, None)
    assert list(tmp_path.iterdir()) == []


def rewritten(path: Path, **changes: object) -> None:
    """Change what a checkpoint says, with a checksum that fits."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    facts = msgspec.convert(facts | changes, _Facts)
    text = msgspec.json.encode(facts).decode()
    save_file(tensors, path, {"facts": text, "digest": _digest(facts, tensors)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": "of somebody else"}, "it is of another run"),
        ({"position": {"epoch": 0}}, r"epoch=0.* is not within 3 epochs of 3 batches"),
        ({"position": {"epoch": 5}}, r"epoch=5.* is not within 3 epochs"),
        ({"position": {"epoch": 2, "batch": -1}}, r"batch=-1.* is not within"),
        ({"position": {"epoch": 2, "batch": 4}}, r"batch=4.* is not within"),
        ({"position": {"epoch": 2, "seconds": -1.0}}, r"seconds=-1.0.* is not within"),
        ({"position": {"epoch": 2, "losses": -1.0}}, r"losses=-1.0.* is not within"),
        ({"position": {"epoch": 4}}, r"history has epochs \[1\]; 3 were trained"),
        (
            {"position": {"epoch": 4}, "history": [EPOCH | {"epoch": i} for i in (1, 2, 3)]},
            "says that training is over, and has no score of the last",
        ),
        ({"history": [EPOCH | {"epoch": 2}]}, "an epoch is missing"),
        ({"history": [EPOCH, EPOCH | {"epoch": 2}]}, r"has epochs \[1, 2\]; 1 were trained"),
        ({"history": []}, r"has epochs \[\]; 1 were trained"),
        ({"history": [{"epoch": 1, "score": SCORE}]}, r"has epochs \[1\]; 1 were trained"),
        ({"history": [EPOCH | {"score": SCORE | {"total": 9}}]}, "do not count 10000 images"),
        ({"history": [EPOCH]}, "answers without a score"),
        ({"history": [EPOCH | {"score": SCORE}]}, r"right answers; 1 are recorded"),
    ],
)
def test_what_cannot_be_of_this_run_begins_anew(
    changes: dict[str, object], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _, history = trained(tmp_path / "a", "san", "adamw", NO_AUGMENTATION, None)
    with pytest.raises(Preempted):
        trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, 5)
    rewritten(tmp_path / "b", **changes)
    with caplog.at_level(logging.WARNING):
        again, losses, again_history = trained(
            tmp_path / "b", "san", "adamw", NO_AUGMENTATION, None
        )
    assert re.search(f"unreadable checkpoint .*{message}.*restarts from scratch", caplog.text)
    assert len(losses) == 9
    assert same(again_history, history)
    assert torch.equal(again, whole)


def test_a_forged_score_or_tensor_does_not_pass_the_checksum(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Preempted):
        trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, 5)
    with safe_open(tmp_path / "b", "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    facts = json.loads(metadata["facts"])
    facts["history"][0]["score"]["correct"] += 1
    forged = {"scores": (tensors, metadata | {"facts": json.dumps(facts)})}
    name = next(key for key in tensors if key.startswith("model/"))
    forged["tensor"] = (tensors | {name: tensors[name] + 1e-3}, metadata)
    forged["answers"] = (tensors | {"answers": tensors["answers"].roll(1)}, metadata)
    forged["old format"] = (tensors, {"facts": metadata["facts"]})
    for content in forged.values():
        save_file(content[0], tmp_path / "b", content[1])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            _, losses, _ = trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, None)
        assert "its content is not what was saved" in caplog.text
        assert len(losses) == 9


def test_tensors_that_no_run_saves_are_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Preempted):
        trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, 5)
    with safe_open(tmp_path / "b", "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors | {"more": torch.zeros(2 * 10**7)}, tmp_path / "b", metadata)
    monkeypatch.setattr("san.training.checkpoint._digest", lambda *_: pytest.fail("it was read"))
    with caplog.at_level(logging.WARNING):
        _, losses, _ = trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, None)
    assert re.search(r"it has 20,\d+,\d+ numbers; the run has", caplog.text)
    assert len(losses) == 9


def test_what_was_not_saved_is_not_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("san.training.checkpoint.save_file", full)
    with pytest.raises(Preempted, match=r"Stopped in epoch 2; no checkpoint was saved\."):
        trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, 5)
    assert "b cannot be written" in caplog.text
    assert list(tmp_path.iterdir()) == []
