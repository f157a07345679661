"""What the project says of the demo suite's search is what its records say."""

from collections import Counter
from pathlib import Path

import pytest

from san.answers import Answers
from san.installation import PROJECT
from san.recipe_files import RecipeRow, read_rows
from san.record import Record
from san.record_file import answers_path, read_answers, read_records, record_path
from san.record_names import named_by_value
from san.report.comparability import RowKey
from san.report.duplicates import deduplicate
from san.report.render import write_table
from san.report.rows import row_name
from san.report.table import make_table
from san.search.selection import Trial, choose_trial
from san.settings import split_variant
from san.tasks import load_suite

DEMO = load_suite("demo")
TUNED = PROJECT / "results" / "tuned"
LINES = read_rows(PROJECT / "benchmarks" / "tuned" / "demo_vit_nano_lr.csv")
PAGE = (PROJECT / "docs/recipes.md").read_text("utf-8")
ARMS = 11  # linear, full, ssf, norm, and seven of san


@pytest.fixture(scope="module")
def runs() -> list[Record]:
    records, problems = read_records(TUNED / "records")
    assert problems == []
    return [named_by_value(r) for r in records]


@pytest.fixture(scope="module")
def trials() -> dict[str, Record]:
    records, problems = read_records(TUNED / "search" / "records")
    assert problems == []
    return {r.id: r for r in records}


def test_every_line_is_the_choice_among_its_trials(trials: dict[str, Record]) -> None:
    assert len(LINES) == ARMS * len(DEMO.tasks) == 66
    seen: Counter[str] = Counter()
    for line in LINES:
        ids = str(line.evidence["records"]).split()
        of_line = [trials[each] for each in ids]
        assert len(of_line) == line.evidence["trials"] == 5
        for r in of_line:
            assert (r.method, r.task, r.protocol, r.evaluated_on) == (
                line.method, line.task, "tune", "val",
            )  # fmt: skip
            assert r.code.dirty is False
        choice = choose_trial([Trial({"lr": r.config["lr"]}, [r.score]) for r in of_line])
        assert choice is not None
        assert choice.trial.values == line.values
        assert float(100 * choice.trial.accuracy) == line.evidence["val_accuracy"]
        assert choice.ties == line.evidence["ties"]
        assert bool(choice.at_edge) == ("at_edge" in line.evidence)
        seen.update(ids)
    assert set(seen.values()) == {1}
    assert len(seen) == len(trials) == 330


def test_every_run_has_the_values_of_its_line(runs: list[Record]) -> None:
    assert len(runs) == ARMS * len(DEMO.tasks) * 3
    by_cell: dict[tuple[str, frozenset[str], str], RecipeRow] = {}
    for line in LINES:
        options = frozenset(f"{key}={value}" for key, value in line.settings.items())
        by_cell[line.method, options, line.task] = line
    assert len(by_cell) == len(LINES)
    for r in runs:
        assert r.code.dirty is False
        words = split_variant(r.variant)
        assert "recipe=tuned" in words
        options = frozenset(word.removeprefix("method.") for word in words) - {"recipe=tuned"}
        assert r.config["lr"] == by_cell[r.method, options, r.task].values["lr"]
    seeds = Counter((r.method, r.variant, r.task) for r in runs)
    assert set(seeds.values()) == {3}
    assert len(deduplicate(runs)[0]) == len(runs)


def test_the_tables_that_are_shown_are_those_of_the_runs(
    runs: list[Record], tmp_path: Path
) -> None:
    def answers_of(r: Record) -> Answers:
        path = record_path(TUNED / "records", r.suite, r.method, r.task, r.seed, r.id)
        return read_answers(r, answers_path(path))

    write_table(make_table(DEMO, runs, answers_of=answers_of), tmp_path)
    for name in ("demo.md", "demo.csv"):
        assert (tmp_path / name).read_text() == (TUNED / "tables" / name).read_text(), name
    rows = {row_name(RowKey.of(r), [RowKey.of(r)]) for r in runs}
    assert len(rows) == ARMS


@pytest.mark.parametrize("name", ["demo", "demo_ablate_san"])
def test_the_page_of_recipes_shows_the_tables(name: str) -> None:
    shown = PAGE.split(f"<!-- table: tuned {name} -->\n")[1].split("<!-- end of table -->")[0]
    assert shown == (TUNED / "tables" / f"{name}.md").read_text("utf-8")
