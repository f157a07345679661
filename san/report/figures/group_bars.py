"""Bars of each row by group of tasks, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from san.errors import InvalidValueError
from san.report.figures.page import (
    Drawing,
    SeriesStyle,
    Width,
    add_legend,
    check_finite,
    freeze_layout,
    label_y,
    new_figure,
    paper_style,
    series_styles,
)
from san.report.figures.points import Interval
from san.report.figures.text import wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer

_HEIGHTS = {Width.ONE_COLUMN: 2.4, Width.TWO_COLUMNS: 2.6}
_AXES = 0.8  # part of a figure's width that the axes take
_BARS = 0.8  # part of a group's room that bars take


@dataclass(frozen=True)
class Bar:
    """A value, and the ends of its error bar if they are known."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class BarRow:
    """A row: a bar for each group, None where there is no value."""

    label: str
    bars: Sequence[Bar | None]


@paper_style()
def draw_group_bars(
    groups: Sequence[str],
    rows: Sequence[BarRow],
    value_label: str = "mean accuracy, percent",
    width: Width = Width.ONE_COLUMN,
    notes: Sequence[str] = (),
) -> Drawing | None:
    """Draw the rows side by side in every group; None where there are none.

    Bars start at zero, so that their lengths compare: for small differences give values minus those
    of a baseline. Raises InvalidValueError on a number that is not finite, and on a row that has
    not as many bars as there are groups.
    """
    _check(groups, rows)
    if not rows or not groups:
        return None
    labels = [row.label for row in rows]
    figure = new_figure(width, _HEIGHTS[width], notes, labels)
    axes = figure.add_subplot()
    handles = []
    for i, (row, style) in enumerate(zip(rows, series_styles(len(rows)), strict=True)):
        shift = _BARS * ((i + 0.5) / len(rows) - 0.5)
        handles.append(_draw_row(axes, row, style, shift, _BARS / len(rows)))
    axes.axhline(0, color="black", linewidth=0.6)
    room = width.points * _AXES / len(groups)
    axes.set_xticks(range(len(groups)), ["\n".join(wrap(group, room)) for group in groups])
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("group of tasks")
    label_y(axes, value_label, _HEIGHTS[width])
    axes.grid(visible=True, axis="y")
    add_legend(figure, handles, labels)
    freeze_layout(figure)
    return Drawing(figure, _caption(groups, rows, value_label))


def _check(groups: Sequence[str], rows: Sequence[BarRow]) -> None:
    """Raise InvalidValueError on a number that is not finite, or a row of another length."""
    for row in rows:
        if len(row.bars) != len(groups):
            raise InvalidValueError(
                f"'{row.label}' came with {len(row.bars)} bars; {len(groups)} are allowed, one for "
                "each group, None where there is no value."
            )
        for bar in row.bars:
            if bar is not None:
                what = f"A bar of '{row.label}'"
                check_finite([bar.value, *(bar.interval or ())], what)


def _draw_row(
    axes: "Axes", row: BarRow, style: SeriesStyle, shift: float, bar_width: float
) -> "BarContainer":
    """Draw the bars of a row, `shift` beside the middle of each group."""
    places = [i + shift for i, bar in enumerate(row.bars) if bar is not None]
    bars = [bar for bar in row.bars if bar is not None]
    drawn = axes.bar(
        places,
        [bar.value for bar in bars],
        bar_width,
        color=style.color,
        hatch=style.hatch,
        edgecolor="white",
        linewidth=0.4,
    )
    for place, bar in zip(places, bars, strict=True):
        if bar.interval is not None:
            # White below black is seen on dark bars and beside them.
            for color, line_width in (("white", 2.0), ("black", 0.8)):
                axes.vlines(place, *bar.interval, color=color, linewidth=line_width)
    return drawn


def _caption(groups: Sequence[str], rows: Sequence[BarRow], value_label: str) -> str:
    sentences = [f"{value_label[:1].upper()}{value_label[1:]}, by group of tasks; bars start at 0."]
    missing = [
        f"{row.label} in {group}"
        for row in rows
        for group, bar in zip(groups, row.bars, strict=True)
        if bar is None
    ]
    if missing:
        sentences.append(f"Without a value: {', '.join(missing)}.")
    return " ".join(sentences)
