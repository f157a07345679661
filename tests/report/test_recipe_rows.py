"""Rows of recipes that say something else for each task, and runs that are cells of several."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from conftest import resolved
from samples import DEMO, done

from san import installation, record_names
from san.record import Record
from san.report.recipe_rows import in_every_row
from san.report.table import deduplicate, make_table

TASKS = list(DEMO.tasks)
DEFAULT_LR = 1e-2  # of san, configs/recipe/demo.yaml
RATES = dict(zip(TASKS, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True))
TUNED = ("recipe=tuned",)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the project's, where no search has written anything."""
    for name in ("PROJECT", "WRITE_ROOT"):
        monkeypatch.setattr(installation, name, tmp_path)
    (tmp_path / "benchmarks" / "tuned").mkdir(parents=True)
    return tmp_path


def write(root: Path, rates: Mapping[str, float], search: str = "lr", settings: str = "") -> None:
    """Write what a search found for san by task, as a search does."""
    lines = ["suite,backbone,method,settings,task,lr,search,trials"]
    for task, rate in rates.items():
        lines.append(f"demo,vit_nano,san,{settings},{task},{rate},{search},5")
    path = root / "benchmarks" / "tuned" / f"demo_vit_nano_{search}.csv"
    path.write_text("\n".join(lines) + "\n")


def record(task: str, *words: str, correct: int = 700) -> Record:
    """A record of a run of san, with its whole configuration."""
    run = resolved("method=san", f"data=demo/{task}", *words)
    key = f"{task} {' '.join(words)} {run.config['lr']}"
    made = done(correct, task=task, config=run.config, weights="w", variant=key)
    return record_names.named_by_value(made)


def rows(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """The right answers of each cell, by variant and task."""
    found: dict[str, dict[str, int]] = {}
    for each in in_every_row(records):
        assert each.last is not None
        cells = found.setdefault(each.variant, {})
        assert each.task not in cells, f"{each.variant} on {each.task} is there twice"
        cells[each.task] = each.last.correct
    return found


def labels(records: Sequence[Record]) -> list[str]:
    kept, conflicts = deduplicate(in_every_row(records))
    assert conflicts == []
    return sorted(row.label for row in make_table(DEMO, kept).ours.rows)


def test_one_row_has_another_learning_rate_for_each_task(root: Path) -> None:
    write(root, RATES)
    records = [record(task, *TUNED) for task in TASKS]
    assert {r.config["lr"] for r in records} == set(RATES.values())
    assert rows(records) == {"recipe=tuned": dict.fromkeys(TASKS, 700)}
    assert labels(records) == ["san [tuned]"]


def test_a_run_that_departs_from_its_line_is_in_another_row(root: Path) -> None:
    write(root, RATES)
    records = [record("count", *TUNED), record("count", *TUNED, "lr=7", correct=600)]
    assert rows(records) == {"recipe=tuned": {"count": 700}, "lr=7.0 recipe=tuned": {"count": 600}}


def test_a_default_run_with_the_tuned_values_is_a_cell_of_both_rows(root: Path) -> None:
    write(root, {**RATES, "count": DEFAULT_LR})
    records = [record("count", correct=650), record("digits", correct=640)]
    records.append(record("digits", *TUNED))
    assert rows(records) == {
        "": {"count": 650, "digits": 640},
        "recipe=tuned": {"count": 650, "digits": 700},
    }


def test_a_tuned_run_with_the_default_values_is_a_cell_of_both_rows(root: Path) -> None:
    write(root, {**RATES, "count": DEFAULT_LR})
    records = [record("digits", correct=640), record("count", *TUNED)]
    assert rows(records) == {
        "": {"digits": 640, "count": 700},
        "recipe=tuned": {"count": 700},
    }


def test_a_run_by_its_values_is_a_cell_of_the_tuned_row(root: Path) -> None:
    """Somebody typed what the search had found."""
    write(root, RATES)
    records = [record("count", f"lr={RATES['count']}", correct=650), record("digits", *TUNED)]
    assert rows(records) == {
        f"lr={RATES['count']}": {"count": 650},
        "recipe=tuned": {"count": 650, "digits": 700},
    }


def test_a_row_that_no_run_was_made_for_is_there_only_where_it_is_whole(root: Path) -> None:
    write(root, dict.fromkeys(TASKS, DEFAULT_LR))
    records = [record(task, *TUNED) for task in TASKS]
    tuned = {"recipe=tuned": dict.fromkeys(TASKS, 700)}
    # Nothing was run with the suite's own recipe, so nobody asks for its row.
    assert rows(records) == tuned
    # Another arm was.
    asked = record("count", "method.propagation=off", correct=500)
    arm = {"method.propagation=off": {"count": 500}}
    assert rows([asked, *records]) == arm | tuned | {"": dict.fromkeys(TASKS, 700)}
    assert rows([asked, *records[1:]]) == arm | {"recipe=tuned": dict.fromkeys(TASKS[1:], 700)}


def test_both_copies_of_a_record_stay(root: Path) -> None:
    write(root, dict.fromkeys(TASKS, DEFAULT_LR))
    records = [record(task, *TUNED) for task in TASKS[1:]]
    records.append(record(TASKS[0]))
    copies = in_every_row(records)
    assert len(copies) == 2 * len(TASKS)
    assert len({r.id for r in copies}) == len(TASKS)
    kept, notes = deduplicate(copies)
    assert (len(kept), notes) == (2 * len(TASKS), [])
    assert labels(records) == ["san", "san [tuned]"]


def test_a_copy_says_which_recipe_it_is_shown_as(root: Path) -> None:
    write(root, {**RATES, "count": DEFAULT_LR})
    records = [record("count"), record("digits", *TUNED)]
    (copy,) = in_every_row(records)[2:]
    assert copy.config["recipe"]["name"] == "tuned"
    assert copy.config["recipe"]["row"]["lr"] == DEFAULT_LR
    assert {**copy.config, "recipe": None} == {**records[0].config, "recipe": None}
    assert record_names.named_by_value(copy) == copy


def test_two_searches_are_two_rows(root: Path) -> None:
    write(root, RATES)
    write(root, {task: rate / 2 for task, rate in RATES.items()} | {"count": 0.5}, "lr_wd")
    other = (*TUNED, "recipe.search=lr_wd")
    records = [record("digits", *TUNED), record("digits", *other, correct=600)]
    records.append(record("count", *TUNED, correct=650))
    assert RATES["count"] == 0.5
    assert rows(records) == {
        "recipe=tuned": {"digits": 700, "count": 650},
        "recipe=tuned recipe.search=lr_wd": {"digits": 600, "count": 650},
    }


def test_two_files_of_ones_own_are_two_rows(root: Path) -> None:
    write(root, RATES, "one")
    write(root, {task: rate / 2 for task, rate in RATES.items()}, "two")
    records = []
    for name, correct in [("one", 700), ("two", 600)]:
        file = f"recipe.rows=benchmarks/tuned/demo_vit_nano_{name}.csv"
        records.append(record("digits", *TUNED, file, correct=correct))
    assert sorted(rows(records).values(), key=str) == [{"digits": 600}, {"digits": 700}]


def test_an_arm_is_a_row_of_its_own(root: Path) -> None:
    write(root, RATES, settings="propagation=off")
    arm = [record(task, *TUNED, "method.propagation=off") for task in TASKS]
    assert rows(arm) == {"method.propagation=off recipe=tuned": dict.fromkeys(TASKS, 700)}
    # By its values, too.
    typed = record("count", "method.propagation=off", f"lr={RATES['count']}", correct=650)
    others = [r for r in arm if r.task != "count"]
    found = rows([typed, *others])
    assert found["method.propagation=off recipe=tuned"]["count"] == 650
    assert len(found) == 2


def test_a_row_of_recorded_runs_stays_though_its_file_changes(root: Path) -> None:
    write(root, RATES)
    records = [record(task, *TUNED) for task in TASKS]
    before = rows(records)
    write(root, {task: rate / 2 for task, rate in RATES.items()})
    again = [record_names.named_by_value(r) for r in records]
    assert again == records
    assert rows(again) == before == {"recipe=tuned": dict.fromkeys(TASKS, 700)}
    (root / "benchmarks" / "tuned" / "demo_vit_nano_lr.csv").unlink()
    assert rows(records) == before


def test_what_the_file_says_today_decides_for_runs_of_other_recipes(root: Path) -> None:
    write(root, RATES)
    records = [record("digits", *TUNED), record("count")]
    assert rows(records) == {"recipe=tuned": {"digits": 700}, "": {"count": 700}}
    write(root, {"count": DEFAULT_LR})
    assert rows(records)["recipe=tuned"] == {"digits": 700, "count": 700}


def test_records_without_a_whole_configuration_stay_as_they_are(root: Path) -> None:
    write(root, RATES)
    by_hand = done(500, task="count")
    assert in_every_row([by_hand]) == [by_hand]
    both = in_every_row([by_hand, record("digits", *TUNED)])
    assert [r.task for r in both] == ["count", "digits"]
