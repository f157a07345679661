"""Tables against golden files, and the rules behind them."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import a_record

from san import record
from san.record import Point
from san.report import published, render
from san.report.aggregate import MISSING
from san.report.table import make_table
from san.tasks import Suite, load_suite

GOLDEN = Path(__file__).parents[1] / "golden"
DEMO, VTAB = load_suite("demo"), load_suite("vtab")


def named(**changes: Any) -> record.Record:
    """A record with an id of its own, as records have."""
    made = a_record(**changes)
    facts = (
        made.suite,
        made.method,
        made.variant,
        made.protocol,
        made.task,
        made.seed,
        made.evaluated_on,
    )
    return replace(made, id=changes.get("id") or record.hash_identity({"facts": facts}))


def done(correct: int, **changes: Any) -> record.Record:
    return named(last=Point(5, correct, 1000), **changes)


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
        named(method="ssf", task="texture", status="failed"),
        named(method="ssf", task="tissue", status="oom"),
        done(710, method="ssf", task="count", seed=0),
        named(method="ssf", task="count", seed=1, status="failed"),
    ]
    chosen = [
        done(600, best=Point(3, 990, 1000), task=task, selected_on="test", protocol="best_test")
        for task in DEMO.tasks
    ]
    conflict = [
        done(610, task="digits", id="aaaaaaaaaaaa", created="2026-01-01T00:00:00+00:00"),
        done(620, task="digits", id="bbbbbbbbbbbb", created="2026-01-02T00:00:00+00:00"),
    ]
    left_out = [
        done(999, task="digits", evaluated_on="val", protocol="tune"),
        done(1, suite="another"),
    ]
    variant = [done(630, task="digits", variant="epochs=3")]
    twins = [
        done(
            n,
            task="digits",
            variant="epochs=4",
            id="cccccccccccc",
            created=f"2026-01-0{i}T00:00:00+00:00",
        )
        for i, n in ((1, 650), (2, 640), (3, 650))
    ]
    mixed = [done(700, method="lora", task=task, weights=task) for task in DEMO.tasks]
    forced = [
        done(
            710,
            method="bitfit",
            task="digits",
            data={"train": "a", "evaluate": "b", "forced": "ten images are missing"},
        )
    ]
    return (
        complete
        + linear
        + troubled
        + chosen
        + conflict
        + left_out
        + variant
        + twins
        + mixed
        + forced
    )


def vtab() -> list[record.Record]:
    """SSF whole with three seeds, LoRA with one, SAN begun: beside what is published."""
    made = {"suite": "vtab", "backbone": "vit_b16_augreg_in21k"}
    ssf = [
        done(700 + 5 * i + seed, method="ssf", task=task, seed=seed, id=f"ssf{i:02}{seed}", **made)
        for i, task in enumerate(VTAB.tasks)
        for seed in (0, 1, 2)
    ]
    lora = [
        done(690 + 5 * i, method="lora", task=task, id=f"lora{i:02}", **made)
        for i, task in enumerate(VTAB.tasks)
    ]
    san = [done(999, task="cifar", id="san", **made)]
    swin = [done(999, task="cifar", id="swin", suite="vtab", backbone="swin_b_in22k")]
    return ssf + lora + san + swin


FILES = ["{}.csv", "{}_cells.csv", "{}_runs.csv", "{}.md", "{}.tex"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("suite", [DEMO, VTAB], ids=["demo", "vtab"])
def test_golden_files(suite: Suite, file: str, tmp_path: Path) -> None:
    """UPDATE_GOLDEN=1 writes them anew; read the difference before committing it."""
    given = records() if suite is DEMO else vtab()
    paths = render.write_table(make_table(suite, given), tmp_path, suite.name)
    assert [p.name for p in paths] == [name.format(suite.name) for name in FILES]
    name = file.format(suite.name)
    made = (tmp_path / name).read_text()
    if name == "vtab_cells.csv":
        made = "".join(
            line for line in made.splitlines(True) if not line.startswith("cited,")
        )  # all of vtab.csv again
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(made)
    assert made == (GOLDEN / name).read_text()
    assert [p for p in tmp_path.iterdir() if p not in paths] == []


def test_numbers_by_hand() -> None:
    table = make_table(DEMO, records())
    full = table.ours.numbers.loc["full [last_epoch]"]
    assert full["natural", "Digits"] == pytest.approx(80.1)
    assert table.ours.cells.loc["full [last_epoch]", ("natural", "Digits")] == "80.10 ± 0.10 (3)"
    assert full["mean of", "natural"] == pytest.approx((80.1 + 81.1) / 2)
    assert full["mean", "all"] == pytest.approx(82.6)
    assert full["mean", "groups"] == pytest.approx(82.6)
    assert full["trainable", "without head"] == 100
    assert full["runs", "seeds"] == 3


def test_the_two_means_differ_where_groups_do() -> None:
    """Three tasks in one group and one in another: 3/4 of them right, but half of the groups."""
    names = list(DEMO.tasks)[:4]
    tasks = {
        n: replace(DEMO.tasks[n], group="natural" if i < 3 else "structured")
        for i, n in enumerate(names)
    }
    suite = replace(DEMO, tasks=tasks)
    made = make_table(suite, [done(0 if i == 3 else 1000, task=n) for i, n in enumerate(names)])
    assert made.ours.numbers.loc["san", ("mean", "all")] == 75
    assert made.ours.numbers.loc["san", ("mean", "groups")] == 50


def test_mixed_weights_or_precision_are_marked() -> None:
    pair = [done(900, task="digits"), done(900, task="count", weights="other")]
    assert list(make_table(DEMO, pair).ours.cells.index) == ["san§"]
    pair[1] = done(900, task="count", config={"precision": "bf16"})
    table = make_table(DEMO, pair)
    assert list(table.ours.cells.index) == ["san§"]
    assert table.notes == (
        "§ runs of this row differ in pre-trained weights, preprocessing, precision or the kind of data source.",
    )


def test_best_on_test_is_marked_in_means_too() -> None:
    row = make_table(DEMO, records()).ours.cells.loc["san [best_test]‖"]
    assert row["mean", "all"] == "99.00†"


def test_no_mean_over_an_incomplete_row() -> None:
    row = make_table(DEMO, records()).ours.cells.loc["linear [last_epoch]‖"]
    assert row["natural", "Digits"] == "50.00"
    assert row["specialised", "Tissue"] == MISSING
    assert row["mean of", "natural"] == "50.00"
    assert row["mean", "all"] == row["mean", "groups"] == row["mean of", "structured"] == MISSING


def test_trouble_is_shown() -> None:
    table = make_table(DEMO, records())
    ssf = table.ours.cells.loc["ssf [last_epoch]‖"]
    assert ssf["natural", "Texture"] == "failed"
    assert ssf["specialised", "Tissue"] == "OOM"
    assert ssf["structured", "Count"] == "71.00 (failed)"
    assert table.ours.cells.loc["san [best_test]‖", ("natural", "Digits")] == "99.00†"
    assert table.ours.cells.loc["san [last_epoch]‖", ("natural", "Digits")] == "62.00‡"
    assert table.ours.cells.loc["san [epochs=3, last_epoch]‖", ("natural", "Digits")] == "63.00"
    assert any("chosen on the test split" in note for note in table.notes)
    assert any("different settings" in note for note in table.notes)
    assert any("1 records" in note for note in table.notes)


def test_order_and_plain_names() -> None:
    table = make_table(DEMO, [done(1, method=m) for m in ("san", "ssf", "linear", "full", "zebra")])
    assert list(table.ours.cells.index) == ["full", "linear", "ssf", "san", "zebra"]
    assert table.notes == ()


def test_no_records_give_an_empty_table() -> None:
    assert make_table(DEMO, []).ours.cells.empty


def test_runs_are_tidy(tmp_path: Path) -> None:
    render.write_table(make_table(DEMO, records()), tmp_path, "demo")
    runs = pd.read_csv(tmp_path / "demo_runs.csv", keep_default_na=False)
    assert (
        len(runs) == len([r for r in records() if r.suite == "demo"]) - 1
    )  # one is a copy of another
    assert set(runs.status) == {"done", "failed", "oom"}


def test_ours_stands_beside_the_published_value() -> None:
    table = make_table(VTAB, vtab())
    cifar = ("natural", "CIFAR-100")
    ours = table.ours.numbers.loc["ssf", cifar]
    assert ours == pytest.approx(70.6)  # (705 + 706 + 707) / 3 of 1000
    assert table.cited.cells.loc["SSF†", cifar] == "69.0"
    assert table.gaps.cells.loc["ssf - SSF†", cifar] == "+1.60"
    assert list(table.gaps.cells.index) == ["lora‖ - LoRA†◦", "ssf - SSF†"]
    facts = table.facts.set_index(["kind", "row", "task"])
    line = facts.loc["re-run", "ssf", "cifar"]
    assert (line["n"], line["status"], line["published"], line["published_as"]) == (
        3,
        "done",
        69.0,
        "SSF",
    )
    assert "SSF arXiv:2210.08823" in line["source"]
    assert facts.loc["re-run", "san‖", "svhn"]["status"] == "missing"
    assert (
        len(facts.loc["cited"])
        == len(published.published_numbers("vtab", "vit_b16_augreg_in21k"))
        == 999
    )


def test_a_backbone_has_a_table_of_its_own() -> None:
    swin = make_table(VTAB, vtab(), "swin_b_in22k")
    assert swin.title == "VTAB-1k, swin_b_in22k"
    assert list(swin.ours.cells.index) == ["san"]
    assert swin.cited.cells.loc["VPT-Deep", ("mean of", "natural")] == "76.78*"
    assert any("not all values of its tasks are public" in note for note in swin.notes)


def test_records_of_one_identity_with_different_results_are_reported() -> None:
    table = make_table(DEMO, records())
    assert table.ours.cells.loc["san [epochs=4, last_epoch]‖", ("natural", "Digits")] == "65.00‡"
    (note,) = (n for n in table.notes if "cccccccccccc" in n)
    assert "2 records of one identity" in note
    assert "650 of 1000, 640 of 1000" in note


def test_the_mean_corruption_error_is_alexnets_at_100() -> None:
    suite = load_suite("robustness")
    errors = {t.name: t.alexnet_error for t in suite.tasks.values() if t.alexnet_error}
    assert len(errors) == 15
    made = {"suite": "robustness", "backbone": suite.backbone}
    alexnet = [
        named(task=t, last=Point(0, round(1e6 * (1 - e)), 10**6), method="linear", **made)
        for t, e in errors.items()
    ]
    perfect = [named(task=t, last=Point(0, 10**6, 10**6), method="san", **made) for t in errors]
    table = make_table(suite, alexnet + perfect[1:])
    assert table.ours.numbers.loc["linear", ("mean", "mCE")] == pytest.approx(100)
    assert table.ours.cells.loc["san", ("mean", "mCE")] == MISSING
    whole = make_table(suite, alexnet + perfect)
    assert whole.ours.numbers.loc["san", ("mean", "mCE")] == 0
    row = {line.split(" ")[0]: line for line in render.latex(whole).splitlines() if " & " in line}
    assert r"\textbf{0.00}" in row["san"]
    assert r"\underline{100.00}" in row["linear"]


def test_forced_data_is_marked() -> None:
    table = make_table(DEMO, records())
    assert table.ours.cells.loc["bitfit [last_epoch]‖", ("natural", "Digits")] == "71.00¶"
    assert any("forced" in note for note in table.notes)


def test_rows_of_other_preprocessing_are_mixed() -> None:
    data = [
        {"config": {"data": {"resize": name, "normalise": "half"}}} for name in ("vtab", "bicubic")
    ]
    pair = [
        done(900, task=task, id=task, **more)
        for task, more in zip(("digits", "count"), data, strict=True)
    ]
    assert list(make_table(DEMO, pair).ours.cells.index) == ["san§"]


def test_parameters_are_a_mean_over_tasks_and_stand_over_whole_rows_alone() -> None:
    counts = {"method": 0, "norm": 0, "head": 0, "total": 1000, "percent": 1.0}
    many = [
        done(1, task="digits", seed=seed, params={**counts, "trainable": 600}) for seed in (0, 1, 2)
    ]
    one = [done(1, task=task, params={**counts, "trainable": 0}) for task in list(DEMO.tasks)[1:]]
    assert make_table(DEMO, many + one).ours.numbers.loc["san", ("trainable", "with head")] == 100
    assert make_table(DEMO, many).ours.cells.loc["san", ("trainable", "with head")] == MISSING


def test_a_seed_that_failed_marks_the_means_and_a_conflict_is_never_chosen_silently() -> None:
    lost = [done(700, task=task) for task in DEMO.tasks] + [
        named(task="digits", seed=1, status="oom")
    ]
    assert make_table(DEMO, lost).ours.cells.loc["san", ("mean", "all")] == "70.00‖"
    later = [
        done(640, task="digits"),
        named(task="digits", status="oom", id="other", created="2026-02-01T00:00:00+00:00"),
    ]
    assert make_table(DEMO, later).ours.cells.loc["san", ("natural", "Digits")] == "64.00‡"


def test_gaps_carry_the_marks_of_both_sides() -> None:
    made = {
        "suite": "vtab",
        "backbone": "vit_b16_augreg_in21k",
        "method": "vpt_deep",
        "selected_on": "test",
    }
    table = make_table(
        VTAB, [done(800, best=Point(1, 800, 1000), task=task, **made) for task in VTAB.tasks]
    )
    assert table.gaps.cells.loc["vpt_deep - VPT-Deep◦", ("natural", "CIFAR-100")] == "+1.20†"
    swin = {**made, "backbone": "swin_b_in22k"}
    table = make_table(
        VTAB,
        [done(800, best=Point(1, 800, 1000), task=task, **swin) for task in VTAB.tasks],
        "swin_b_in22k",
    )
    assert table.gaps.cells.loc["vpt_deep - VPT-Deep", ("mean of", "natural")] == "+3.22†*"
    assert set(table.facts[table.facts.kind == "re-run"].marks) == {"†"}
