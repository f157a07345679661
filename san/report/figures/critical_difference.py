"""Critical-difference diagrams of average ranks (Demsar, JMLR 2006, figure 1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from san.errors import InvalidValueError, choose
from san.report.figures.page import (
    LINE_COLOR,
    POINTS_PER_INCH,
    Drawing,
    Width,
    check_finite,
    new_figure,
    paper_style,
)
from san.report.figures.points import Interval
from san.report.figures.text import FONT_SIZE, shorten, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Sizes in points.
_NAME_LINE = 1.5 * FONT_SIZE
_BAR_LINE = 4.0
_ABOVE_AXIS = 4.2 * FONT_SIZE  # the critical difference, its bar, and the numbers of the ticks
_TOP = 1 - _ABOVE_AXIS  # where the first line of text is, as y grows downwards from the axis
_MARGIN = 4.0
_TICK = 3.0
_TICK_ROOM = 14.0
_BETWEEN_BARS = 0.02  # in one row, as part of the ranks
_WIDEST = 0.3  # a name, as part of the figure's width


@dataclass(frozen=True)
class MethodRank:
    """A row and its average rank over the tasks; 1 is best."""

    name: str
    rank: float


@dataclass(frozen=True)
class _Ruler:
    """Where ranks from 1 to `last` stand, in points from the left.

    start, end: of the names at the sides.
    """

    left: float
    right: float
    last: int
    start: float
    end: float

    def x(self, rank: float) -> float:
        """Return the place of a rank."""
        return self.left + (rank - 1) / (self.last - 1) * (self.right - self.left)


@paper_style()
def draw_critical_difference(
    ranks: Sequence[MethodRank],
    critical_difference: float,
    groups: Sequence[Sequence[str]],
    width: Width = Width.ONE_COLUMN,
    notes: Sequence[str] = (),
) -> Drawing | None:
    """Draw the ranks, and a bar for each group of rows that are not told apart; None without rows.

    groups: names of rows. Raises InvalidValueError on a number that is not finite or no rank, and
    UnknownNameError on a name in a group that has no rank.
    """
    _check(ranks, critical_difference, groups)
    if not ranks:
        return None
    ordered = sorted(ranks, key=lambda one: one.rank)
    bars = _stack_bars(ordered, groups)
    depth = (len(bars) + 1) * _BAR_LINE
    lines = math.ceil(len(ordered) / 2) + 0.5
    height = _ABOVE_AXIS + depth + lines * _NAME_LINE + _MARGIN
    figure = new_figure(width, height / POINTS_PER_INCH, notes)
    figure.set_layout_engine("none")
    part = height / (figure.get_figheight() * POINTS_PER_INCH)
    axes = figure.add_axes((0, 1 - part, 1, part))
    axes.set_axis_off()
    # One unit is a point, and the ruler is at y = 0.
    axes.set(xlim=(0, width.points), ylim=(height - _ABOVE_AXIS, -_ABOVE_AXIS))
    names = [shorten(one.name, width.points * _WIDEST) for one in ordered]
    side = max(text_width(name) for name in names) + 3 * _MARGIN
    ruler = _Ruler(
        left=side,
        right=width.points - side,
        last=max(2, len(ordered)),
        start=_MARGIN,
        end=width.points - _MARGIN,
    )
    _draw_ruler(axes, ruler)
    _draw_difference(axes, ruler, critical_difference)
    _draw_bars(axes, ruler, bars)
    _draw_names(axes, ruler, ordered, names, depth)
    return Drawing(figure, _caption(ranks, critical_difference, groups))


def _check(
    ranks: Sequence[MethodRank], critical_difference: float, groups: Sequence[Sequence[str]]
) -> None:
    check_finite([critical_difference], "The critical difference")
    for one in ranks:
        check_finite([one.rank], f"The rank of '{one.name}'")
        if not 1 <= one.rank <= len(ranks):
            raise InvalidValueError(
                f"The rank of '{one.name}' came as {one.rank}; 1 to {len(ranks)} is allowed, as "
                f"there are {len(ranks)} rows."
            )
    names = [one.name for one in ranks]
    for group in groups:
        for name in group:
            choose(name, names, "row of a group")


def _stack_bars(
    ordered: Sequence[MethodRank], groups: Sequence[Sequence[str]]
) -> list[list[Interval]]:
    """Return the first and last rank of each group, in rows in which none touches the next."""
    rank = {one.name: one.rank for one in ordered}
    spans = []
    for group in groups:
        members = [rank[name] for name in group]
        if len(members) > 1:
            spans.append(Interval(min(members), max(members)))
    rows: list[list[Interval]] = []
    for span in sorted(spans):
        free = [row for row in rows if row[-1].high + _BETWEEN_BARS * len(ordered) < span.low]
        if free:
            free[0].append(span)
        else:
            rows.append([span])
    return rows


def _draw_ruler(axes: "Axes", ruler: _Ruler) -> None:
    """Draw the axis with its ticks, and what it shows."""
    _stroke(axes, (ruler.left, ruler.right), (0, 0), 0.8)
    between = (ruler.right - ruler.left) / (ruler.last - 1)
    step = math.ceil(_TICK_ROOM / between)
    for rank in range(1, ruler.last + 1, step):
        x = ruler.x(rank)
        _stroke(axes, (x, x), (0, -_TICK), 0.6)
        axes.text(x, -_TICK - 1, str(rank), ha="center", va="bottom")
    axes.text(ruler.end, _TOP, "average rank", ha="right", va="top")


def _draw_difference(axes: "Axes", ruler: _Ruler, difference: float) -> None:
    """Draw the critical difference as a length above the axis, where the axis is long enough."""
    axes.text(ruler.left, _TOP, f"CD {difference:.2f}", ha="left", va="top")
    if difference > ruler.last - 1:
        return
    y = _TOP + FONT_SIZE + 5
    end = ruler.x(1 + difference)
    _stroke(axes, (ruler.left, end), (y, y), 0.8)
    for x in (ruler.left, end):
        _stroke(axes, (x, x), (y - 2, y + 2), 0.8)


def _draw_bars(axes: "Axes", ruler: _Ruler, rows: Sequence[Sequence[Interval]]) -> None:
    """Draw the rows of bars that join ranks."""
    for level, row in enumerate(rows, start=1):
        y = level * _BAR_LINE
        for low, high in row:
            left = ruler.x(low) - 2
            right = ruler.x(high) + 2
            _stroke(axes, (left, right), (y, y), 2.2)


def _draw_names(
    axes: "Axes", ruler: _Ruler, ordered: Sequence[MethodRank], names: Sequence[str], top: float
) -> None:
    """Write the better half on the left and the others on the right, outermost ranks on top."""
    half = math.ceil(len(ordered) / 2)
    for i, (one, name) in enumerate(zip(ordered, names, strict=True)):
        x = ruler.x(one.rank)
        if i < half:
            y = top + (i + 0.7) * _NAME_LINE
            edge = ruler.start
            end = edge + text_width(name) + 2
        else:
            y = top + (len(ordered) - i - 0.3) * _NAME_LINE
            edge = ruler.end
            end = edge - text_width(name) - 2
        _stroke(axes, (x, x, end), (0, y, y), 0.6, LINE_COLOR)
        axes.text(edge, y, name, ha="left" if i < half else "right", va="center")


def _stroke(
    axes: "Axes",
    xs: Sequence[float],
    ys: Sequence[float],
    thickness: float,
    color: str = "black",
) -> None:
    """Draw a line through corners; thicker ones lie on top."""
    axes.plot(xs, ys, color=color, linewidth=thickness, zorder=1 + thickness)


def _caption(
    ranks: Sequence[MethodRank], difference: float, groups: Sequence[Sequence[str]]
) -> str:
    joined = [group for group in groups if len(group) > 1]
    sentences = [
        f"Average ranks of {len(ranks)} rows, 1 is best; ranks that differ by less than the "
        f"critical difference (CD, {difference:.2f}) are not told apart."
    ]
    if joined:
        sentences.append("A bar joins rows that are not told apart.")
    return " ".join(sentences)
