"""Names beside points: none on a point, a line, another name or the frame, by textalloc.

It tries places beside a point, nearest first, and takes the first that is free. (Its rival
adjustText pushes names apart, and leaves some on one another.) Ours to choose is the order in which
names are placed, and the side; and to watch, that the line from a name to its point does not lead
through another named point, whose name it would seem to be.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from san.report.figures.page import LINE_COLOR, POINTS_PER_INCH
from san.report.figures.text import FONT_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

# Distances as parts of the axes' width.
_MARGIN = 0.006
_NEAREST = 0.012
_FARTHEST = 0.3
_LAST_FARTHEST = 0.6  # where nothing nearer is free
_BERTH = 1.7  # that a line gives a point which is not its own, as part of a point's radius
_CANDIDATES = 250  # places that are tried for a name; within a larger distance more, as densely
# Orders of placing names: as they come, the widest first, and by chance (seeds).
_ORDERS: tuple[str | int | None, ...] = (None, "largest", 0, 1, 2)
_SIDES = ("east", "west", "north", "south", "northeast", "northwest", "southeast", "southwest")
Line = tuple[Sequence[float], Sequence[float]]  # the xs and the ys of its corners


@dataclass(frozen=True, eq=False)
class PointLabel:
    """A name, the point that it belongs to (in data coordinates), and its colour."""

    text: str
    x: float
    y: float
    color: str


@dataclass(frozen=True)
class Obstacles:
    """What names keep off: points with their radius in points, and lines, in data coordinates.

    leader_zorder: of the lines that lead from names to points.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    radius: float
    lines: Sequence[Line]
    leader_zorder: float


@dataclass
class _Placed:
    """What has a place already, in pixels but for `lines`.

    named: the points that get a name `(N, 2)`, and their radius. boxes, leaders: of names. lines:
    those of leaders and boxes, in data coordinates. artists: all that was drawn.
    """

    named: Any
    radius: float
    boxes: list["Bbox"] = field(default_factory=list)
    leaders: list["Path"] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    artists: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class _Placer:
    """Places names on axes."""

    axes: "Axes"
    obstacles: Obstacles

    def start(self, labels: Sequence[PointLabel]) -> _Placed:
        """Return what there is before the first name has a place."""
        figure: Any = self.axes.figure
        radius = self.obstacles.radius * figure.dpi / POINTS_PER_INCH
        points = [(label.x, label.y) for label in labels]
        return _Placed(self.axes.transData.transform(points), radius)

    def place(
        self,
        labels: Sequence[PointLabel],
        placed: _Placed,
        side: str | None = None,
        order: str | int | None = None,
        farthest: float = _FARTHEST,
        clear: bool = True,
    ) -> list[PointLabel]:
        """Write names, and return those for which there is no place, or no clear one if asked."""
        if not labels:
            return []
        left = []
        texts, leaders = self._allocate(labels, placed, side, order, farthest)
        for label, text, leader in zip(labels, texts, leaders, strict=True):
            if text is None:
                left.append(label)
            elif not clear or leader is None or self._is_clear(label, leader, placed):
                self._remember(text, leader, placed)
            else:
                left.append(label)
                text.remove()
                leader.remove()
        return left

    def _allocate(
        self,
        labels: Sequence[PointLabel],
        placed: _Placed,
        side: str | None,
        order: str | int | None,
        farthest: float,
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return the drawn names and the lines to their points; None for what is not drawn."""
        import textalloc  # noqa: PLC0415  (an extra)

        allocate: Any = textalloc.allocate  # it takes more than its annotations say
        lines = [*self.obstacles.lines, *placed.lines]
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where it finds no place
            _, _, texts, leaders = allocate(
                self.axes,
                [label.x for label in labels],
                [label.y for label in labels],
                [label.text for label in labels],
                x_scatter=self.obstacles.xs,
                y_scatter=self.obstacles.ys,
                scatter_sizes=np.full(len(self.obstacles.xs), placed.radius),
                x_lines=[xs for xs, _ in lines] or None,
                y_lines=[ys for _, ys in lines] or None,
                textsize=FONT_SIZE,
                textcolor=[label.color for label in labels],
                margin=_MARGIN,
                min_distance=_NEAREST,
                max_distance=farthest,
                nbr_candidates=round(_CANDIDATES * (farthest / _FARTHEST) ** 2),
                draw_all=False,
                direction=side,
                priority_strategy=order,
                avoid_label_lines_overlap=True,
                avoid_crossing_label_lines=True,
                linecolor=LINE_COLOR,
                linewidth=0.4,
                plot_kwargs={"zorder": self.obstacles.leader_zorder},
                va="bottom",
            )
        return texts, leaders

    def _is_clear(self, label: PointLabel, leader: Any, placed: _Placed) -> bool:
        """Tell whether a line crosses no other named point, name or such line."""
        from matplotlib.transforms import Bbox  # noqa: PLC0415  (an extra)

        path = self.axes.transData.transform_path(leader.get_path())
        own = self.axes.transData.transform((label.x, label.y))
        others = placed.named[np.hypot(*(placed.named - own).T) > placed.radius]
        reach = _BERTH * placed.radius
        markers = [Bbox([point - reach, point + reach]) for point in others]
        meets_box = any(path.intersects_bbox(box) for box in [*markers, *placed.boxes])
        return not meets_box and not any(path.intersects_path(other) for other in placed.leaders)

    def _remember(self, text: Any, leader: Any, placed: _Placed) -> None:
        """Keep later names off a name and its line."""
        box = text.get_window_extent()
        placed.artists.append(text)
        placed.boxes.append(box)
        corners = box.corners()[[0, 1, 3, 2, 0]]
        xs, ys = self.axes.transData.inverted().transform(corners).T
        placed.lines.append((xs, ys))
        if leader is not None:
            placed.artists.append(leader)
            placed.leaders.append(self.axes.transData.transform_path(leader.get_path()))
            placed.lines.append((leader.get_xdata(), leader.get_ydata()))


def place_labels(
    axes: "Axes",
    labels: Sequence[PointLabel],
    obstacles: Obstacles,
    give_up: int,
    clear: bool = True,
) -> list[PointLabel]:
    """Write the names, and return those for which there is no place.

    Layout and limits of the axes have to be final. give_up: with so many more without a place at
    first, no more is tried. clear: whether a place counts from which the line to the point leads
    through another named point.
    """
    if not labels:
        return []
    figure: Any = axes.figure
    figure.set_visible(False)  # textalloc would draw all of it at every call
    placer = _Placer(axes, obstacles)
    placed = placer.start(labels)
    left = placer.place(labels, placed)
    for order in _ORDERS[1:]:
        if not left or len(left) > give_up:
            break
        others_placed = placer.start(labels)
        others_left = placer.place(labels, others_placed, order=order)
        worse = others_placed
        if len(others_left) < len(left):
            worse = placed
            placed = others_placed
            left = others_left
        for artist in worse.artists:
            artist.remove()
    for side in _SIDES:
        if not left or len(left) > give_up:
            break
        left = placer.place(left, placed, side)
    if left and not clear:
        left = placer.place(left, placed, farthest=_LAST_FARTHEST)
        left = placer.place(left, placed, farthest=_LAST_FARTHEST, clear=False)
    figure.set_visible(True)
    return left
