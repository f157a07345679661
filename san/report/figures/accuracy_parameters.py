"""Accuracy against trained parameters: all rows, ours and published, and their Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from san.report.figures import captions
from san.report.figures.count_axis import CountAxis, draw_count_axis, make_count_axis
from san.report.figures.labels import Line, Obstacles, PointLabel, place_labels
from san.report.figures.page import (
    OURS_COLOR,
    POINTS_PER_INCH,
    PUBLISHED_COLOR,
    UNLABELLED_COLOR,
    Drawing,
    Width,
    add_legend,
    freeze_layout,
    label_y,
    new_figure,
    paper_style,
)
from san.report.figures.points import (
    Kind,
    MethodPoint,
    check_points,
    pareto_front,
)
from san.report.figures.text import FONT_SIZE, drawable, shorten, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AREA = 13.0  # of a marker, in square points
_RADIUS = 2.4  # of the room that a marker takes, in points
_LEADER_ZORDER = 2.05  # above points without a name, which come first, and below those with one
_WIDEST = 90.0  # a name, in points
_MARKERS = {Kind.OURS: "D", Kind.PUBLISHED: "o"}
_HEIGHTS = {Width.ONE_COLUMN: 3.0, Width.TWO_COLUMNS: 3.6}  # with the legend, in inches
_DENSEST = 0.15  # part of a figure that names can take; more never find room
# So many of all names may become numbers; with more, only rows that need a name have one.
_FEW = 0.25
_FEWEST = 2


@dataclass(frozen=True, eq=False)
class _Row:
    """A row where it stands. named: whether its name is to be written."""

    point: MethodPoint
    x: float
    in_front: bool
    named: bool = True

    @property
    def needs_name(self) -> bool:
        """Whether it is named even where room is scarce."""
        return self.in_front or self.point.important or self.point.kind is Kind.OURS

    @property
    def name(self) -> str:
        """Its label with its marks."""
        return self.point.label + self.point.marks


@dataclass(frozen=True)
class _Layout:
    """What stays the same while names are placed."""

    scale: CountAxis
    accuracy_label: str
    width: Width
    notes: Sequence[str]


@dataclass(frozen=True)
class _Chart:
    """A figure of rows; a number stands in place of some names, and nothing for others."""

    figure: "Figure"
    rows: Sequence[_Row]
    numbered: Sequence[_Row]
    nameless: Sequence[_Row]


@paper_style()
def draw_accuracy_parameters(
    points: Sequence[MethodPoint],
    accuracy_label: str = "mean accuracy, percent",
    width: Width = Width.ONE_COLUMN,
    notes: Sequence[str] = (),
) -> Drawing | None:
    """Draw the rows; None where there are none.

    notes: sentences below the axes, beside those of the marks. All rows are named if there is room,
    else ours, those of the front and important ones; a name for which there is no clear place
    becomes a number that is explained below. The caption says what is not named. Raises
    InvalidValueError on a number that is not finite or not allowed.
    """
    check_points(points)
    if not points:
        return None
    scale = make_count_axis([point.parameters for point in points])
    layout = _Layout(scale, accuracy_label, width, [_explain_marks(points), *notes])
    rows = _arrange(points, scale)
    chart = None
    if _may_fit(rows, width):
        chart = _draw_named(layout, rows, most_numbers=max(_FEWEST, round(_FEW * len(rows))))
    if chart is None:
        few = [replace(row, named=row.needs_name) for row in rows]
        chart = _draw_named(layout, few, most_numbers=len(few))
        assert chart is not None  # any number of numbers is allowed
    unnamed = sum(not row.named for row in chart.rows)
    nameless = [row.name for row in chart.nameless]
    caption = captions.of_accuracy_parameters(points, accuracy_label, unnamed, nameless)
    return Drawing(chart.figure, caption)


def _may_fit(rows: Sequence[_Row], width: Width) -> bool:
    """Tell whether names of all rows could find room at all."""
    names = sum(text_width(_label(row, []).text) for row in rows) * FONT_SIZE
    return names < _DENSEST * width.points * _HEIGHTS[width] * POINTS_PER_INCH


def _draw_named(layout: _Layout, rows: Sequence[_Row], most_numbers: int) -> _Chart | None:
    """Draw the rows with their names or numbers; None if that takes more numbers than allowed."""
    figure, numbered = _draw(layout, rows, [], give_up=most_numbers)
    if len(numbered) > most_numbers:
        return None
    nameless: list[_Row] = []
    if numbered:
        figure, nameless = _draw(layout, rows, numbered, give_up=len(rows))
    return _Chart(figure, rows, numbered, nameless)


def _arrange(points: Sequence[MethodPoint], scale: CountAxis) -> list[_Row]:
    """Return the rows, ours first, then those that have to be named."""
    front = {id(point) for point in pareto_front(points)}
    rows = []
    for point in points:
        x = scale.x(point.parameters)
        rows.append(_Row(point, x, in_front=id(point) in front))
    return sorted(rows, key=lambda row: (row.point.kind is not Kind.OURS, not row.needs_name))


def _explain_marks(points: Sequence[MethodPoint]) -> str:
    """Explain each mark once, in the order in which they come up."""
    reservations = [reservation for point in points for reservation in point.reservations]
    explained = [f"{mark} {sentence}" for mark, sentence in dict.fromkeys(reservations)]
    return " ".join(explained)


def _draw(
    layout: _Layout, rows: Sequence[_Row], numbered: Sequence[_Row], give_up: int
) -> tuple["Figure", list[_Row]]:
    """Return the figure, and the rows whose names or numbers found no clear place."""
    key = ", ".join(f"{i} {row.name}" for i, row in enumerate(numbered, start=1))
    figure = new_figure(layout.width, _HEIGHTS[layout.width], [key, *layout.notes])
    axes = figure.add_subplot()
    draw_count_axis(axes, layout.scale, "trained parameters without the head")
    label_y(axes, layout.accuracy_label, _HEIGHTS[layout.width])
    axes.grid(visible=True)
    entries = _draw_markers(axes, rows)
    lines = _draw_intervals(axes, rows)
    front = [row for row in rows if row.in_front]
    if front:
        lines.append(_front_steps(front, layout.scale))
        entries["front of compared rows"] = axes.plot(
            *lines[-1], color="black", linewidth=0.6, linestyle=(0, (4, 2)), zorder=1.5
        )[0]
    axes.margins(y=0.08)
    axes.set_ylim(axes.get_ylim())  # names are placed within the limits that there are
    add_legend(figure, list(entries.values()), list(entries))
    freeze_layout(figure)
    xs = [row.x for row in rows]
    ys = [row.point.accuracy for row in rows]
    # Where there was no room before, it is found first.
    named = [*numbered, *(row for row in rows if row.named and row not in numbered)]
    labels = {_label(row, numbered): row for row in named}
    obstacles = Obstacles(xs, ys, _RADIUS, lines, _LEADER_ZORDER)
    left = place_labels(axes, list(labels), obstacles, 3 * give_up, clear=not numbered)
    return figure, [labels[label] for label in left]


def _label(row: _Row, numbered: Sequence[_Row]) -> PointLabel:
    """Return the name of a row with its marks, its middle left out if it is long; or its number."""
    if row in numbered:
        name = str(numbered.index(row) + 1)
    else:
        marks = drawable(row.point.marks)
        name = shorten(row.point.label, _WIDEST - text_width(marks)) + marks
    color = OURS_COLOR if row.point.kind is Kind.OURS else "0.15"
    return PointLabel(name, row.x, row.point.accuracy, color)


def _draw_markers(axes: "Axes", rows: Sequence[_Row]) -> dict[str, Any]:
    """Draw a marker for each row; return what the legend has to say, and the drawn."""
    groups: dict[str, list[_Row]] = {}
    for row in sorted(rows, key=lambda row: (row.point.kind is Kind.OURS, row.named)):
        what = str(row.point.kind)
        if not row.named:
            what += ", not named"
        groups.setdefault(what, []).append(row)
    drawn: dict[str, Any] = {}
    for what, group in groups.items():
        point = group[0].point
        color = _color(group[0])
        drawn[what] = axes.scatter(
            [row.x for row in group],
            [row.point.accuracy for row in group],
            s=_AREA,
            marker=_MARKERS[point.kind],
            facecolors=color,
            edgecolors="white",
            linewidths=0.4,
            zorder=2.0 + len(drawn) / 10,
        )
    return dict(reversed(drawn.items()))


def _color(row: _Row) -> str:
    if row.point.kind is Kind.OURS:
        return OURS_COLOR
    return PUBLISHED_COLOR if row.named else UNLABELLED_COLOR


def _draw_intervals(axes: "Axes", rows: Sequence[_Row]) -> list[Line]:
    """Draw the error bars, and return their lines."""
    lines: list[Line] = []
    for row in rows:
        interval = row.point.interval
        if interval is not None:
            lines.append(((row.x, row.x), interval))
            axes.plot(
                *lines[-1], color=_color(row), linewidth=0.7, marker="_", markersize=3, zorder=1.8
            )
    return lines


def _front_steps(front: Sequence[_Row], scale: CountAxis) -> Line:
    """Return the corners of the front, which goes on to the right of its last row."""
    steps = sorted(front, key=lambda row: (row.x, row.point.accuracy))
    xs: list[float] = []
    ys: list[float] = []
    for row in steps:
        if xs:
            xs.append(row.x)
            ys.append(ys[-1])
        xs.append(row.x)
        ys.append(row.point.accuracy)
    xs.append(scale.high)
    ys.append(ys[-1])
    return xs, ys
