"""Scores as integers, what every accuracy in every table is computed from; and a run by epoch."""

import itertools
import math
from collections.abc import Sequence

from msgspec import Struct

from san.schema import Line


class Score(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Right answers among all images of a split after an epoch, and the mean cross-entropy (nats).

    loss: None where it is not known, as in records of schema 1.
    """

    epoch: int
    correct: int
    total: int
    loss: float | None = None

    def __post_init__(self) -> None:
        are_integers = all(type(count) is int for count in (self.epoch, self.correct, self.total))
        in_range = are_integers and self.epoch >= 0 and 0 <= self.correct <= self.total
        if not in_range or self.total == 0 or not _is_amount(self.loss):
            raise ValueError(
                f"impossible score: {self.correct!r} of {self.total!r} after epoch {self.epoch!r}, "
                f"loss {self.loss!r}."
            )

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct / self.total


class EpochEntry(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One epoch of a run. epoch: from 1; 0 is an evaluation without training.

    train_loss: the mean over the batches of the epoch, as it was minimized. lr: of its last step.
    Both are None where they are not known, as in records of schema 1. score: None where the epoch
    was not evaluated.
    """

    epoch: int
    train_loss: float | None = None
    lr: float | None = None
    score: Score | None = None

    def __post_init__(self) -> None:
        is_trained = self.train_loss is not None
        first_epoch = 1 if is_trained else 0
        says_something = is_trained or self.score is not None
        is_whole = is_trained == (self.lr is not None) and says_something
        are_amounts = _is_amount(self.train_loss) and _is_amount(self.lr)
        is_its_own = self.score is None or self.score.epoch == self.epoch
        if self.epoch < first_epoch or not (is_whole and are_amounts and is_its_own):
            raise ValueError(f"impossible entry of a history: {self}.")


class ClassScore(Struct, frozen=True, forbid_unknown_fields=True):
    """Right answers among the images of one class; total is 0 where a split has none of it."""

    name: Line
    correct: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total < 2**53:
            raise ValueError(f"impossible result of a class: {self}.")


def scores_of(history: Sequence[EpochEntry]) -> list[Score]:
    """Return the scores of the epochs that were evaluated."""
    return [entry.score for entry in history if entry.score is not None]


def best_of(scores: Sequence[Score]) -> Score:
    """Return the score with the most right answers, the first of several."""
    return max(scores, key=lambda score: score.correct)


def check_history(history: Sequence[EpochEntry]) -> None:
    """Raise ValueError unless entries can be those of one run.

    Of a run that trained there is one for each epoch from 1; of a record of schema 1 there are
    those that were evaluated.
    """
    for before, after in itertools.pairwise(history):
        if before.epoch >= after.epoch:
            raise ValueError(f"impossible history: {after} after {before}.")
    trained = [entry.epoch for entry in history if entry.train_loss is not None]
    if trained and trained != list(range(1, len(history) + 1)):
        raise ValueError("impossible history: an epoch is missing in it.")
    totals = {score.total for score in scores_of(history)}
    if len(totals) > 1:
        raise ValueError(f"impossible history: its scores count {sorted(totals)} images.")


def check_scores(history: Sequence[EpochEntry], last: Score, best: Score) -> None:
    """Raise ValueError unless last and best are what the history of a run that is done says."""
    check_history(history)
    if not history:
        raise ValueError("there is no score in its history.")
    if last != history[-1].score or best != best_of(scores_of(history)):
        raise ValueError("its last or best score is not the one of its history.")


def _is_amount(value: float | None) -> bool:
    """Return whether a value is a finite number that is not negative, or is not known."""
    return value is None or (math.isfinite(value) and value >= 0)
