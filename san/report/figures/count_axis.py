"""A logarithmic axis of parameter counts, with a strip on its left for rows without a number."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRIP = 0.11  # width of the strip of zeros, and of the one of unknown counts, as part of the axis
_ROOM = 0.05  # beside the outermost counts, as part of the axis
_DEFAULT = (1e4, 1e6)  # where no row has a count
_NARROWEST = 10.0  # from the least to the greatest count
_STEPS = (1, 2, 5)
ZERO = "0"
UNKNOWN = "n/a"


@dataclass(frozen=True)
class CountAxis:
    """Where counts stand; `low` to `high` is logarithmic, and left of it the axis is broken.

    zero, unknown: where rows that train nothing, and those whose count is not known, are drawn;
    None where there are none. start: the left end.
    """

    low: float
    high: float
    start: float
    zero: float | None
    unknown: float | None

    def x(self, count: float | None) -> float:
        """Return where a count is drawn."""
        place = self.unknown if count is None else count or self.zero
        assert place is not None  # the axis was made for it
        return place


def make_count_axis(counts: Iterable[float | None]) -> CountAxis:
    """Return an axis on which all counts have a place; 0 is none, None is not known."""
    found = set(counts)
    positive = [count for count in found if count]
    low = min(positive, default=_DEFAULT[0])
    high = max(positive, default=_DEFAULT[1])
    if high < _NARROWEST * low:
        middle = math.sqrt(low * high)
        low = middle / math.sqrt(_NARROWEST)
        high = middle * math.sqrt(_NARROWEST)
    decades = math.log10(high / low)
    strip = 10 ** (_STRIP * decades)
    room = 10 ** (_ROOM * decades)
    start = low = low / room
    zero = unknown = None
    if 0 in found:
        zero = start / strip**0.5
        start /= strip
    if None in found:
        unknown = start / strip**0.5
        start /= strip
    return CountAxis(low, high * room, start, zero, unknown)


def draw_count_axis(axes: "Axes", scale: CountAxis, label: str) -> None:
    """Draw the axis with its ticks, and the break if it has a strip."""
    axes.set_xscale("log")
    axes.set_xlim(scale.start, scale.high)
    axes.set_xlabel(label)
    names = {tick: _short(tick) for tick in _ticks(scale.low, scale.high)}
    if scale.zero is not None:
        names[scale.zero] = ZERO
    if scale.unknown is not None:
        names[scale.unknown] = UNKNOWN
    axes.set_xticks(list(names), list(names.values()))
    minor = _multiples(scale.low, scale.high, range(2, 10))
    axes.set_xticks(minor, [""] * len(minor), minor=True)
    if scale.start < scale.low:
        _draw_break(axes, scale)


def _ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten between two counts; of narrow ranges also twice and five times."""
    powers = _multiples(low, high, [1])
    return powers if len(powers) > 1 else _multiples(low, high, _STEPS)


def _multiples(low: float, high: float, factors: Iterable[int]) -> list[float]:
    """Return the powers of ten between two counts, times each of the factors."""
    found = []
    for factor in factors:
        first = math.ceil(math.log10(low / factor))
        last = math.floor(math.log10(high / factor))
        found += [factor * 10.0**power for power in range(first, last + 1)]
    return sorted(found)


def _short(count: float) -> str:
    """Return a count with its unit: `500`, `20 k`, `1 M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g}"


def _draw_break(axes: "Axes", scale: CountAxis) -> None:
    """Draw the border of the strip, and two strokes across the axis where it is broken."""
    axes.axvline(scale.low, color="0.8", linewidth=0.5, zorder=0.5)
    whole = math.log(scale.high / scale.start)
    place = math.log(scale.low / scale.start) / whole
    for left in (place - 0.012, place):
        axes.plot(
            (left, left + 0.012),
            (-0.018, 0.018),
            color="black",
            linewidth=0.6,
            transform=axes.transAxes,
            clip_on=False,
        )
