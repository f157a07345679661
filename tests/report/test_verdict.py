"""What a table says in words, and which values it sets off."""

from typing import Any

import numpy as np
import pytest
from samples import DEMO, DIGITS, VTAB, done

from san.record import Record
from san.report.emphasis import Emphasis, emphasize
from san.report.markdown import markdown
from san.report.means import MEAN_OF_TASKS, Column, task_column
from san.report.selection import Wanted, select
from san.report.table import Table, make_table
from san.score import Score
from san.tasks import Suite, load_suite


def whole_row(
    suite: Suite, method: str, correct: list[int], seeds: int = 1, **facts: Any
) -> list[Record]:
    """A row with so many of 1000 right on each task, one more by seed."""
    where = {"suite": suite.name, "backbone": suite.backbone}
    runs = []
    for task, count in zip(suite.tasks, correct, strict=True):
        for seed in range(seeds):
            score = Score(5, count + seed, 1000)
            facts |= {"method": method, "task": task, "seed": seed, "best": score}
            runs.append(done(score.correct, **where, **facts))
    return runs


def vtab_row(method: str, offset: int, **facts: Any) -> list[Record]:
    """A row of VTAB whose tasks lie `offset` above the same numbers."""
    return whole_row(VTAB, method, [500 + 10 * i + offset for i in range(19)], **facts)


def said(table: Table) -> str:
    return "\n".join(table.verdict.sentences)


def emphasis_of(table: Table, name: str, column: Column) -> Emphasis:
    names = [row.name for row in table.ours.rows]
    found = emphasize(table.suite, table.ours.rows)
    return found.get((names.index(name), column), Emphasis.NONE)


def test_a_method_that_is_better_everywhere_leads_and_is_told_apart() -> None:
    runs = vtab_row("ssf", 0) + vtab_row("lora", -2) + vtab_row("san", 20)
    table = make_table(VTAB, runs)
    text = said(table)
    assert text.startswith(
        "san leads with 61.00 % (mean of all tasks, 19), 2.00 points ahead of ssf"
    )
    assert "better on 19 of 19 tasks" in text
    assert "Told apart from san at 5 %" in text
    assert "Cannot be told apart" not in text
    assert emphasis_of(table, "san", MEAN_OF_TASKS) is Emphasis.BEST
    assert emphasis_of(table, "ssf", MEAN_OF_TASKS) is Emphasis.NONE


def test_identical_methods_are_never_told_apart() -> None:
    table = make_table(VTAB, vtab_row("ssf", 0) + vtab_row("san", 0))
    assert "Cannot be told apart" in said(table)
    assert "Told apart" not in said(table)
    for column in table.columns:
        is_testable = column.label != "specialised"  # of four tasks
        best = Emphasis.BEST if is_testable else Emphasis.BEST_UNTESTED
        assert {emphasis_of(table, name, column) for name in ("ssf", "san")} == {best}


def test_noise_of_test_images_is_not_bold_alone() -> None:
    """One point on 1000 images of one seed is within what other images would give."""
    scores = [700, 712, 698, 705, 690, 711]
    other = [701, 709, 700, 703, 694, 708]
    table = make_table(DEMO, whole_row(DEMO, "ssf", scores) + whole_row(DEMO, "san", other))
    for task in DEMO.tasks.values():
        column = task_column(task)
        assert {emphasis_of(table, name, column) for name in ("ssf", "san")} == {
            Emphasis.BEST,
            Emphasis.NOT_TOLD_APART,
        }
    assert "Cannot be told apart from" in said(table)


def test_answers_to_each_image_tell_more_than_counts() -> None:
    """15 images more right, and none less: McNemar sees it, counts do not."""
    runs = whole_row(DEMO, "ssf", [700] * 6) + whole_row(DEMO, "san", [715] * 6)

    def answers_of(r: Record) -> np.ndarray:
        assert r.score is not None
        return np.arange(1000) < r.score.correct

    for table, expected in (
        (make_table(DEMO, runs), Emphasis.NOT_TOLD_APART),
        (make_table(DEMO, runs, answers_of=answers_of), Emphasis.NONE),
    ):
        assert emphasis_of(table, "ssf", DIGITS) is expected
        assert emphasis_of(table, "san", DIGITS) is Emphasis.BEST


def test_few_tasks_can_show_nothing_and_it_is_said() -> None:
    runs = whole_row(DEMO, "ssf", [700] * 6) + whole_row(DEMO, "lora", [750] * 6)
    text = said(make_table(DEMO, runs + whole_row(DEMO, "san", [800] * 6)))
    assert "With 6 tasks and 2 comparisons no difference could be shown" in text
    assert "the smallest p there can be is 0.062" in text


def test_baselines_are_compared_and_not_ranked() -> None:
    runs = vtab_row("full", 300) + vtab_row("linear", -100) + vtab_row("ssf", 0)
    table = make_table(VTAB, runs + vtab_row("san", 1))
    assert said(table).startswith("san leads")
    assert "Beside the baselines: san is 29.90 points behind full" in said(table)
    assert [standing.row.name for standing in table.verdict.standings.ranked] == ["san", "ssf"]
    assert emphasis_of(table, "full", MEAN_OF_TASKS) is Emphasis.NONE


@pytest.mark.parametrize("name", ["ssf", "linear"])
def test_all_rows_can_be_compared_with_one_that_is_chosen(name: str) -> None:
    runs = vtab_row("linear", -50) + vtab_row("ssf", 0) + vtab_row("san", 1)
    table = make_table(VTAB, runs, reference=name)
    assert table.verdict.standings.reference is not None
    assert table.verdict.standings.reference.name == name
    compared = [s.row.name for s in table.verdict.standings.ranked if s.comparison is not None]
    assert compared == [each for each in ("san", "ssf") if each != name]


def test_a_table_of_best_test_rows_alone_is_ranked() -> None:
    best = {"protocol": "best_test", "selected_on": "test"}
    table = make_table(VTAB, vtab_row("ssf", 0, **best) + vtab_row("san", 20, **best))
    assert said(table).startswith("san leads")
    assert emphasis_of(table, "san", MEAN_OF_TASKS) is Emphasis.BEST


def test_a_method_with_several_rows_was_chosen_on_the_test() -> None:
    runs = vtab_row("ssf", 0) + vtab_row("san", 3) + vtab_row("san", 5, variant="lr=0.01")
    text = said(make_table(VTAB, runs))
    assert "san has 2 rows: choosing one of them by this table is choosing on the test" in text


def test_seeds_are_said() -> None:
    one = said(make_table(VTAB, vtab_row("ssf", 0) + vtab_row("san", 3)))
    assert "One seed a cell" in one
    three = said(make_table(VTAB, vtab_row("ssf", 0, seeds=3) + vtab_row("san", 3, seeds=3)))
    assert "vary by at most ±0.10" in three


def test_incomplete_rows_are_named() -> None:
    begun = done(999, suite="vtab", backbone=VTAB.backbone, task="cifar", method="lora")
    text = said(make_table(VTAB, [*vtab_row("ssf", 0), *vtab_row("san", 3), begun]))
    assert "Not compared, 1 of 19 tasks: lora." in text


def test_the_order_of_records_changes_nothing() -> None:
    runs = vtab_row("ssf", 0, seeds=2) + vtab_row("lora", 1, seeds=2) + vtab_row("san", 2, seeds=2)
    assert said(make_table(VTAB, runs)) == said(make_table(VTAB, runs[::-1]))


def test_published_rows_of_one_class_have_a_verdict() -> None:
    """Mai et al. and VPT: the last epoch, with the weights of both; only their own rows."""
    table = make_table(VTAB, [], "vit_b16_orig_in21k")
    by_title = {verdict.title: verdict for verdict in table.published_verdicts}
    last = by_title["published (the last epoch, weights vit_b16_orig_in21k)"]
    assert last.standings.reference is not None
    assert last.standings.reference.name == "Convpass (Mai et al., last)"
    names = {standing.row.name for standing in last.standings.ranked}
    assert "VPT-Deep" in names
    assert "SSF" not in names
    assert "NOAH" not in names
    baselines = {"Full", "Linear", "Full (Mai et al., last)", "Linear (Mai et al., last)"}
    assert {standing.row.name for standing in last.standings.baselines} == baselines


def test_of_the_corruption_error_the_lowest_leads_over_its_own_tasks() -> None:
    suite = load_suite("robustness")
    runs = []
    for method, correct in (("lora", 400), ("ssf", 600), ("san", 800)):
        for task in suite.tasks.values():
            if task.alexnet_error:
                facts = {"suite": suite.name, "backbone": suite.backbone, "task": task.name}
                runs.append(done(correct, method=method, **facts))
    table = make_table(suite, runs)
    text = said(table)
    assert text.startswith("san leads with ")
    assert "(mean corruption error, 15), 20.00 points ahead of ssf" in text
    assert "better on 15 of 15 tasks" in text
    names = [standing.row.name for standing in table.verdict.standings.ranked]
    assert names == ["san", "ssf", "lora"]
    assert [row.name for row in select(table, Wanted()).ours] == names


def test_on_the_val_split_nothing_is_said_of_the_test() -> None:
    facts = {"evaluated_on": "val", "protocol": "tune"}
    runs = vtab_row("ssf", 0, **facts) + vtab_row("san", 3, **facts)
    runs += vtab_row("san", 5, variant="lr=0.01", **facts)
    table = make_table(VTAB, runs, split="val")
    assert said(table).startswith("san [lr=0.01] leads")
    assert "test split" not in said(table)
    assert table.published.rows == ()
    assert (table.title, table.name) == ("VTAB-1k, val split", "vtab_val")


def test_each_shown_row_has_its_own_gap_to_the_published_one() -> None:
    runs = vtab_row("ssf", 0) + vtab_row("ssf", 10, variant="method.init_std=0.1")
    table = make_table(VTAB, runs)
    text = markdown(table, select(table, Wanted()))
    assert "&emsp;ssf minus it " in text
    assert "&emsp;ssf [init_std=0.1] minus it " in text
    one = markdown(table, select(table, Wanted(rows=["ssf [init_std=0.1]"])))
    assert "&emsp;ssf minus it " not in one
