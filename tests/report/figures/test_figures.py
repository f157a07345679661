"""What holds for figures of every kind, and what is drawn in each."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from figure_cases import check_layout, texts, vtab_points
from matplotlib.figure import Figure

from san.errors import FileAccessError, InvalidValueError, MissingPackageError, UnknownNameError
from san.report.figures.accuracy_parameters import draw_accuracy_parameters
from san.report.figures.confusion_matrix import draw_confusion_matrix
from san.report.figures.critical_difference import MethodRank, draw_critical_difference
from san.report.figures.group_bars import Bar, BarRow, draw_group_bars
from san.report.figures.learning_curves import Curve, draw_learning_curves
from san.report.figures.page import Drawing, Width, paper_style, series_styles
from san.report.figures.points import Interval
from san.report.figures.save import save_drawing
from san.report.figures.scales import SiteScales, draw_scales
from san.report.figures.text import drawable, shorten, text_width, wrap

NAMES = ["linear", "bitfit", "vpt_deep", "adapter", "lora", "ssf", "san", "x" * 200, "日本 ✓$_%"]

# Protanopia, deuteranopia, tritanopia on linear RGB: Machado et al. 2009, severity 1.
COLOR_BLINDNESS = np.array(
    [
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]],
        [[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
        [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
    ]
)


def critical_difference(width: Width) -> Drawing:
    ranks = [MethodRank(name, 1.0 + i * 0.9) for i, name in enumerate(NAMES)]
    return draw_critical_difference(ranks, 2.5, [NAMES[:3], NAMES[2:6], NAMES[5:]], width, NAMES)


def group_bars(width: Width) -> Drawing:
    bars = [Bar(70, Interval(68, 71)), None, Bar(-3)]
    groups = ["natural", "mean of all groups that there are", "日本 ✓$_%"]
    return draw_group_bars(groups, [BarRow(name, bars) for name in NAMES], "percent $", width)


def learning_curves(width: Width) -> Drawing:
    epochs = range(1, 31)
    curves = [
        Curve(name, epochs, [5 * 0.8**e for e in epochs], [10, 20, 30], [50 + i, 60, 70])
        for i, name in enumerate(NAMES)
    ]
    return draw_learning_curves(curves, width=width)


def scales(width: Width) -> Drawing:
    rng = np.random.default_rng(0)
    parts = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    sites = ["patch_embed.proj", *(f"blocks.{i}.{part}" for i in range(24) for part in parts)]
    values = [SiteScales(site, rng.normal(1, 0.1, 32).astype(np.float32)) for site in sites]
    return draw_scales(values, width)


def accuracy_parameters(width: Width) -> Drawing:
    return draw_accuracy_parameters(vtab_points(), width=width)


def confusion_matrix(width: Width) -> Drawing:
    counts = np.random.default_rng(0).integers(0, 999, (len(NAMES), len(NAMES)))
    return draw_confusion_matrix(NAMES, counts, width)


KINDS = [
    accuracy_parameters,
    confusion_matrix,
    critical_difference,
    group_bars,
    learning_curves,
    scales,
]


@pytest.mark.parametrize("width", Width)
@pytest.mark.parametrize("draw", KINDS)
def test_nothing_is_out_of_the_frame_on_another_text_or_small(
    draw: Callable[[Width], Drawing], width: Width
) -> None:
    drawing = draw(width)
    assert drawing.figure.get_figwidth() == width.value
    assert drawing.figure.get_figheight() < 6.5
    check_layout(drawing.figure)
    assert drawing.caption.endswith(".")


@pytest.mark.parametrize("draw", KINDS)
def test_axes_say_what_they_show(draw: Callable[[Width], Drawing]) -> None:
    figure = draw(Width.ONE_COLUMN).figure
    if draw is critical_difference:  # a ruler: its only axis
        assert "average rank" in [text.get_text() for text in texts(figure)]
        return
    assert figure.axes
    assert all(axes.get_ylabel() for axes in figure.axes)
    matrix_before_its_scale = 0 if draw is confusion_matrix else -1
    assert figure.axes[matrix_before_its_scale].get_xlabel()


@pytest.mark.parametrize("draw", KINDS)
def test_files_have_truetype_fonts_and_the_same_bytes_every_time(
    draw: Callable[[Width], Drawing], tmp_path: Path
) -> None:
    first = save_drawing(draw(Width.ONE_COLUMN), tmp_path, "a")
    with mpl.rc_context({"pdf.fonttype": 3, "font.size": 20, "text.usetex": True}):
        second = save_drawing(draw(Width.ONE_COLUMN), tmp_path, "b")
    assert [path.name for path in first] == ["a.pdf", "a.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    pdf = first[0].read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    assert first[1].read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_written_leaves_both_files_as_they_were(tmp_path: Path) -> None:
    drawing = scales(Width.ONE_COLUMN)
    save_drawing(drawing, tmp_path, "a")
    before = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.pdf").write_bytes(b"mine")

    def refuse(*_: object, format: str, **__: object) -> None:
        if format == "png":
            raise OSError(28, "No space left on device")

    drawing.figure.savefig = refuse
    with pytest.raises(FileAccessError, match=r"The figure cannot be written: .*No space left"):
        save_drawing(drawing, tmp_path, "a")
    assert (tmp_path / "a.pdf").read_bytes() == b"mine"
    assert (tmp_path / "a.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png"]


@pytest.mark.parametrize("package", ["matplotlib", "textalloc"])
@pytest.mark.parametrize("draw", KINDS)
def test_without_a_package_the_caller_gets_a_sentence(
    draw: Callable[[Width], Drawing], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(MissingPackageError, match=f"No figures without {package}: pip install"):
        draw(Width.ONE_COLUMN)


def test_colours_differ_in_lightness_and_for_the_colour_blind() -> None:
    kinds = [*COLOR_BLINDNESS, np.full((3, 3), 1) * [0.2126, 0.7152, 0.0722]]  # and grey
    for count in range(2, 7):
        with paper_style():
            colors = np.array([style.color[:3] for style in series_styles(count)])
        linear = colors**2.2
        for kind in kinds:
            seen = np.clip(linear @ kind.T, 0, 1) ** (1 / 2.2)
            for i in range(count):
                others = np.delete(seen, i, axis=0)
                assert np.abs(others - seen[i]).max(1).min() > 0.08, (count, i)


def test_more_series_than_colours_differ_in_dash_and_hatch() -> None:
    with paper_style():
        styles = series_styles(20)
    assert len({(style.color, str(style.dash), style.hatch) for style in styles}) == 20


def test_texts_are_drawn_as_they_are_or_escaped() -> None:
    with paper_style():
        assert drawable(" a_b\n$x$ ✓ †◦‖ ") == "a_b $x$ ✓ †◦‖"
        assert drawable("日\x07🎉") == "\\u65e5\\x07\\U0001f389"
        assert shorten("lora", 100) == "lora"
        short = shorten("lora [" + "rank=16, " * 20 + "alpha=8]", 100)
        assert short.startswith("lora [")
        assert short.endswith("alpha=8]")
        assert 90 < text_width(short) <= 100
        lines = wrap("one two three " * 10 + "x" * 300, 100)
        assert all(text_width(line) <= 100 for line in lines)
        assert " ".join(lines[:-1]) == "one two three " * 9 + "one two three"
        assert wrap("", 100) == []


def lines_of(figure: Figure) -> list[np.ndarray]:
    return [line.get_xydata() for axes in figure.axes for line in axes.lines]


def test_ranks_stand_on_the_ruler_and_bars_join_groups() -> None:
    ranks = [MethodRank("c", 2.5), MethodRank("a", 1.0), MethodRank("b", 2.0)]
    figure = draw_critical_difference(ranks, 1.2, [["b", "c"], ["a"]]).figure
    lines = lines_of(figure)
    (ruler,) = [line for line in lines if len(line) == 2 and (line[:, 1] == 0).all()]
    start, end = ruler[:, 0]
    middle = (start + end) / 2
    drops = sorted(line[0, 0] for line in lines if len(line) == 3)
    assert drops == pytest.approx([start, middle, (middle + end) / 2])
    bars = [line for line in lines if len(line) == 2 and line[0, 1] == line[1, 1] > 0]
    assert len(bars) == 1
    assert bars[0][0, 0] <= middle < bars[0][1, 0] < end
    assert "CD 1.20" in [text.get_text() for text in texts(figure)]
    crowd = [MethodRank(f"row {i}", 1 + i) for i in range(40)]
    check_layout(draw_critical_difference(crowd, 100.0, []).figure)


def test_bars_have_their_values_and_say_what_is_missing() -> None:
    rows = [BarRow("ssf", [Bar(70, Interval(68, 71)), None]), BarRow("san", [Bar(72), Bar(-1)])]
    drawing = draw_group_bars(["natural", "structured"], rows)
    (axes,) = drawing.figure.axes
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    assert heights == [[70], [72, -1]]
    assert "Without a value: ssf in structured." in drawing.caption
    with pytest.raises(InvalidValueError, match="'ssf' came with 2 bars; 1 are allowed"):
        draw_group_bars(["natural"], rows)


def test_curves_have_axes_of_accuracy_where_something_was_evaluated() -> None:
    evaluated = Curve("a", [1, 2], [3.0, 0.01], [2], [70.0])
    silent = Curve("b", [1, 2], [3.0, 2.0])
    both = draw_learning_curves([evaluated, silent])
    assert [axes.get_ylabel() for axes in both.figure.axes] == [
        "training loss",
        "accuracy, percent",
    ]
    assert both.figure.axes[0].get_yscale() == "log"
    assert "Not evaluated: b." in both.caption
    alone = draw_learning_curves([silent])
    assert [axes.get_ylabel() for axes in alone.figure.axes] == ["training loss"]
    assert alone.figure.axes[0].get_yscale() == "linear"
    with pytest.raises(InvalidValueError, match="'a' came with 1 numbers for 2 epochs"):
        draw_learning_curves([Curve("a", [1, 2], [3.0])])


def test_scales_are_drawn_with_mean_band_and_range() -> None:
    values = np.arange(101) / 100
    drawing = draw_scales([SiteScales("blocks.0.attn.qkv", values)])
    (axes,) = drawing.figure.axes
    spans = [c.get_segments()[0][:, 1].tolist() for c in axes.collections]
    assert spans == [[0, 1], pytest.approx([0.05, 0.95])]
    assert any(line.get_ydata() == pytest.approx([0.5]) for line in axes.lines)
    with pytest.raises(InvalidValueError, match=r"came with shape \(2, 2\); \(channels,\)"):
        draw_scales([SiteScales("a", np.ones((2, 2)))])


def test_without_rows_nothing_is_drawn() -> None:
    assert draw_critical_difference([], 1.0, []) is None
    assert draw_group_bars(["natural"], []) is None
    assert draw_group_bars([], [BarRow("a", [])]) is None
    assert draw_learning_curves([]) is None
    assert draw_learning_curves([Curve("a", [], [])]) is None
    assert draw_scales([]) is None


def test_one_row_is_enough() -> None:
    one = [
        draw_critical_difference([MethodRank("a", 1.0)], 1.96, [["a"]]),
        draw_group_bars(["natural"], [BarRow("a", [Bar(1)])]),
        draw_learning_curves([Curve("a", [1], [0.0], [1], [50.0])]),
        draw_scales([SiteScales("patch_embed.proj", np.ones(1))]),
    ]
    for drawing in one:
        check_layout(drawing.figure)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    refused = [
        lambda: draw_critical_difference([MethodRank("a", number)], 1.0, []),
        lambda: draw_critical_difference([MethodRank("a", 1.0)], number, []),
        lambda: draw_group_bars(["g"], [BarRow("a", [Bar(number)])]),
        lambda: draw_group_bars(["g"], [BarRow("a", [Bar(1, Interval(0, number))])]),
        lambda: draw_learning_curves([Curve("a", [1], [number])]),
        lambda: draw_learning_curves([Curve("a", [1], [1], [1], [number])]),
        lambda: draw_scales([SiteScales("a", np.array([number]))]),
    ]
    for draw in refused:
        with pytest.raises(InvalidValueError, match=f"came as {number}; a finite number"):
            draw()


def test_ranks_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"came as 3; 1 to 2 is allowed"):
        draw_critical_difference([MethodRank("a", 3), MethodRank("b", 1)], 1.0, [])
    with pytest.raises(UnknownNameError, match="Unknown row of a group 'sam'. Did you mean san"):
        draw_critical_difference([MethodRank("san", 1)], 1.0, [["sam"]])


@pytest.mark.parametrize(
    ("number", "width", "has_names", "has_counts"),
    [
        (1, Width.ONE_COLUMN, True, True),
        (12, Width.TWO_COLUMNS, True, True),
        (40, Width.TWO_COLUMNS, True, False),
        (14, Width.ONE_COLUMN, True, False),
        (300, Width.TWO_COLUMNS, False, False),
    ],
)
def test_a_confusion_matrix_says_what_has_room(
    number: int, width: Width, has_names: bool, has_counts: bool
) -> None:
    counts = np.full((number, number), 7007)
    names = [f"name-{i}" for i in range(number)]
    figure = draw_confusion_matrix(names, counts, width).figure
    check_layout(figure)
    seen = [text.get_text() for text in texts(figure)]
    assert sum(text.startswith("name-") for text in seen) == 2 * number * has_names
    assert seen.count("7007") == number * number * has_counts
    shares = figure.axes[0].images[0].get_array()
    assert np.allclose(shares.sum(1), 1)


def test_a_confusion_matrix_is_square_and_may_lack_images_of_a_class() -> None:
    drawing = draw_confusion_matrix(["a", "b"], np.array([[0, 0], [1, 3]]))
    assert drawing.figure.axes[0].images[0].get_array().tolist() == [[0, 0], [0.25, 0.75]]
    assert drawing.caption.startswith("Answers for 4 images")
    with pytest.raises(InvalidValueError, match="2 classes need a square of them"):
        draw_confusion_matrix(["a", "b"], np.zeros((2, 3), np.int64))
