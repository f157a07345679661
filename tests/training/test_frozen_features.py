"""Cached features give the record that images give: to the bit, with this backbone on a CPU."""

import logging
from pathlib import Path

import pytest
import torch
from conftest import resolved

from san import record_file
from san.record import Record
from san.run import run
from san.training import frozen_features

EPOCHS = 2
LINEAR = ("method=linear", f"epochs={EPOCHS}", "logger=none")
PARTIAL = ("method=partial", "method.blocks=2", f"epochs={EPOCHS}", "logger=none")
ONCE = ("protocol=last_epoch", "protocol.train=val")
EACH_EPOCH = ("protocol=best_test", "protocol.train=val")


class Runs:
    """Runs on the demo suite; how many images their embedding was given in batches.

    It looks at single ones to know their features' size, and whether these are random.
    """

    def __init__(self, results: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places = (f"results_dir={results}", f"data_root={data}", "force=true")
        self.results = results
        self.monkeypatch = monkeypatch
        self.images = 0

    def __call__(self, *words: str) -> tuple[Record, bytes, int]:
        """Return the record, the answers and how many images went through the embedding."""
        self.images = 0
        handle = torch.nn.modules.module.register_module_forward_pre_hook(self._count)
        run(*resolved(*words, *self.places))
        handle.remove()
        (record,), _ = record_file.read_records(self.results / "records")
        (answers,) = self.results.rglob("*.answers")
        return record, answers.read_bytes(), self.images

    def from_images(self, *words: str) -> tuple[Record, bytes, int]:
        """The same where no features may be kept."""
        with self.monkeypatch.context() as patch:
            patch.setattr(frozen_features, "MAX_BYTES", 0)
            return self(*words)

    def _count(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if type(module).__name__ == "PatchEmbed":
            images = len(inputs[0])
            self.images += images if images > 1 else 0


@pytest.fixture
def runs(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, data_root, monkeypatch)


@pytest.mark.parametrize(
    ("words", "protocol"),
    [
        (LINEAR, ONCE),
        ((*LINEAR, "precision=bf16", "ema_decay=0.9"), EACH_EPOCH),
        (PARTIAL, EACH_EPOCH),
    ],
)
def test_the_record_is_that_of_images(
    words: tuple[str, ...], protocol: tuple[str, ...], runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        kept, kept_answers, few = runs(*words, *protocol)
    assert "frozen layers" not in caplog.text
    plain, answers, many = runs.from_images(*words, *protocol)
    assert kept.history == plain.history
    assert kept.validation == plain.validation
    assert kept.classes == plain.classes
    assert kept_answers == answers
    trained, tested = 200, 797
    assert few == trained + tested
    evaluations = EPOCHS if protocol == EACH_EPOCH else 1
    assert many == few + (EPOCHS - 1) * trained + (evaluations - 1) * tested


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("drop_path=0.2",), "they drop paths or values at random"),
        (("augment=ssf",), "images are augmented"),
    ],
)
def test_what_is_random_is_read_again(
    words: tuple[str, ...], said: str, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        kept, _, few = runs(*LINEAR, *EACH_EPOCH, *words)
    assert f"The frozen layers run in every epoch: {said}." in caplog.text
    assert few == EPOCHS * 200 + 797  # what is evaluated is not random
    plain, _, _ = runs.from_images(*LINEAR, *EACH_EPOCH, *words)
    assert kept.history == plain.history


def test_too_much_is_not_kept(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        runs.from_images(*LINEAR, *ONCE)
    assert "their outputs for 200 images take 102 kB, 0 kB of 0 kB are left" in caplog.text
