"""The figures of a table: which there are, and of which rows and runs."""

from pathlib import Path

from samples import DEMO, VTAB, done, vtab_records
from samples import run as samples_run

from san.report.draw import draw_table
from san.report.figure_points import points_of
from san.report.mean_curve import mean_curve
from san.report.selection import Wanted, select
from san.report.table import make_table
from san.score import EpochEntry, Score
from san.tasks import load_suite


def drawn(folder: Path, *, for_paper: bool) -> list[str]:
    table = make_table(VTAB, vtab_records())
    chosen = select(table, Wanted())
    paths = draw_table(table, chosen, vtab_records(), folder, for_paper=for_paper)
    found = sorted(path.name for path in (folder / "figures").iterdir())
    assert found == sorted(path.name for path in paths)
    return found


def test_pdf_and_the_width_of_a_column_are_for_papers(tmp_path: Path) -> None:
    everyday = ["vtab.md", "vtab_groups.png", "vtab_parameters.png", "vtab_ranks.png"]
    assert drawn(tmp_path / "a", for_paper=False) == everyday
    paper = drawn(tmp_path / "b", for_paper=True)
    assert {"vtab_parameters.pdf", "vtab_parameters_narrow.pdf", "vtab_ranks.pdf"} <= set(paper)
    page = (tmp_path / "b" / "figures" / "vtab.md").read_text()
    assert page.count("![](") == 4


def test_without_rows_there_is_no_figure(tmp_path: Path) -> None:
    table = make_table(DEMO, [])
    assert draw_table(table, select(table, Wanted()), [], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_every_row_with_a_mean_is_a_point_also_those_that_print_the_head() -> None:
    """SSF's 0.24 M of VTAB has the head in it; without it they are 0.2 M."""
    for suite, least in (("vtab", 50), ("fgvc", 15), ("gic", 1)):
        table = make_table(load_suite(suite), [])
        points = {point.label: point for point in points_of(table)}
        assert len(points) >= least
        assert points["SSF"].parameters is not None
        assert 1.5e5 < points["SSF"].parameters < 3e5


def test_a_curve_is_the_mean_of_the_runs_behind_the_row() -> None:
    runs = []
    for seed, losses in enumerate(([1.0, 0.5], [3.0, 1.5])):
        first = Score(1, 700 + seed, 1000)
        score = Score(2, 800 + seed, 1000)
        history = [EpochEntry(1, losses[0], 0.1, first), EpochEntry(2, losses[1], 0.1, score)]
        runs.append(samples_run(seed=seed, last=score, best=score, history=history))
    curve = mean_curve("san", runs)
    assert curve is not None
    assert (list(curve.epochs), list(curve.losses)) == ([1, 2], [2.0, 1.0])
    assert list(curve.evaluated_epochs) == [1, 2]
    assert list(curve.accuracies) == [70.05, 80.05]
    assert mean_curve("san", [done(800)]) is None  # a record that kept no losses
