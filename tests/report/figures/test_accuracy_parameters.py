"""Accuracy against parameters: where rows stand, which are named, and what is said of them."""

import itertools
import math

import numpy as np
import pytest
from figure_cases import (
    MEAN_HEAD,
    SENTENCES,
    boxes,
    centers,
    check_layout,
    names,
    texts,
    vtab_points,
)
from matplotlib.axes import Axes

from san.errors import InvalidValueError
from san.report.figures.accuracy_parameters import draw_accuracy_parameters
from san.report.figures.page import POINTS_PER_INCH, Width
from san.report.figures.points import Interval, Kind, MethodPoint, pareto_front

HARD = ["x" * 200, "日本語の長い名前", "✓", "a_b", "$x$ and $", "100 % \\alpha {}", "\x07\n\t🎉"]


def ours(label: str, accuracy: float, parameters: float | None, **more: object) -> MethodPoint:
    return MethodPoint(label, Kind.OURS, accuracy, parameters, **more)


def demo() -> list[MethodPoint]:
    values = {"full": (86.1, 1216896), "linear": (76.1, 0), "ssf": (85.7, 17408)}
    return [
        ours(name, accuracy, count, interval=Interval(accuracy - 1, accuracy + 1))
        for name, (accuracy, count) in values.items()
    ]


@pytest.mark.parametrize("width", Width)
def test_of_63_rows_no_name_is_on_a_point_a_name_or_out_of_the_frame(width: Width) -> None:
    points = vtab_points()
    assert len(points) == 63
    drawing = draw_accuracy_parameters(points, width=width)
    assert drawing.figure.get_figwidth() == width.value
    check_layout(drawing.figure)
    (axes,) = drawing.figure.axes
    must = [p for p in points if p.kind is Kind.OURS or p in pareto_front(points)]
    assert len(names(axes)) == len(must) == 15
    assert len(centers(axes)) == 63
    check_names(axes)
    assert "the other 48 are light grey points." in drawing.caption
    assert "no room" not in drawing.caption


def check_names(axes: Axes) -> None:
    """No name is on a point, on another name or out of the axes."""
    written = {text: text.get_window_extent() for text in names(axes)}
    radius = 1.8 * axes.figure.dpi / POINTS_PER_INCH  # of a marker
    for text, box in written.items():
        assert axes.bbox.contains(*box.min), text
        assert axes.bbox.contains(*box.max), text
        assert not any(box.padded(radius).contains(*marker) for marker in centers(axes)), text
    for one, other in itertools.combinations(written.values(), 2):
        assert not one.overlaps(other)


@pytest.mark.parametrize("seed", range(3))
def test_of_any_rows_no_name_is_on_a_point_a_name_or_out_of_the_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [
        MethodPoint(
            label="m" * int(rng.integers(2, 20)),
            kind=Kind.OURS if i % 5 == 0 else Kind.PUBLISHED,
            accuracy=float(rng.normal(75, 4)),
            parameters=[None, 0.0, *10 ** rng.uniform(3, 8, 6)][i % 8],
            interval=Interval(70.0, 80.0) if i % 4 == 0 else None,
            ranked=i % 3 > 0,
        )
        for i in range(15 * (seed + 1))
    ]
    drawing = draw_accuracy_parameters(points)
    check_layout(drawing.figure)
    (axes,) = drawing.figure.axes
    assert len(names(axes)) >= 5
    check_names(axes)


def test_numbers_in_place_of_names_are_explained() -> None:
    points = vtab_points()
    drawing = draw_accuracy_parameters(points)
    (axes,) = drawing.figure.axes
    written = [text.get_text() for text in names(axes)]
    numbers = sorted(int(name) for name in written if name.isdigit())
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
    note = " ".join(text.get_text() for text in reversed(drawing.figure.texts))
    labels = [point.label for point in points if point.label not in written]
    for number in numbers:
        assert any(f"{number} {label}" in note for label in labels)


def test_important_rows_are_named_and_all_if_there_is_room() -> None:
    points = vtab_points()
    index = next(i for i, point in enumerate(points) if point.label == "Sidetune")
    (axes,) = draw_accuracy_parameters(points).figure.axes
    assert "Sidetune◦*" not in [text.get_text() for text in names(axes)]
    asked = MethodPoint(**{**vars(points[index]), "important": True})
    points[index] = asked
    (axes,) = draw_accuracy_parameters(points).figure.axes
    assert "Sidetune◦*" in [text.get_text() for text in names(axes)]
    few = [*demo(), MethodPoint("NOAH", Kind.PUBLISHED, 80.0, 4e5)]
    drawing = draw_accuracy_parameters(few)
    (axes,) = drawing.figure.axes
    assert {text.get_text() for text in names(axes)} == {point.label for point in few}
    assert "grey" not in drawing.caption


def test_a_count_with_the_head_is_drawn_without_it_and_the_caption_says_so() -> None:
    points = vtab_points()
    drawing = draw_accuracy_parameters(points)
    (axes,) = drawing.figure.axes
    drawn = axes.transData.inverted().transform(centers(axes))
    ssf = next(point for point in points if point.label == "SSF")
    assert ssf.is_estimated
    (x,) = [x for x, y in drawn if math.isclose(y, ssf.accuracy)]
    assert x == pytest.approx(240_000 - MEAN_HEAD)
    assert "Of SSF the printed count, less the mean head of the tasks." in drawing.caption


def test_rows_without_a_number_stand_left_of_the_break() -> None:
    points = [*demo(), ours("secret", 80.0, None)]
    drawing = draw_accuracy_parameters(points)
    (axes,) = drawing.figure.axes
    ticks = dict(
        zip(axes.get_xticks(), (t.get_text() for t in axes.get_xticklabels()), strict=True)
    )
    drawn = axes.transData.inverted().transform(centers(axes))
    place = {y: x for x, y in drawn.round(6)}
    left = {name: x for x, name in ticks.items() if name in ("0", "n/a")}
    assert place[80.0] == pytest.approx(left["n/a"], abs=1e-3)
    assert place[76.1] == pytest.approx(left["0"], abs=1e-3)
    assert left["n/a"] < left["0"] < min(p.parameters for p in points if p.parameters)
    assert "0, nothing but the head trains; n/a, the count is not stated" in drawing.caption
    whole = draw_accuracy_parameters([ours("full", 86.1, 1e6)])
    assert "broken axis" not in whole.caption


def test_the_front_is_what_no_other_row_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        points = [
            ours(str(i), float(rng.integers(50, 60)), float(rng.integers(0, 8)))
            for i in range(rng.integers(1, 20))
        ]
        front = pareto_front(points)
        beaten = {
            one.label
            for one in points
            for other in points
            if (other.accuracy, -other.parameters) != (one.accuracy, -one.parameters)
            and other.accuracy >= one.accuracy
            and other.parameters <= one.parameters
        }
        best = {(p.parameters, p.accuracy) for p in points if p.label not in beaten}
        assert {(p.parameters, p.accuracy) for p in front} == best
        assert [p.parameters for p in front] == sorted(p.parameters for p in front)


def test_rows_that_are_not_ranked_are_not_of_the_front() -> None:
    high = ours("marked", 99.0, 10.0, ranked=False)
    assert pareto_front([high, *demo()]) == pareto_front(demo())
    drawing = draw_accuracy_parameters([high, *demo()])
    assert "of the 3 rows that are compared with each other; 1 take no part" in drawing.caption
    alone = draw_accuracy_parameters([high])
    assert "There is no Pareto front" in alone.caption
    legend = [text.get_text() for text in alone.figure.legends[0].get_texts()]
    assert legend == ["run here"]


def test_every_mark_is_explained_below_the_axes() -> None:
    figure = draw_accuracy_parameters(vtab_points()).figure
    (axes,) = figure.axes
    below = [text for text in texts(figure) if text.get_window_extent().y1 < axes.bbox.y0]
    said = " ".join(text.get_text() for text in reversed(below))
    for mark, sentence in SENTENCES.items():
        assert f"{mark} {sentence}" in said


@pytest.mark.parametrize("width", Width)
def test_hard_names_are_drawn_within_the_frame_without_a_warning(width: Width) -> None:
    points = [ours(name, 50.0 + i, 10.0 ** (3 + i)) for i, name in enumerate(HARD)]
    drawing = draw_accuracy_parameters(points, "日本語 $%_ " * 3, width, notes=HARD)
    check_layout(drawing.figure)
    written = {text.get_text() for text in boxes(drawing.figure)}
    assert {"✓", "a_b", "$x$ and $", "100 % \\alpha {}"} <= written


@pytest.mark.parametrize("point", [ours("one", 50.0, 10.0), ours("0", 50.0, 0), ours("?", 5, None)])
def test_one_row_is_enough(point: MethodPoint) -> None:
    drawing = draw_accuracy_parameters([point])
    check_layout(drawing.figure)
    assert [text.get_text() for text in names(drawing.figure.axes[0])] == [point.label]


def test_without_rows_nothing_is_drawn() -> None:
    assert draw_accuracy_parameters([]) is None


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (ours("a", math.nan, 1), "The accuracy of 'a' came as nan; a finite number is allowed"),
        (ours("a", 1, math.inf), "The parameters of 'a' came as inf"),
        (ours("a", 1, -1), "The parameters of 'a' came as -1; 0 or more"),
        (ours("a", 1, 1, interval=Interval(0, math.nan)), "The accuracy of 'a' came as nan"),
    ],
)
def test_a_number_that_cannot_be_drawn_is_refused(point: MethodPoint, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        draw_accuracy_parameters([point])
