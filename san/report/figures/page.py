"""What all figures share: widths, fonts and colours for print. matplotlib is an extra."""

import contextlib
import importlib.util
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from san.errors import InvalidValueError, MissingPackageError
from san.installation import install_command
from san.report.figures import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Dark on light and light on dark differ in grey, too; shapes tell them apart a second time.
OURS_COLOR = "#00468b"
PUBLISHED_COLOR = "0.35"
UNLABELLED_COLOR = "0.72"
LINE_COLOR = "0.5"
POINTS_PER_INCH = 72.0
_DPI = 300
_LABEL = 0.7  # of an axis, as part of the height of the axes with their labels
_PADDING = 3.0  # points
_LINE_HEIGHT = 1.3 * text.FONT_SIZE  # points
_LEGEND_LINE_HEIGHT = 1.45 * text.FONT_SIZE
_HANDLE = 4.2 * text.FONT_SIZE  # of a legend, with the space around it
# So many colours of viridis can be told apart in grey: their lightness differs by 10 or more.
_COLORS = 6
_LIGHTEST = 0.9  # of viridis; what is beyond is too pale on white
_MARKERS = "osDv^P"
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_HATCHES = ("", "////", "....", "xxxx")
_STYLE = {
    "font.family": text.FONT_FAMILY,
    "font.size": text.FONT_SIZE,
    "axes.labelsize": text.FONT_SIZE,
    "xtick.labelsize": text.FONT_SIZE,
    "ytick.labelsize": text.FONT_SIZE,
    "legend.fontsize": text.FONT_SIZE,
    "legend.frameon": False,
    "legend.borderpad": 0.2,
    "legend.handlelength": 1.6,
    "legend.labelspacing": 0.25,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.4,
    "grid.linewidth": 0.4,
    "grid.color": "0.88",
    "axes.axisbelow": True,
    "figure.constrained_layout.h_pad": _PADDING / POINTS_PER_INCH,
    "figure.constrained_layout.w_pad": _PADDING / POINTS_PER_INCH,
    # Names hold dollars and underscores, and are never formulas.
    "text.parse_math": False,
    # TrueType: the checkers of IEEE and AAAI refuse Type 3.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}


class Width(Enum):
    """The width of a figure in inches, as it stands in a two-column paper."""

    ONE_COLUMN = 3.3
    TWO_COLUMNS = 6.9

    @property
    def points(self) -> float:
        """The same in points."""
        return self.value * POINTS_PER_INCH


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure without a title, and the sentences that belong below it."""

    figure: "Figure"
    caption: str


@dataclass(frozen=True)
class SeriesStyle:
    """How one of several series is told from the others, on paper without colour as well."""

    color: Any
    marker: str
    dash: Any
    hatch: str


@contextlib.contextmanager
def paper_style() -> Iterator[None]:
    """Draw or save for print, whatever the user's own settings of matplotlib are.

    Raises MissingPackageError where a package of the extra `figures` is not installed.
    """
    for package in ("matplotlib", "textalloc"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(f"No figures without {package}: {install_command('figures')}")
    from matplotlib import style  # noqa: PLC0415  (an extra)

    with style.context(["default", _STYLE]):
        yield


def new_figure(
    width: Width, height: float, notes: Sequence[str] = (), legend: Sequence[str] = ()
) -> "Figure":
    """Return a figure with notes below its axes, which take `height` inches with their labels.

    legend: what `add_legend` will write above them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (an extra)
    from matplotlib.figure import Figure  # noqa: PLC0415

    lines: list[str] = []
    for note in notes:
        lines += text.wrap(note, width.points - 2 * _PADDING)
    notes_points = len(lines) * _LINE_HEIGHT + _PADDING if lines else 0.0
    rows = math.ceil(len(legend) / _legend_columns(legend, width.points))
    total = height * POINTS_PER_INCH + notes_points + rows * _LEGEND_LINE_HEIGHT
    figure = Figure(figsize=(width.value, total / POINTS_PER_INCH), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)  # type: ignore[no-untyped-call]
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, notes_points / total, 1, 1 - notes_points / total))
    for i, line in enumerate(reversed(lines)):
        y = (_PADDING + i * _LINE_HEIGHT) / total
        figure.text(_PADDING / width.points, y, line, va="bottom")
    return figure


def add_legend(figure: "Figure", handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Explain what is drawn, above the axes, in as many columns as fit."""
    width = figure.get_figwidth() * POINTS_PER_INCH
    shown = [text.shorten(label, width - 2 * _PADDING - _HANDLE) for label in labels]
    columns = _legend_columns(labels, width)
    figure.legend(handles, shown, loc="outside upper left", ncols=columns)


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """Return how many columns of a legend fit into so many points."""
    room = width - 2 * _PADDING
    widths = [text.text_width(text.drawable(label)) + _HANDLE for label in labels]
    return max(1, min(len(labels), math.floor(room / max(widths, default=room))))


def label_y(axes: "Axes", label: str, height: float) -> None:
    """Write what the vertical axis shows, as much as fits beside axes of `height` inches."""
    axes.set_ylabel(text.shorten(label, _LABEL * height * POINTS_PER_INCH))


def freeze_layout(figure: "Figure") -> None:
    """Lay the axes out for the last time: files of every format and resolution are alike."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def series_styles(count: int) -> list[SeriesStyle]:
    """Return as many styles; beyond six, colours come again with another dash and hatch."""
    from matplotlib import colormaps  # noqa: PLC0415  (an extra)

    colors = min(count, _COLORS)
    styles = []
    for i in range(count):
        turn, place = divmod(i, _COLORS)
        shade = _LIGHTEST * place / max(1, colors - 1)
        styles.append(
            SeriesStyle(
                color=colormaps["viridis"](shade),
                marker=_MARKERS[place],
                dash=_DASHES[turn % len(_DASHES)],
                hatch=_HATCHES[turn % len(_HATCHES)],
            )
        )
    return styles


def check_finite(numbers: Iterable[float | None], what: str) -> None:
    """Raise InvalidValueError where one is NaN or infinite; None is no number, and allowed."""
    for number in numbers:
        if number is not None and not math.isfinite(number):
            raise InvalidValueError(
                f"{what} came as {number}; a finite number is allowed. "
                "Leave out what has no number."
            )
