"""What a row took: trials, device-hours, energy; nothing where a part of it is not known."""

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from paper_samples import six_rows
from samples import DEMO, VTAB, done, failed, tried, vtab_records

from san.record import Record
from san.report.aggregate import trials_of
from san.report.effort import effort_columns
from san.report.markdown import markdown
from san.report.paper import PaperOptions, paper_latex
from san.report.rows import Row
from san.report.selection import Wanted, select
from san.report.table import Table, make_table
from san.report.value import CountRange, RowCost


def demo_rows(method: str = "san", **facts: Any) -> list[Record]:
    """A complete row with two seeds."""
    return [
        done(700, method=method, task=task, seed=seed, **facts)
        for task in DEMO.tasks
        for seed in (0, 1)
    ]


def row_of(records: list[Record]) -> Row:
    return make_table(DEMO, records).ours.row("san")


def titles(rows: list[Row], **options: bool) -> list[str]:
    return [column.title for column in effort_columns(rows, **options)]


def test_costs_are_sums_over_tasks_and_seeds() -> None:
    assert len(DEMO.tasks) == 6
    cost = row_of(demo_rows(device_hours=0.25, joules=100.0)).cost
    assert cost == RowCost(device_hours=3.0, joules=1200.0)


def test_no_sum_stands_over_a_part() -> None:
    known = {"device_hours": 1.0, "joules": 5.0}
    whole = demo_rows(**known)
    last = list(DEMO.tasks)[-1]
    of_a_task = [r for r in whole if r.task != last]
    silent = done(700, task="digits", seed=2, device_hours=1.0)
    lost = failed(task="digits", seed=2)
    assert math.isnan(row_of(of_a_task).cost.device_hours)
    assert math.isnan(row_of([*whole, lost]).cost.device_hours)
    assert row_of([*whole, silent]).cost.device_hours == 13
    assert math.isnan(row_of([*whole, silent]).cost.joules)


def test_of_two_records_of_one_seed_the_one_that_is_shown_counts() -> None:
    created = "2026-02-01T00:00:00+00:00"
    newer = done(710, task="digits", id="x", created=created, device_hours=2.0)
    assert row_of([*demo_rows(device_hours=1.0), newer]).cost.device_hours == 13


@pytest.mark.parametrize(
    ("recipe", "trials"),
    [
        ({"trials": 5}, 5),
        ({"trials": 0}, 0),
        ({"trials": {"san": 3, "default": 7}}, 3),
        ({"trials": {"ssf": 3, "default": 7}}, 7),
        ({"trials": {"san": None, "default": 7}}, None),
        ({"trials": {"ssf": 3}}, None),
        ({"trials": None}, None),
        ({"trials": True}, None),
        ({"trials": -1}, None),
        ({"trials": "5"}, None),
        ({"trials": 5.0}, None),
        ({}, None),
        ("by hand", None),
        (None, None),
    ],
)
def test_the_recipe_says_how_many_trials_there_were(recipe: object, trials: int | None) -> None:
    assert trials_of(done(700, config={"recipe": recipe})) == trials


def test_without_a_recipe_trials_are_not_known() -> None:
    assert trials_of(done(700, config={})) is None


def test_trials_of_a_row_are_a_range_if_all_runs_say_them() -> None:
    few = done(700, task="digits", config=tried(3))
    many = done(700, task="count", config=tried({"san": 5}))
    silent = done(700, task="tissue")
    assert row_of([few]).trials == CountRange(3, 3)
    assert row_of([few, many]).trials == CountRange(3, 5)
    assert row_of([few, many]).trials.text() == "3 to 5"
    assert row_of([few, many, silent]).trials is None


def test_a_column_is_there_where_a_row_has_it() -> None:
    known = row_of(demo_rows(device_hours=0.1, joules=10.0, config=tried(4)))
    unknown = replace(known, trials=None, cost=RowCost())
    assert titles([unknown]) == titles([]) == []
    assert titles([unknown, known]) == ["trials", "device-hours", "kJ"]
    assert titles([unknown, known], with_cost=False) == ["trials"]
    texts = {column.title: column.texts for column in effort_columns([unknown, known])}
    assert texts == {
        "trials": ["–", "4"],
        "device-hours": ["–", "1.2"],
        "kJ": ["–", "0.12"],
    }


def test_energies_of_a_table_have_one_unit_and_two_digits() -> None:
    row = row_of(demo_rows())
    rows = [replace(row, cost=RowCost(joules=joules)) for joules in (0.0, 123e3, 3.5e6)]
    (column,) = effort_columns(rows)
    assert (column.title, column.texts) == ("kJ", ["0", "123", "3,500"])
    (column,) = effort_columns([*rows, replace(row, cost=RowCost(joules=3.6e9))])
    assert (column.title, column.texts) == ("kWh", ["0", "0.034", "0.97", "1,000"])


def test_published_rows_have_none_of_it() -> None:
    table = make_table(VTAB, vtab_records())
    rows = [*table.ours.rows, *table.published.rows]
    columns = effort_columns(rows)
    assert [column.title for column in columns] == ["trials", "device-hours", "kWh"]
    for column in columns:
        assert len(column.texts) == len(rows)
        assert set(column.texts[len(table.ours.rows) :]) == {""}
        assert "" not in column.texts[: len(table.ours.rows)]


def costly_table() -> Table:
    made = demo_rows(device_hours=0.1, joules=3e6, config=tried(4))
    return make_table(DEMO, [*made, *demo_rows("ssf")])


def cells(line: str) -> list[str]:
    """The texts of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_has_what_is_known_beside_the_seeds_and_says_what_it_is() -> None:
    table = costly_table()
    text = markdown(table, select(table, Wanted()))
    head, _, *rows = [cells(line) for line in text.splitlines() if line.startswith("|")][:4]
    at = head.index("seeds")
    assert head[at : at + 4] == ["seeds", "trials", "device-hours", "kWh"]
    found = {row[0].strip("*"): row[at : at + 4] for row in rows}
    assert found == {"san": ["2", "4", "1.2", "10"], "ssf": ["2", "–", "–", "–"]}
    notes = text.split("ranked.\n")[1]
    for title in ("Trials: ", "Device-hours: ", "kWh: "):
        assert notes.count(title) == 1
    alone = markdown(table, select(table, Wanted(rows=["ssf"])))
    assert "trials" not in alone
    assert "hours" not in alone


@pytest.mark.parametrize("is_transposed", [False, True])
def test_latex_has_trials_and_costs_where_asked(is_transposed: bool) -> None:
    table = costly_table()
    selection = select(table, Wanted())
    plain = paper_latex(table, selection, PaperOptions(is_transposed=is_transposed))
    text = paper_latex(table, selection, PaperOptions(with_cost=True, is_transposed=is_transposed))
    assert "Trials: settings tried" in plain
    assert "hours" not in plain
    assert "kWh: energy of the devices" in text
    rows = {}
    for line in text.splitlines():
        name, *texts = line.removesuffix(r" \\").split(" & ")
        rows[name] = texts
    if is_transposed:
        assert rows["Trials"] == ["{--}", "{4}"]
        assert rows["Device-hours"] == ["{--}", "{1.2}"]
        assert rows["kWh"] == ["{--}", "{10}"]
    else:
        assert rows[r"SAN~\citep{dai2025san}"][:4] == ["0.00", "{4}", "{1.2}", "{10}"]
        assert rows[r"SSF~\citep{lian2022ssf}"][:4] == ["0.00", "{--}", "{--}", "{--}"]
        assert len(rows[r"SSF~\citep{lian2022ssf}"]) == 4 + 11


def test_without_trials_a_table_for_a_paper_is_as_it_was() -> None:
    table = make_table(VTAB, six_rows())
    text = paper_latex(table, select(table, Wanted(published=["none"])), PaperOptions())
    assert "Trials" not in text


def test_tidy_files_have_trials_and_costs_of_each_run() -> None:
    table = costly_table()
    runs = pd.DataFrame(table.runs)
    san = runs[runs.method == "san"]
    assert set(san.trials) == {4}
    assert san.device_hours.sum() == pytest.approx(1.2)
    assert san.joules.sum() == pytest.approx(36e6)
    assert runs[runs.method == "ssf"].trials.isna().all()
    cells = pd.DataFrame(table.cells)
    assert set(cells[cells.method == "san"].trials_fewest) == {4}
    assert set(cells[cells.method == "san"].trials_most) == {4}
    assert cells[cells.method == "ssf"].trials_most.isna().all()
