"""What is drawn, as numbers: boxes of texts and markers; and the real case that tests draw."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from san.report.figures.page import paper_style
from san.report.figures.points import Interval, Kind, MethodPoint, Reservation

MEAN_HEAD = 36049.0  # of VTAB-1k on ViT-B/16
SENTENCES = {
    "†": "the epoch was chosen on the test split.",
    "◦": "from other pre-trained weights than this table's.",
    "*": "from means as stated; not all values of its tasks are public.",
    "?": "its weights, or where its epoch was chosen, are not known.",
}


def vtab_points() -> list[MethodPoint]:
    """52 published rows of VTAB-1k (benchmarks/published), and eleven of ours that are made up."""
    path = Path(__file__).parent / "vtab_points.csv"
    with path.open(encoding="utf-8") as file:
        return [read_point(row) for row in csv.DictReader(file)]


def read_point(row: dict[str, str]) -> MethodPoint:
    accuracy = float(row["accuracy"])
    ours = row["kind"] == Kind.OURS
    counts_head = row["counts_head"] == "yes"
    parameters = float(row["parameters"]) if row["parameters"] else None
    if parameters is not None and counts_head:
        parameters -= MEAN_HEAD
    return MethodPoint(
        label=row["label"],
        kind=Kind(row["kind"]),
        accuracy=accuracy,
        parameters=parameters,
        is_estimated=counts_head,
        interval=Interval(accuracy - 0.8, accuracy + 0.7) if ours else None,
        reservations=tuple(Reservation(mark, SENTENCES[mark]) for mark in row["marks"]),
        ranked="†" not in row["marks"],
    )


def texts(figure: Figure) -> list[Text]:
    """Every text that is seen."""
    with paper_style():  # ticks are made when they are drawn
        figure.draw_without_rendering()
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    hidden = {label for axes in figure.axes for label in labels_beyond(axes)}
    return [text for text in found if text.get_text() and text not in hidden]


def labels_beyond(axes: Axes) -> set[Text]:
    """The labels of ticks beyond the limits, which are not drawn."""
    labels = set()
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not axes.axison or not low <= tick.get_loc() <= high:
                labels |= {tick.label1, tick.label2}
    return labels


def boxes(figure: Figure) -> dict[Text, Bbox]:
    return {text: text.get_window_extent() for text in texts(figure)}


def names(axes: Axes) -> list[Text]:
    """The names of points."""
    return [text for text in axes.texts if text.get_text()]


def centers(axes: Axes) -> np.ndarray:
    """The middle of every marker of a scatter plot, in pixels."""
    groups = [c.get_offsets() for c in axes.collections if isinstance(c, PathCollection)]
    return axes.transData.transform(np.concatenate(groups))


def overlaps(one: Bbox, other: Bbox) -> bool:
    """Whether two boxes share more than a border."""
    shared = Bbox.intersection(one, other)
    return shared is not None and shared.width > 0.5 and shared.height > 0.5


def check_layout(figure: Figure) -> None:
    """Nothing is written out of the frame, on another text, or too small to read."""
    found = boxes(figure)
    assert found
    frame = figure.bbox.padded(0.5)
    seen: list[tuple[Text, Bbox]] = []
    for text, box in found.items():
        assert frame.contains(*box.min), text
        assert frame.contains(*box.max), text
        assert text.get_fontsize() >= 7
        for other, other_box in seen:
            assert not overlaps(box, other_box), (text, other)
        seen.append((text, box))
    assert figure.get_suptitle() == ""
    for axes in figure.axes:
        assert axes.get_title() == ""
