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

    parameters: without the head, 0 where nothing but the head trains, None where nobody states it.
    is_estimated: whether a source prints them with the head, which is taken off. ranked: whether
    the row may be part of the Pareto front. important: whether it is named even where room is
    scarce, as our own rows and those of the front are.
    """

    label: str
    kind: Kind
    accuracy: float
    parameters: float | None
    is_estimated: bool = False
    interval: Interval | None = None
    reservations: tuple[Reservation, ...] = ()
    ranked: bool = True
    important: bool = False

    @property
    def marks(self) -> str:
        """The marks behind its label."""
        return "".join(reservation.mark for reservation in self.reservations)


def pareto_front(points: Sequence[MethodPoint]) -> list[MethodPoint]:
    """Return the ranked rows that no other reaches with fewer parameters, fewest first."""
    counted = []
    for point in points:
        if point.ranked and point.parameters is not None:
            counted.append((point.parameters, -point.accuracy, point))
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
