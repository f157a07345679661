"""The score of an evaluation, as integers: what every accuracy in every table is computed from."""

import itertools
from collections.abc import Sequence

from msgspec import Struct


class Score(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Right answers among all images of a split after an epoch, and the mean cross-entropy (nats).

    loss: None where it is not kept, as in records.
    """

    epoch: int
    correct: int
    total: int
    loss: float | None = None

    def __post_init__(self) -> None:
        are_integers = all(type(count) is int for count in (self.epoch, self.correct, self.total))
        in_range = are_integers and self.epoch >= 0 and 0 <= self.correct <= self.total
        if not in_range or self.total == 0:
            raise ValueError(
                f"impossible score: {self.correct!r} of {self.total!r} after epoch {self.epoch!r}."
            )

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct / self.total


def check_curve(curve: Sequence[Score], last: Score, best: Score) -> None:
    """Raise ValueError unless last and best are what the scores by epoch say."""
    if not curve:
        raise ValueError("there is no score in its curve.")
    for before, after in itertools.pairwise(curve):
        if before.epoch >= after.epoch or before.total != after.total:
            raise ValueError(f"impossible curve: {after} after {before}.")
    if last != curve[-1] or best != max(curve, key=lambda score: score.correct):
        raise ValueError("its last or best score is not the one of its curve.")
