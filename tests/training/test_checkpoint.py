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
from san.score import Score
from san.training.checkpoint import Checkpoint, _digest, _Facts
from san.training.loop import fit
from san.training.recipe import Recipe

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

    def on_epoch_end(self, epoch: int, mean_loss: float) -> None:
        self.checkpoint.curve.append(Score(epoch, round(mean_loss * 1e6), 10**7))


def trained(
    path: Path, method: str, optimizer: str, augment: Augment, stop_after: int | None
) -> tuple[torch.Tensor, list[float], list[Score]]:
    """Train a model with drop path, to the end or until it is asked to stop."""
    model = tiny_vit(3, drop_path_rate=0.3)
    torch.manual_seed(1)
    adapter = san.attach(model, method)
    checkpoint = Checkpoint(path, f"{method} {optimizer}", evaluated_images=10**7)
    callbacks = StopAfter(checkpoint, stop_after)
    recipe = replace(RECIPE, optimizer=optimizer)
    fit(model, batches(augment), recipe, adapter.trainable, callbacks, checkpoint)
    weights = torch.cat([p.flatten() for p in model.parameters()])
    return weights, callbacks.losses, checkpoint.curve


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
    ],
)
def test_resumed_equals_uninterrupted(
    method: str, optimizer: str, augment: Augment, stop_after: int, tmp_path: Path
) -> None:
    whole, losses, curve = trained(tmp_path / "a", method, optimizer, augment, None)
    assert len(losses) == 9
    with pytest.raises(Preempted, match=r"Stopped in epoch \d; checkpoint saved to"):
        trained(tmp_path / "b", method, optimizer, augment, stop_after)
    torch.manual_seed(99)
    resumed, rest, curve_again = trained(tmp_path / "b", method, optimizer, augment, None)
    assert rest == losses[stop_after:]
    assert torch.equal(resumed, whole)
    assert curve_again == curve


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
    again, losses, curve = trained(tmp_path / "a", "san", "adamw", NO_AUGMENTATION, None)
    assert losses == []
    assert [point.epoch for point in curve] == [1, 2, 3]
    assert torch.equal(again, whole)


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
        ({"position": {"epoch": 4}}, "says that training is over, and has no score of the last"),
        (
            {"curve": [{"epoch": 2, "correct": 1, "total": 10**7}]},
            r"scores are of epochs \[2\]: out of order, or to come",
        ),
        (
            {"curve": [{"epoch": 0, "correct": 1, "total": 10**7}]},
            r"scores are of epochs \[0\]: out of order",
        ),
        ({"curve": [{"epoch": 1, "correct": 9, "total": 9}]}, "do not count 10000000 images"),
    ],
)
def test_what_cannot_be_of_this_run_begins_anew(
    changes: dict[str, object], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _, curve = trained(tmp_path / "a", "san", "adamw", NO_AUGMENTATION, None)
    with pytest.raises(Preempted):
        trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, 5)
    rewritten(tmp_path / "b", **changes)
    with caplog.at_level(logging.WARNING):
        again, losses, curve_again = trained(tmp_path / "b", "san", "adamw", NO_AUGMENTATION, None)
    assert re.search(f"unreadable checkpoint .*{message}.*restarts from scratch", caplog.text)
    assert len(losses) == 9
    assert curve_again == curve
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
    facts["curve"][0]["correct"] += 1
    forged = {"scores": (tensors, metadata | {"facts": json.dumps(facts)})}
    name = next(key for key in tensors if key.startswith("model/"))
    forged["tensor"] = (tensors | {name: tensors[name] + 1e-3}, metadata)
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
    assert re.search(r"it has 20,\d+,\d+ numbers; the run trains", caplog.text)
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
