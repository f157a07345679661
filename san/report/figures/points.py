"""The rows of the figure of accuracy against parameters, before anything is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from san.errors import InvalidValueError
from san.report.figures.page import check_finite


class Kind(StrEnum):
    """Where a row comes from."""

    OURS = "run here"
    PUBLISHED = "published"


class Interval(NamedTuple):
    """The ends of an error bar, in the unit of the value."""

    low: float
    high: float


class Reservation(NamedTuple):
    """A mark behind a row's name, and what it means."""

    mark: str
    sentence: str


@dataclass(frozen=True)
class MethodPoint:
    """A row: its accuracy in percent, and how many parameters it trains.

    parameters: a count, 0 where nothing but the head trains, None where nobody states it.
    counts_head: whether the head is among them; None where that is not known. ranked: whether the
    row may be part of the Pareto front. important: whether it is named even where room is scarce,
    as our own rows and those of the front are.
    """

    label: str
    kind: Kind
    accuracy: float
    parameters: float | None
    counts_head: bool | None = False
    interval: Interval | None = None
    reservations: tuple[Reservation, ...] = ()
    ranked: bool = True
    important: bool = False

    @property
    def marks(self) -> str:
        """The marks behind its label."""
        return "".join(reservation.mark for reservation in self.reservations)

    @property
    def may_count_head(self) -> bool:
        """Whether there is a count of which nobody says whether it includes the head."""
        return self.parameters is not None and self.counts_head is None


def without_head(count: float, mean_head: float, half_unit: float = 5e3) -> float:
    """Take the head off a count that includes it.

    mean_head: the mean over the suite's tasks of (embedding width + 1) x classes. half_unit: how
    far the count may be off, as papers print 0.01 M; a rest within it is 0, that of linear probing.
    Raises InvalidValueError where the head alone is larger than the count.
    """
    rest = count - mean_head
    if rest < -half_unit:
        raise InvalidValueError(
            f"A count with the head came as {count:,.0f}; at least the suite's mean head, "
            f"{mean_head:,.0f}, is allowed. If it leaves out the head, say counts_head=False."
        )
    return rest if rest > half_unit else 0.0


def count_without_head(point: MethodPoint, mean_head: float) -> float | None:
    """Return what a row trains beside the head, as printed where it may count the head."""
    if point.parameters is None or not point.counts_head:
        return point.parameters
    return without_head(point.parameters, mean_head)


def pareto_front(points: Sequence[MethodPoint], mean_head: float) -> list[MethodPoint]:
    """Return the ranked rows that no other reaches with fewer parameters, fewest first."""
    counted = []
    for point in points:
        count = count_without_head(point, mean_head)
        if point.ranked and count is not None:
            counted.append((count, -point.accuracy, point))
    front: list[MethodPoint] = []
    for _, _, point in sorted(counted, key=lambda entry: entry[:2]):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def check_points(points: Sequence[MethodPoint]) -> None:
    """Raise InvalidValueError on a number that is not finite, or a negative count."""
    for point in points:
        bounds = point.interval or ()
        check_finite([point.accuracy, *bounds], f"The accuracy of '{point.label}'")
        check_finite([point.parameters], f"The parameters of '{point.label}'")
        if point.parameters is not None and point.parameters < 0:
            raise InvalidValueError(
                f"The parameters of '{point.label}' came as {point.parameters}; "
                "0 or more are allowed, or None where they are not known."
            )
