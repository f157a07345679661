"""Learning curves: training loss and, where it was evaluated, accuracy by epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from san.errors import InvalidValueError
from san.report.figures.page import (
    Drawing,
    Width,
    add_legend,
    check_finite,
    freeze_layout,
    label_y,
    new_figure,
    paper_style,
    series_styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL = {Width.ONE_COLUMN: 1.5, Width.TWO_COLUMNS: 2.2}  # inches
_WIDE_RANGE = 30.0  # of losses, from the least to the greatest: it takes a logarithmic axis
_FEW_POINTS = 12  # of a curve: each has a marker


@dataclass(frozen=True)
class Curve:
    """A run: its training loss by epoch, and its accuracy in percent at epochs of its own."""

    label: str
    epochs: Sequence[float]
    losses: Sequence[float]
    evaluated_epochs: Sequence[float] = ()
    accuracies: Sequence[float] = ()


@paper_style()
def draw_learning_curves(
    curves: Sequence[Curve],
    accuracy_label: str = "accuracy, percent",
    width: Width = Width.ONE_COLUMN,
    notes: Sequence[str] = (),
) -> Drawing | None:
    """Draw the runs; None where there are none.

    There are no axes of accuracy where nothing was evaluated. Raises InvalidValueError on a number
    that is not finite, and where there are not as many numbers as epochs.
    """
    _check(curves)
    if not any(curve.epochs or curve.evaluated_epochs for curve in curves):
        return None
    panels = [("training loss", [(curve.epochs, curve.losses) for curve in curves])]
    if any(curve.evaluated_epochs for curve in curves):
        evaluated = [(curve.evaluated_epochs, curve.accuracies) for curve in curves]
        panels.append((accuracy_label, evaluated))
    labels = [curve.label for curve in curves]
    side_by_side = width is Width.TWO_COLUMNS
    shape = (1, len(panels)) if side_by_side else (len(panels), 1)
    figure = new_figure(width, _PANEL[width] * shape[0] + 0.2, notes, labels)
    grid = figure.subplots(*shape, sharex=True, squeeze=False)
    handles: list[Any] = []
    for axes, (panel_label, series) in zip(grid.flat, panels, strict=True):
        handles = _draw_panel(axes, series)
        label_y(axes, panel_label, _PANEL[width])
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    add_legend(figure, handles, labels)
    freeze_layout(figure)
    return Drawing(figure, _caption(curves, accuracy_label))


def _check(curves: Sequence[Curve]) -> None:
    """Raise InvalidValueError on a number that is not finite, or one without its epoch."""
    for curve in curves:
        pairs = ((curve.epochs, curve.losses), (curve.evaluated_epochs, curve.accuracies))
        for epochs, values in pairs:
            if len(epochs) != len(values):
                raise InvalidValueError(
                    f"'{curve.label}' came with {len(values)} numbers for {len(epochs)} epochs; "
                    "one for each is allowed."
                )
            check_finite([*epochs, *values], f"A point of the curve '{curve.label}'")


def _draw_panel(
    axes: "Axes", series: Sequence[tuple[Sequence[float], Sequence[float]]]
) -> list[Any]:
    """Draw a quantity of all runs; return their lines."""
    handles = []
    for (epochs, values), style in zip(series, series_styles(len(series)), strict=True):
        few = len(epochs) <= _FEW_POINTS
        every = 1 if few else max(1, len(epochs) // 6)
        handles += axes.plot(
            epochs,
            values,
            color=style.color,
            linestyle=style.dash,
            marker=style.marker,
            markevery=every,
        )
    values = [value for _, ys in series for value in ys]
    if values and min(values) > 0 and max(values) > _WIDE_RANGE * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda *_: "")
    axes.locator_params(axis="x", integer=True)
    axes.grid(visible=True)
    return handles


def _caption(curves: Sequence[Curve], accuracy_label: str) -> str:
    what = "Training loss"
    if any(curve.evaluated_epochs for curve in curves):
        what += f" and {accuracy_label}"
    sentences = [f"{what}, by epoch."]
    without = [curve.label for curve in curves if not curve.evaluated_epochs]
    if without and len(without) < len(curves):
        sentences.append(f"Not evaluated: {', '.join(without)}.")
    return " ".join(sentences)
