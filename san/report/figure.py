"""Accuracy against trainable parameters, ours and published. Only this module knows matplotlib."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from san.errors import FileAccessError
from san.report.aggregate import MEAN_OF_TASKS
from san.report.table import Section, Table
from san.runtime.files import atomic_write

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Where a row without trained parameters is drawn: a logarithmic axis has no zero.
_NO_PARAMETERS = 1e3
_OUR_COLOR = "C3"
# Offsets in points at which a label is tried beside its point.
_LABEL_OFFSETS = [(5, 3), (5, -8), (-5, 3), (-5, -8), (5, 11), (5, -16), (-5, 11), (-5, -16)]


class Point(NamedTuple):
    """Trained parameters without the head, and the mean accuracy over all tasks in percent."""

    parameters: float
    accuracy: float


def points(section: Section) -> dict[str, Point]:
    """Return the point of each row, by its label, where both of its numbers are known."""
    found = {}
    for row in section.rows:
        mean = row.values.get(MEAN_OF_TASKS)
        parameters = row.trainable.without_head
        if mean is None or not mean.exists or math.isnan(parameters):
            continue
        found[row.label] = Point(parameters or _NO_PARAMETERS, mean.mean)
    return found


def draw_figure(table: Table, directory: Path, name: str) -> list[Path]:
    """Write `<name>.pdf` and `.png`, and return their paths.

    Nothing is written where no row is complete, or matplotlib is not installed. Raises
    FileAccessError where a file cannot be written.
    """
    published = points(table.published)
    ours = points(table.ours)
    if not ours and not published:
        return []
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError:
        return []
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", title=f"{table.title}: mean accuracy of all tasks, percent")
    axes.set_xlabel("trainable parameters without the head (none: drawn at 1000)")
    _scatter(axes, published, label="published", color="0.55", marker="o")
    _scatter(axes, ours, label="run again", color=_OUR_COLOR, marker="D")
    axes.margins(0.1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.draw_without_rendering()  # labels know their extent only then
    _annotate(axes, ours, published)
    # Without a date, the same table gives the same file.
    pdf = _save(figure, directory / f"{name}.pdf", {"CreationDate": None})
    png = _save(figure, directory / f"{name}.png", {})
    return [pdf, png]


def _scatter(axes: "Axes", found: Mapping[str, Point], label: str, color: str, marker: str) -> None:
    """Draw the points of a section, if it has any."""
    if not found:
        return
    parameters = [point.parameters for point in found.values()]
    accuracies = [point.accuracy for point in found.values()]
    axes.scatter(parameters, accuracies, s=16, label=label, color=color, marker=marker)


def _annotate(axes: "Axes", ours: Mapping[str, Point], published: Mapping[str, Point]) -> None:
    """Write a name beside each point where there is room; ours come first."""
    occupied: list[Any] = []
    for label, point in {**ours, **published}.items():
        color = _OUR_COLOR if label in ours else "0.3"
        for offset in _LABEL_OFFSETS:
            text = axes.annotate(
                label,
                point,
                xytext=offset,
                textcoords="offset points",
                parse_math=False,
                fontsize=7,
                color=color,
                ha="left" if offset[0] > 0 else "right",
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in occupied):
                occupied.append(box)
                break
            text.remove()


def _save(figure: "Figure", path: Path, metadata: Mapping[str, str | None]) -> Path:
    """Write the figure in the format of the path's suffix."""
    file_format = path.suffix.removeprefix(".")
    try:
        with atomic_write(path) as unfinished:
            figure.savefig(unfinished, format=file_format, dpi=200, metadata=dict(metadata))
    except OSError as error:
        raise FileAccessError(
            f"The figure cannot be written: {error}. Those that were there are unchanged."
        ) from error
    return path
