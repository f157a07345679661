"""A run that is killed, stopped, and finishes at its third start."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from san.errors import Preempted
from san.run import RunOutcome, run
from san.settings import RunConfig
from san.trainer import _RunCallbacks
from san.training.checkpoint import Checkpoint

WORDS = ("method=linear", "epochs=4", "protocol.train=val")  # an epoch has four steps
EPOCHS_KNOWN = ([1, 2, 3], [1, 2], [1, 2, 3, 4])  # to each start, at its end


def starts(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start the run three times; the test looks at its files after each.

    1. Killed in the fourth epoch, with a checkpoint of the second.
    2. Stopped in the third epoch, before an epoch is done.
    3. Complete.
    """
    with monkeypatch.context() as killed:
        killed.setattr(Checkpoint, "on_epoch_end", _save_after_epoch_2)
        _at_step(13, killed, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(*config)
    yield
    with monkeypatch.context() as stopped:
        _at_step(11, stopped, None)
        with pytest.raises(Preempted):
            run(*config)
    yield
    assert run(*config).outcome == RunOutcome.COMPLETED
    yield


def record_file_of(results: Path) -> Path:
    """The one record below a folder of results."""
    (path,) = results.rglob("*.json")
    return path


def _save_after_epoch_2(checkpoint: Checkpoint, trained, shuffle_state, position) -> None:
    if position.epoch == 3:  # the next one
        checkpoint.save(trained, shuffle_state, position)


def _at_step(step: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None) -> None:
    """Raise an error after a step; None: send SIGTERM."""
    on_step_end = _RunCallbacks.on_step_end

    def interrupted(callbacks: _RunCallbacks, done: int, *words: object) -> None:
        on_step_end(callbacks, done, *words)
        if done == step:
            if error is not None:
                raise error
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(_RunCallbacks, "on_step_end", interrupted)
