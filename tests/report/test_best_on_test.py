"""What choosing the epoch on test adds, in our runs and in published ones."""

import pytest
from samples import DEMO, VTAB, done

from san.report.best_on_test import optimism_notes
from san.report.published import all_published_rows
from san.score import Score


def test_our_runs_that_were_chosen_on_test() -> None:
    chosen = {"selected_on": "test", "protocol": "best_test"}
    runs = []
    for i, task in enumerate(DEMO.tasks):
        runs.append(done(700, task=task, best=Score(3, 700 + 10 * i, 1000), **chosen))
    runs.append(done(1, task="digits", best=Score(3, 999, 1000)))  # the last epoch counts
    (note,) = optimism_notes(runs, [])
    assert "added 2.50 points on average to 6 results of runs here" in note
    assert "at most 5.00" in note


def test_the_published_rows_of_mai_et_al() -> None:
    """0.66 over their 13 parameter-efficient methods, by a script over their files."""
    rows = [
        row
        for row in all_published_rows(VTAB, "vit_b16_orig_in21k")
        if not row.method.startswith(("Full", "Linear", "VPT-Shallow"))
    ]
    (note,) = optimism_notes([], rows)
    assert "added 0.66 points on average to 247 results of published rows" in note
    assert "median 0.28" in note
    assert "at most 10.81" in note


@pytest.mark.parametrize("runs", [[], [done(700)]])
def test_where_nothing_was_chosen_on_test_nothing_is_said(runs: list) -> None:
    assert list(optimism_notes(runs, [])) == []
