"""A confusion matrix: which class was answered for images of which."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from san.errors import InvalidValueError
from san.report.figures.page import (
    Drawing,
    Width,
    freeze_layout,
    new_figure,
    paper_style,
)
from san.report.figures.text import shorten

# Classes whose counts fit into their cells, and whose names fit beside the axes.
_MOST_NUMBERS = {Width.ONE_COLUMN: 5, Width.TWO_COLUMNS: 12}
_MOST_NAMES = {Width.ONE_COLUMN: 14, Width.TWO_COLUMNS: 40}
_LONGEST_NAME = 0.16  # of the width
_DARK = 0.6  # of a row, from which on a count is written in white


@paper_style()
def draw_confusion_matrix(
    classes: Sequence[str], counts: NDArray[np.int64], width: Width = Width.TWO_COLUMNS
) -> Drawing:
    """Draw a row for each label, a column for each answer; grey is the share of a row's images.

    counts: `(classes, classes)`. Counts are written where there are few classes, names where they
    fit. Raises InvalidValueError where the shape is another one.
    """
    if counts.shape != (len(classes), len(classes)):
        raise InvalidValueError(
            f"The counts are {counts.shape}; {len(classes)} classes need a square of them."
        )
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = new_figure(width, width.value * 0.9)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.7)
    bar.set_label("share of the images of a class")
    if len(classes) <= _MOST_NUMBERS[width]:
        _write_counts(axes, counts, shares)
    if len(classes) <= _MOST_NAMES[width]:
        names = [shorten(name, _LONGEST_NAME * width.points) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("answer")
    axes.set_ylabel("class")
    axes.spines[["top", "right"]].set_visible(True)
    freeze_layout(figure)
    total = int(counts.sum())
    return Drawing(figure, f"Answers for {total} images; grey is the share of a class's images.")


def _write_counts(axes: Any, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    """Write each count that is not zero into its cell."""
    for label, answer in np.argwhere(counts).tolist():
        color = "white" if shares[label, answer] > _DARK else "black"
        number = str(counts[label, answer])
        axes.text(answer, label, number, ha="center", va="center", color=color)
