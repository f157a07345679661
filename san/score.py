"""The score of an evaluation, as integers: what every accuracy in every table is computed from."""

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
        if not are_integers or not 0 <= self.correct <= self.total or self.total == 0:
            raise ValueError(
                f"impossible score: {self.correct!r} of {self.total!r} after epoch {self.epoch!r}."
            )

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct / self.total
