"""What makes two cells incomparable is marked, named, and takes no part in the comparison."""

from dataclasses import asdict
from typing import Any

import pytest
from samples import DEMO, DIGITS, done, labels

from san.record import DataSource, Record
from san.report.table import Table, make_table
from san.report.value import Flag
from san.runtime.environment import CodeState
from san.training.schedule import COSINE

SHARED = {"precision": "fp32", "epochs": 100, "batch_size": 64, "lr": 1e-3}


def whole_row(method: str, correct: int = 700, seeds: tuple[int, ...] = (0,), **facts: Any) -> list:
    """A row that is done on all tasks."""
    facts = {"config": SHARED, **facts}
    runs = []
    for task in DEMO.tasks:
        for seed in seeds:
            runs.append(done(correct + seed, method=method, task=task, seed=seed, **facts))
    return runs


def flags(table: Table, name: str) -> set[Flag]:
    row = table.ours.row(name)
    return set(row.flags | row.values[DIGITS].flags)


def compared(table: Table) -> set[str]:
    """The rows that take part in the verdict."""
    return {
        standing.row.name
        for standing in (*table.verdict.standings.ranked, *table.verdict.standings.baselines)
    }


@pytest.mark.parametrize(
    ("facts", "flag", "words"),
    [
        ({"weights": "other"}, Flag.OTHER_SETTINGS, "pre-trained weights other (compared rows: w)"),
        (
            {"data": DataSource(train="x", evaluate="b")},
            Flag.OTHER_SETTINGS,
            "training data x (compared rows: a)",
        ),
        (
            {"data": DataSource(train="a", evaluate="y")},
            Flag.OTHER_SETTINGS,
            "test data y (compared rows: b)",
        ),
        (
            {"config": {**SHARED, "precision": "bf16"}},
            Flag.OTHER_SETTINGS,
            "precision bf16 (compared rows: fp32)",
        ),
        (
            {"config": {**SHARED, "drop_path": 0.1}},
            Flag.OTHER_SETTINGS,
            "drop path 0.1 (compared rows: null)",
        ),
        (
            {"config": {**SHARED, "schedule": {"update": "epoch", "lag_epochs": 1}}},
            Flag.OTHER_SETTINGS,
            "schedule update epoch, lag_epochs 1 (compared rows: default)",
        ),
        (
            {"config": {**SHARED, "epochs": 10}},
            Flag.OTHER_SETTINGS,
            "epochs 10 (compared rows: 100)",
        ),
        (
            {"config": {**SHARED, "data": {"resize": "bicubic"}}},
            Flag.OTHER_SETTINGS,
            "resize bicubic (compared rows: null)",
        ),
        (
            {"config": {**SHARED, "data": {"normalise": "imagenet"}}},
            Flag.OTHER_SETTINGS,
            "normalization imagenet (compared rows: null)",
        ),
        (
            {"config": {**SHARED, "augment": {"name": "ssf", "flip": 0.5, "jitter": 0.0}}},
            Flag.OTHER_SETTINGS,
            "augmentation flip 0.5 (compared rows: none)",
        ),
        (
            {"code": CodeState("abcdef0123", dirty=True)},
            Flag.UNCOMMITTED_CODE,
            "code changed after abcdef0 (compared rows: committed)",
        ),
        ({"seeds": (0, 1, 2)}, Flag.OTHER_SEEDS, "seeds 0, 1, 2 (compared rows: 0)"),
        ({"seeds": (7,)}, Flag.OTHER_SEEDS, "seeds 7 (compared rows: 0)"),
        (
            {"selected_on": "test", "protocol": "best_test"},
            Flag.CHOSEN_ON_TEST,
            "epoch chosen on test (compared rows: last)",
        ),
    ],
)
def test_a_row_unlike_the_others_is_marked_named_and_not_compared(
    facts: dict[str, Any], flag: Flag, words: str
) -> None:
    others = whole_row("ssf") + whole_row("lora")
    table = make_table(DEMO, others + whole_row("san", 990, **facts))
    name = next(row.name for row in table.ours.rows if row.name.startswith("san"))
    assert flag in flags(table, name)
    assert any(note == f"{flag.mark} {name}: {words}." for note in table.notes), table.notes
    assert not any(row.startswith("san") for row in compared(table))
    assert len(compared(table)) == 2
    for row in ("ssf", "lora"):
        other = next(each for each in table.ours.rows if each.name.startswith(row))
        assert not other.flags


def test_what_may_be_tuned_by_method_does_not_matter_between_rows() -> None:
    tuned = {**SHARED, "lr": 5e-3, "weight_decay": 0.1, "method": {"rank": 4}}
    table = make_table(DEMO, whole_row("ssf") + whole_row("san", config=tuned))
    assert compared(table) == {"ssf", "san"}
    assert labels(table) == ["ssf", "san"]


@pytest.mark.parametrize("key", ["epochs", "lr", "precision", "weight_decay"])
def test_seeds_under_different_settings_are_never_averaged_silently(key: str) -> None:
    changed = {**SHARED, key: "another"}
    runs = whole_row("san") + whole_row("san", seeds=(1,), config=changed) + whole_row("ssf")
    table = make_table(DEMO, runs)
    assert Flag.MIXED_SETTINGS in flags(table, "san")
    assert any(note.startswith("§ san: ") and "another" in note for note in table.notes)
    assert "san" not in compared(table)


def test_only_the_cell_that_differs_is_marked() -> None:
    runs = whole_row("ssf") + whole_row("san") + whole_row("lora")
    runs = [r for r in runs if (r.method, r.task) != ("san", "count")]
    runs.append(done(700, method="san", task="count", config={**SHARED, "epochs": 10}))
    table = make_table(DEMO, runs)
    row = table.ours.row("san")
    marked = [column.label for column, value in row.values.items() if value.flags]
    assert marked == ["Count", "structured", "all", "groups"]
    assert "≠ san: epochs 10 (compared rows: 100) on Count." in table.notes


def test_of_two_rows_the_one_with_more_runs_is_usual() -> None:
    table = make_table(DEMO, whole_row("ssf", seeds=(0, 1, 2)) + whole_row("san"))
    assert labels(table) == ["ssf", "san‖"]


def test_a_row_that_is_only_begun_decides_nothing() -> None:
    begun = [done(1, method="lora", task="digits", config=SHARED)]
    table = make_table(DEMO, whole_row("ssf", seeds=(0, 1)) + whole_row("san") + begun)
    assert labels(table) == ["ssf", "san‖", "lora‖"]


def test_variants_decide_nothing_where_there_are_default_rows() -> None:
    variants: list[Record] = []
    for epochs in (10, 20, 30):
        config = {**SHARED, "epochs": epochs}
        variants += whole_row("san", config=config, variant=f"epochs={epochs}")
    table = make_table(DEMO, variants + whole_row("ssf"))
    assert compared(table) == {"ssf"}


def test_code_that_was_dirty_everywhere_is_said_and_still_compared() -> None:
    state = {"code": CodeState("abc", dirty=True)}
    table = make_table(DEMO, whole_row("ssf", **state) + whole_row("san", **state))
    assert labels(table) == ["ssf◇", "san◇"]
    assert any(note.startswith("◇") for note in table.notes)
    assert compared(table) == {"ssf", "san"}


@pytest.mark.parametrize(
    ("others", "flag"),
    [
        ({"selected_on": "test"}, Flag.CHOSEN_ON_TEST),
        ({"code": CodeState("abc", dirty=True)}, Flag.UNCOMMITTED_CODE),
    ],
)
def test_no_mark_says_of_a_row_what_is_true_of_the_others(
    others: dict[str, Any], flag: Flag
) -> None:
    """The last epoch among rows chosen on test is another setting; it was not chosen on test."""
    table = make_table(
        DEMO, whole_row("ssf", **others) + whole_row("lora", **others) + whole_row("san")
    )
    assert flag in flags(table, "ssf")
    assert flags(table, "san") == {Flag.OTHER_SETTINGS}
    assert compared(table) == {"ssf", "lora"}


def test_records_from_before_a_setting_have_its_default() -> None:
    now = {**SHARED, "betas": [0.9, 0.999], "drop_path": None, "drop_last": False}
    now |= {"weight_decay_on": "matrices", "schedule": asdict(COSINE)}
    rows = [*whole_row("san", config=now), *whole_row("ssf", 690), *whole_row("lora", 680)]
    table = make_table(DEMO, rows)
    assert compared(table) == {"san", "ssf", "lora"}
    assert not flags(table, "san")
