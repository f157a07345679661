"""Tables against golden files, and the rules behind them."""

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import a_record

from san import record, tables
from san.record import Point
from san.tasks import load_suite

GOLDEN = Path(__file__).parent / "golden"
DEMO = load_suite("demo")


def done(correct: int, **changes: object) -> record.Record:
    return a_record(last=Point(5, correct, 1000), **changes)


def records() -> list[record.Record]:
    """Complete with three seeds; missing; failed and out of memory; best-on-test; conflicting; another split."""
    complete = [
        done(800 + 10 * i + seed, method="full", task=task, seed=seed)
        for i, task in enumerate(DEMO.tasks)
        for seed in (0, 1, 2)
    ]
    linear = [done(500, method="linear", task=task) for task in ("digits", "texture")]
    troubled = [
        done(700, method="ssf", task="digits"),
        a_record(method="ssf", task="texture", status="failed"),
        a_record(method="ssf", task="tissue", status="oom"),
        done(710, method="ssf", task="count", seed=0),
        a_record(method="ssf", task="count", seed=1, status="failed"),
    ]
    chosen = [
        done(600, best=Point(3, 990, 1000), task=task, selected_on="test", protocol="best_test") for task in DEMO.tasks
    ]
    conflict = [
        done(610, task="digits", id="aaaaaaaaaaaa", created="2026-01-01T00:00:00+00:00"),
        done(620, task="digits", id="bbbbbbbbbbbb", created="2026-01-02T00:00:00+00:00"),
    ]
    left_out = [done(999, task="digits", evaluated_on="val", protocol="tune"), done(1, suite="another")]
    variant = [done(630, task="digits", variant="epochs=3")]
    return complete + linear + troubled + chosen + conflict + left_out + variant


@pytest.mark.parametrize("file", ["demo.csv", "demo_runs.csv", "demo.md", "demo.tex"])
def test_golden_files(file: str, tmp_path: Path) -> None:
    """UPDATE_GOLDEN=1 writes them anew; read the difference before committing it."""
    paths = tables.write(tables.make(DEMO, records()), tmp_path, "demo")
    assert [p.name for p in paths] == ["demo.csv", "demo_runs.csv", "demo.md", "demo.tex"]
    made = (tmp_path / file).read_text()
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / file).write_text(made)
    assert made == (GOLDEN / file).read_text()


def test_numbers_by_hand() -> None:
    table = tables.make(DEMO, records())
    full = table.numbers.loc["full [last_epoch]"]
    assert full["natural", "Digits"] == pytest.approx(80.1)
    assert table.cells.loc["full [last_epoch]", ("natural", "Digits")] == "80.10 ± 0.10"
    assert full["mean of", "natural"] == pytest.approx((80.1 + 81.1) / 2)
    assert full["mean", "all"] == pytest.approx(82.6)
    assert full["mean", "groups"] == pytest.approx(82.6)
    assert full["trainable", "without head"] == 100
    assert full["runs", "seeds"] == 3


def test_the_two_means_differ_where_groups_do() -> None:
    """Three tasks in one group and one in another: 3/4 of them right, but half of the groups."""
    names = list(DEMO.tasks)[:4]
    tasks = {n: replace(DEMO.tasks[n], group="natural" if i < 3 else "structured") for i, n in enumerate(names)}
    suite = replace(DEMO, tasks=tasks)
    made = tables.make(suite, [done(0 if i == 3 else 1000, task=n) for i, n in enumerate(names)])
    assert made.numbers.loc["san", ("mean", "all")] == 75
    assert made.numbers.loc["san", ("mean", "groups")] == 50


def test_mixed_weights_or_precision_are_marked() -> None:
    pair = [done(900, task="digits"), done(900, task="count", weights="other")]
    assert list(tables.make(DEMO, pair).cells.index) == ["san§"]
    pair[1] = done(900, task="count", config={"precision": "bf16"})
    table = tables.make(DEMO, pair)
    assert list(table.cells.index) == ["san§"]
    assert table.notes == ("§ runs of this row differ in pre-trained weights, precision or the kind of data source.",)


def test_best_on_test_is_marked_in_means_too() -> None:
    row = tables.make(DEMO, records()).cells.loc["san [best_test]"]
    assert row["mean", "all"] == "99.00†"


def test_no_mean_over_an_incomplete_row() -> None:
    row = tables.make(DEMO, records()).cells.loc["linear [last_epoch]"]
    assert row["natural", "Digits"] == "50.00"
    assert row["specialised", "Tissue"] == tables.MISSING
    assert row["mean of", "natural"] == "50.00"
    assert row["mean", "all"] == row["mean", "groups"] == row["mean of", "structured"] == tables.MISSING


def test_trouble_is_shown() -> None:
    table = tables.make(DEMO, records())
    ssf = table.cells.loc["ssf [last_epoch]"]
    assert ssf["natural", "Texture"] == "failed"
    assert ssf["specialised", "Tissue"] == "OOM"
    assert ssf["structured", "Count"] == "71.00 (failed)"
    assert table.cells.loc["san [best_test]", ("natural", "Digits")] == "99.00†"
    assert table.cells.loc["san [last_epoch]", ("natural", "Digits")] == "62.00‡"
    assert table.cells.loc["san [epochs=3, last_epoch]", ("natural", "Digits")] == "63.00"
    assert any("chosen on the test split" in note for note in table.notes)
    assert any("different settings" in note for note in table.notes)
    assert any("1 records" in note for note in table.notes)


def test_order_and_plain_names() -> None:
    table = tables.make(DEMO, [done(1, method=m) for m in ("san", "ssf", "linear", "full", "zebra")])
    assert list(table.cells.index) == ["full", "linear", "ssf", "san", "zebra"]
    assert table.notes == ()


def test_no_records_give_an_empty_table() -> None:
    assert tables.make(DEMO, []).cells.empty


def test_runs_are_tidy(tmp_path: Path) -> None:
    tables.write(tables.make(DEMO, records()), tmp_path, "demo")
    runs = pd.read_csv(tmp_path / "demo_runs.csv", keep_default_na=False)
    assert len(runs) == len([r for r in records() if r.suite == "demo"])
    assert set(runs.status) == {"done", "failed", "oom"}
