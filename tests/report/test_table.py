"""The rules behind a table: which rows, cells, means and flags there are."""

import math
from dataclasses import replace

import msgspec
import pandas as pd
import pytest
from samples import (
    CIFAR,
    DEMO,
    DIGITS,
    VTAB,
    demo_records,
    done,
    failed,
    labels,
    mean,
    run,
    ten_classes,
    text,
    vtab_records,
)

from san.record import DataSource, Status
from san.report.means import Column, table_means
from san.report.published import published_numbers
from san.report.table import make_table
from san.report.value import MISSING, CountRange, Flag, to_text
from san.score import Score
from san.tasks import load_suite


def test_numbers_by_hand() -> None:
    table = make_table(DEMO, demo_records())
    label = "full [last_epoch]"
    assert mean(table, label, DIGITS) == pytest.approx(80.1)
    assert text(table, label, DIGITS) == "80.10 ± 0.10 (3)‖"
    assert mean(table, label, ("mean of", "natural")) == pytest.approx((80.1 + 81.1) / 2)
    assert mean(table, label, ("mean", "all")) == pytest.approx(82.6)
    assert mean(table, label, ("mean", "groups")) == pytest.approx(82.6)
    assert table.ours.row(label).trainable.without_head == 100
    assert table.ours.row(label).seeds == CountRange(3, 3)


def test_the_two_means_differ_where_groups_do() -> None:
    """Three tasks in one group and one in another: 3/4 of them right, but half of the groups."""
    tasks = {}
    for i, name in enumerate(list(DEMO.tasks)[:4]):
        tasks[name] = replace(DEMO.tasks[name], group="natural" if i < 3 else "structured")
    suite = replace(DEMO, tasks=tasks)
    last = list(tasks)[-1]
    made = make_table(suite, [done(0 if name == last else 1000, task=name) for name in tasks])
    assert mean(made, "san", ("mean", "all")) == 75
    assert mean(made, "san", ("mean", "groups")) == 50


def test_mixed_weights_or_precision_are_marked() -> None:
    first = done(900, task="digits")
    others = [
        done(900, task="count", weights="other"),
        done(900, task="count", config={"precision": "bf16"}),
    ]
    for other in others:
        table = make_table(DEMO, [first, other])
        assert labels(table) == ["san§"]
        legend, difference = table.notes
        assert legend == "§ an average over runs of different settings."
        assert difference.startswith("§ san: ")


def test_mixed_data_are_marked() -> None:
    seeds = [done(900, task="digits"), done(900, task="digits", seed=1)]
    assert labels(make_table(DEMO, seeds)) == ["san"]
    for data in (
        DataSource(train="a", evaluate="other"),
        DataSource(train="a", evaluate="b", kind="tfds"),
    ):
        seeds[1] = msgspec.structs.replace(seeds[1], data=data)
        assert labels(make_table(DEMO, seeds)) == ["san§"]


def test_rows_of_other_preprocessing_are_mixed() -> None:
    pair = []
    for task, resize in (("digits", "vtab"), ("count", "bicubic")):
        config = {"data": {"resize": resize, "normalise": "half"}}
        pair.append(done(900, task=task, id=task, config=config))
    assert labels(make_table(DEMO, pair)) == ["san§"]


def test_best_on_test_is_marked_in_means_too() -> None:
    table = make_table(DEMO, demo_records())
    assert text(table, "san [best_test]", ("mean", "all")) == "99.00†"


def test_no_mean_over_an_incomplete_row() -> None:
    table = make_table(DEMO, demo_records())
    label = "linear [last_epoch]"
    assert text(table, label, DIGITS) == "50.00"
    assert text(table, label, ("specialised", "Tissue")) == MISSING
    assert text(table, label, ("mean of", "natural")) == "50.00"
    for column in (("mean", "all"), ("mean", "groups"), ("mean of", "structured")):
        assert text(table, label, column) == MISSING
    assert table.ours.row(label).summary_texts() == [MISSING, MISSING, "0 to 1"]


def test_trouble_is_shown() -> None:
    table = make_table(DEMO, demo_records())
    assert text(table, "ssf [last_epoch]", ("natural", "Texture")) == "failed"
    assert text(table, "ssf [last_epoch]", ("specialised", "Tissue")) == "OOM"
    assert text(table, "ssf [last_epoch]", ("structured", "Count")) == "71.00 (failed)"
    assert text(table, "san [best_test]", DIGITS) == "99.00†"
    assert text(table, "san [last_epoch]", DIGITS) == "62.00‡"
    assert text(table, "san [epochs=3, last_epoch]", DIGITS) == "63.00"
    assert any("chosen on the test split" in note for note in table.notes)
    assert any("different settings" in note for note in table.notes)
    assert any("1 record of another split" in note for note in table.notes)


def test_seeds_that_failed_in_two_ways_are_both_named() -> None:
    seeds = [failed(task="digits"), failed(Status.OOM, task="digits", seed=1)]
    assert text(make_table(DEMO, seeds), "san", DIGITS) == "OOM, failed"


def test_the_mark_of_a_cell_without_a_number_is_in_the_file_of_cells_alone() -> None:
    lost = failed(task="digits", selected_on="test", protocol="best_test")
    table = make_table(DEMO, [lost])
    assert text(table, "san", DIGITS) == "failed"
    cells = {cell["task"]: cell for cell in table.cells}
    assert (cells["digits"]["flags"], cells["digits"]["status"]) == ("chosen_on_test", "failed")
    assert cells["digits"]["mean"] is None
    assert table.notes == ()


def test_order_and_plain_names() -> None:
    methods = ("san", "ssf", "linear", "full", "zebra")
    table = make_table(DEMO, [done(1, method=method) for method in methods])
    assert labels(table) == ["full", "linear", "ssf", "san", "zebra"]
    assert table.notes == ()


def test_marks_in_the_name_of_a_variant_are_not_explained() -> None:
    table = make_table(DEMO, [done(1, variant="note='†'")])
    assert labels(table) == ["san [note=†]"]
    assert table.notes == ()


def test_no_records_give_an_empty_table() -> None:
    assert make_table(DEMO, []).ours.rows == ()


def test_ours_stands_beside_the_published_value() -> None:
    table = make_table(VTAB, vtab_records())
    assert mean(table, "ssf", CIFAR) == pytest.approx(70.1)  # (700 + 701 + 702) / 3 of 1000
    assert to_text(table.published.row("SSF").values[CIFAR]) == "69.0"
    assert to_text(table.differences.row("ssf - SSF").values[CIFAR]) == "+1.10†"
    gaps = [(gap.difference.name, gap.published.label) for gap in table.gaps]
    assert gaps == [("lora - LoRA", "LoRA†◦"), ("ssf - SSF", "SSF†")]


def test_the_file_of_cells_has_numbers_under_stable_keys() -> None:
    """One column for ours and theirs; means and intervals; no key depends on other rows."""
    table = make_table(VTAB, vtab_records())
    frame = pd.DataFrame(table.cells)
    shown = frame[frame.kind != "quoted"]
    keys = ["suite", "backbone", "kind", "row", "settings", "protocol", "statistic", "group"]
    assert not shown.duplicated([*keys, "task"]).any()
    ours = shown[shown.kind == "ours"].set_index(["row", "task"])
    cell = ours.loc["ssf", "cifar"]
    assert (cell["mean"], cell.n, cell.status) == (pytest.approx(70.1), 3, "done")
    assert cell.low < 70.1 < cell.high
    assert ours.loc["san", "svhn"].status == "missing"
    beside = shown[(shown.row == "SSF") & (shown.task == "cifar")].iloc[0]
    assert (beside["mean"], beside.method, beside.source) == (69.0, "ssf", "lian2022ssf")
    means = shown[(shown.row == "ssf") & (shown.kind == "ours") & (shown.task == "")]
    assert list(means.statistic) == [*["mean of group"] * 3, "mean of all tasks", "mean of groups"]
    assert list(means["std"]) == [pytest.approx(0.1)] * 5
    written = {(n.method, n.task, n.accuracy) for n in published_numbers("vtab", VTAB.backbone)}
    published = frame[(frame.kind != "ours") & (frame.task != "")]
    found = set(zip(published.row, published.task, published["mean"], strict=True))
    assert {number for number in written if number[1] in VTAB.tasks} <= found


def test_a_stray_cell_renames_no_row() -> None:
    runs = [
        done(700, method=m, task=t, seed=s)
        for m in ("ssf", "san")
        for t in DEMO.tasks
        for s in (0, 1)
    ]
    stray = done(
        700, method="lora", task="digits", seed=4, protocol="best_test", selected_on="test"
    )
    keys = ["kind", "method", "settings", "protocol", "task", "statistic", "group"]
    before = pd.DataFrame(make_table(DEMO, runs).cells)[keys]
    after = pd.DataFrame(make_table(DEMO, [*runs, stray]).cells)
    after = after[after.method != "lora"][keys].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, after)


def test_a_backbone_has_a_table_of_its_own() -> None:
    swin = make_table(VTAB, vtab_records(), "swin_b_in22k")
    assert swin.title == "VTAB-1k, swin_b_in22k"
    assert labels(swin) == ["san"]
    published = swin.published.row("VPT-Deep").values[Column("mean of", "natural")]
    assert to_text(published) == "76.78*"
    assert any("not all values of its tasks are public" in note for note in swin.notes)


def test_records_of_one_identity_with_different_results_are_reported() -> None:
    table = make_table(DEMO, demo_records())
    assert text(table, "san [epochs=4, last_epoch]", DIGITS) == "65.00‡"
    (note,) = (note for note in table.notes if "cccccccccccc" in note)
    assert "2 records of one identity" in note
    assert "650 of 1000, 640 of 1000" in note


def test_the_mean_corruption_error_is_alexnets_at_100() -> None:
    suite = load_suite("robustness")
    errors = {t.name: t.alexnet_error for t in suite.tasks.values() if t.alexnet_error}
    assert len(errors) == 15
    facts = {"suite": "robustness", "backbone": suite.backbone}
    alexnet = []
    perfect = []
    for task, error in errors.items():
        score = Score(0, round(1e6 * (1 - error)), 10**6)
        alexnet.append(run(task=task, last=score, method="linear", **facts))
        perfect.append(run(task=task, last=Score(0, 10**6, 10**6), method="san", **facts))
    table = make_table(suite, alexnet + perfect[1:])
    assert mean(table, "linear", ("mean", "mCE")) == pytest.approx(100)
    assert text(table, "san", ("mean", "mCE")) == MISSING
    assert mean(make_table(suite, alexnet + perfect), "san", ("mean", "mCE")) == 0


def test_forced_data_is_marked() -> None:
    table = make_table(DEMO, demo_records())
    assert text(table, "bitfit [last_epoch]", DIGITS) == "71.00¶"
    assert any("forced" in note for note in table.notes)


def test_a_cell_is_marked_where_any_of_its_runs_is_near_chance_and_stays_compared() -> None:
    scores = {"ssf": (500, 116), "san": (500, 117)}
    made = []
    for method, of_seeds in scores.items():
        for task in DEMO.tasks:
            for seed, correct in enumerate(of_seeds):
                facts = {"method": method, "task": task, "seed": seed}
                made.append(done(correct, classes=ten_classes(correct), **facts))
    table = make_table(DEMO, made)
    assert labels(table) == ["ssf∅", "san"]
    legend = "∅ a run is not shown to be better than always answering the most frequent class."
    assert legend in table.notes
    assert len(table.verdict.standings.ranked) == 2
    flags = {(cell["method"], cell["flags"]) for cell in table.cells}
    assert flags == {("ssf", "near_chance"), ("san", "")}


def test_a_single_cell_near_chance_is_marked_itself_and_in_its_means() -> None:
    made = [done(500, task=task) for task in DEMO.tasks if task != "digits"]
    made.append(done(116, task="digits", classes=ten_classes(116)))
    table = make_table(DEMO, made)
    assert labels(table) == ["san"]
    assert text(table, "san", DIGITS) == "11.60∅"
    assert text(table, "san", ("natural", "Texture")) == "50.00"
    assert text(table, "san", ("mean of", "natural")) == "30.80∅"
    assert text(table, "san", ("mean of", "structured")) == "50.00"


def test_that_a_run_is_near_chance_is_no_reason_not_to_compare_it() -> None:
    made = [done(116, task="digits", classes=ten_classes(116))]
    excluded = [text for text in make_table(DEMO, made).verdict.sentences if "Not comp" in text]
    assert excluded == ["Not compared, 1 of 6 tasks: san."]


def test_parameters_are_a_mean_over_tasks_and_stand_over_whole_rows_alone() -> None:
    counts = run().params
    assert counts is not None
    many_counts = msgspec.structs.replace(counts, method=590, head=0, trainable=600)
    no_counts = msgspec.structs.replace(counts, method=0, norm=0, head=0, trainable=0)
    first, *others = DEMO.tasks
    assert len(others) == 5
    many = [done(1, task=first, seed=seed, params=many_counts) for seed in (0, 1, 2)]
    none = [done(1, task=task, params=no_counts) for task in others]
    assert make_table(DEMO, many + none).ours.row("san").trainable.with_head == 100
    assert make_table(DEMO, many).ours.row("san").summary_texts()[1] == MISSING


def test_a_seed_that_failed_marks_the_means() -> None:
    runs = [done(700, task=task) for task in DEMO.tasks]
    runs.append(failed(Status.OOM, task="digits", seed=1))
    assert text(make_table(DEMO, runs), "san", ("mean", "all")) == "70.00‖"


def test_a_conflict_is_never_resolved_silently() -> None:
    created = "2026-02-01T00:00:00+00:00"
    runs = [done(640, task="digits"), failed(Status.OOM, task="digits", id="x", created=created)]
    assert text(make_table(DEMO, runs), "san", DIGITS) == "64.00‡"


def test_gaps_carry_the_marks_of_both_sides() -> None:
    facts = {"suite": "vtab", "method": "vpt_deep", "selected_on": "test"}
    best = Score(1, 800, 1000)
    for backbone, name, column, expected in (
        (VTAB.backbone, "vpt_deep - VPT-Deep", CIFAR, "+1.20†◦"),
        ("swin_b_in22k", "vpt_deep - VPT-Deep", Column("mean of", "natural"), "+3.22†*"),
    ):
        runs = [done(800, best=best, task=t, backbone=backbone, **facts) for t in VTAB.tasks]
        table = make_table(VTAB, runs, backbone)
        gap = table.differences.row(name).values[column]
        assert to_text(gap) == expected
        assert Flag.CHOSEN_ON_TEST in gap.flags
        ours = [cell for cell in table.cells if cell["kind"] == "ours"]
        assert {cell["flags"] for cell in ours} == {"chosen_on_test"}


@pytest.mark.parametrize("name", ["demo", "vtab", "fgvc", "robustness"])
def test_the_interval_of_a_mean_adds_up_the_test_images_of_its_tasks(name: str) -> None:
    """Its weights are the changes of the mean where one accuracy changes by a point."""
    suite = load_suite(name)
    facts = {"suite": name, "backbone": suite.backbone}
    accuracies = dict.fromkeys(suite.tasks, 60.0)
    runs = [done(600, task=task, id=task, **facts) for task in suite.tasks]
    row = make_table(suite, runs).ours.row("san")
    before = table_means(suite, accuracies, {})
    changes = [table_means(suite, {**accuracies, task: 61.0}, {}) for task in suite.tasks]
    checked = 0
    for column, mean_before in before.items():
        weights = [after[column] - mean_before for after in changes]
        variance = sum(weight**2 for weight in weights) * 100**2 * 0.6 * 0.4 / 1000
        value = row.values[column]
        assert value.high - value.mean == pytest.approx(1.96 * variance**0.5, rel=1e-4)
        assert value.mean - value.low == pytest.approx(value.high - value.mean)
        checked += 1
    assert checked >= 1


def test_a_mean_over_an_incomplete_row_has_no_interval() -> None:
    row = make_table(DEMO, [done(700, task="digits")]).ours.row("san")
    value = row.values[Column("mean", "all")]
    assert math.isnan(value.low)
    assert math.isnan(value.high)
