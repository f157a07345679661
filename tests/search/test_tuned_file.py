"""The file of a search is read again as recipes are, and keeps to one budget."""

import csv
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from san import recipe_files
from san.errors import FileAccessError, InvalidValueError
from san.recipe_files import Cell, RecipeRow
from san.score import Score
from san.search.selection import Choice, Trial
from san.search.space import Search, load_search
from san.search.tuned_file import TunedCell, tuned_path, write_tuned

LR = load_search("lr")
RECORDS = ("0123456789ab", "ba9876543210")


def found(correct: int = 150, **values: Any) -> Choice:
    trial = Trial(values or {"lr": 0.00632}, [Score(10, correct, 200)])
    return Choice(trial, 5, 1, Fraction(297, 400), 2, ("lr",))


def cell(
    method: str = "san", task: str = "digits", choice: Choice | None = None, **changes: Any
) -> TunedCell:
    facts: dict[str, Any] = {"options": (), "given": (), "images": 200, "seeds": (0, 1)}
    facts |= {"records": RECORDS, "choice": found() if choice is None else choice, **changes}
    return TunedCell("demo", "vit_nano", method, task=task, **facts)


def row(path: Path, method: str = "san", task: str = "digits", **options: str) -> RecipeRow | None:
    return recipe_files.find_row(path, Cell("demo", "vit_nano", method, options, task))


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tuned_path("demo", "vit_nano", "lr", tmp_path / "tuned")


def test_what_is_written_is_read_with_its_values_and_types(path: Path) -> None:
    values = {
        "lr": 0.00159,
        "weight_decay": 0.0,
        "epochs": 3,
        "method.rank": 16,
        "method.alpha": None,
        "method.bias": False,
        "method.dropout_at": "input",
        "method.targets": ["q", "v"],
    }
    write_tuned([cell("lora", choice=found(**values))], LR, path)
    read = row(path, "lora")
    assert read is not None
    assert read.values == values
    for key, value in values.items():
        assert type(read.values[key]) is type(value), key
    assert read.evidence == {
        "source": "our search lr, 5 trials",
        "search": "lr",
        "space": "5 points, grid: lr 0.0004 to 0.1",
        "trials": 5,
        "failed": 2,
        "seeds": [0, 1],
        "val_accuracy": 75.0,
        "val_images": 200,
        "ties": 1,
        "runner_up": 74.25,
        "at_edge": "lr",
        "records": "0123456789ab ba9876543210",
    }
    assert path.name == "demo_vit_nano_lr.csv"


def test_every_learning_rate_of_a_space_is_read_exactly(path: Path) -> None:
    """What the trials ran with is what `recipe=tuned` gives."""
    search = load_search("lr_wd", 60)
    points = search.points("san")
    for point in points:
        write_tuned([cell(choice=found(**point))], search, path)
        read = row(path)
        assert read is not None
        assert read.values == point
    assert len(points) == 60


def test_lines_of_other_methods_and_tasks_stay_and_the_same_one_is_replaced(path: Path) -> None:
    write_tuned([cell("san"), cell("ssf"), cell("san", "count")], LR, path)
    before = lines(path)
    write_tuned([cell("ssf", choice=found(lr=0.1)), cell("lora")], LR, path)
    after = lines(path)
    assert [(line["method"], line["task"]) for line in after] == [
        ("san", "digits"),
        ("ssf", "digits"),
        ("san", "count"),
        ("lora", "digits"),
    ]
    assert (after[0], after[2]) == (before[0], before[2])
    assert (before[1]["lr"], after[1]["lr"]) == ("0.00632", "0.1")


def test_a_column_comes_with_the_first_line_that_has_it(path: Path) -> None:
    write_tuned([cell("san")], LR, path)
    search = Search("lr", LR.sampling, LR.trials, LR.space, {"lora": {"method.rank": (4, 8)}})
    write_tuned([cell("lora", choice=found(**{"lr": 0.1, "method.rank": 4}))], search, path)
    san, lora = lines(path)
    assert (san["method.rank"], lora["method.rank"]) == ("", "4")
    assert (san["addition"], lora["addition"]) == ("", "method.rank 4 8")
    columns = list(san)
    assert columns[:7] == [*recipe_files.NAMES, "lr", "method.rank"]
    assert columns[7:] == list(recipe_files.EVIDENCE)
    read = row(path)
    assert read is not None
    assert dict(read.values) == {"lr": 0.00632}


def test_the_same_cells_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    cells = [cell("san"), cell("ssf", choice=found(lr=0.1))]
    write_tuned(cells, LR, path)
    once = path.read_bytes()
    write_tuned(cells, LR, path)
    assert path.read_bytes() == once
    write_tuned(cells[:1], LR, tmp_path / "other.csv")
    write_tuned(cells[1:], LR, tmp_path / "other.csv")
    assert (tmp_path / "other.csv").read_bytes() == once


def test_an_arm_has_a_line_of_its_own(path: Path) -> None:
    arm = cell(choice=found(lr=0.1), options=("propagation=off", "train_norms=false"))
    write_tuned([cell(), arm], LR, path)
    default = row(path)
    other = row(path, train_norms="false", propagation="off")
    assert default is not None
    assert other is not None
    assert (default.values["lr"], other.values["lr"]) == (0.00632, 0.1)
    assert row(path, propagation="off") is None
    write_tuned([cell(choice=found(lr=0.0004))], LR, path)
    assert [line["lr"] for line in lines(path)] == ["0.0004", "0.1"]


@pytest.mark.parametrize(
    ("changes", "budget"),
    [
        ({"search": load_search("lr", 7)}, "7 points, grid: lr 0.0004 to 0.1 (ssf)"),
        ({"search": load_search("mai")}, "weight_decay 0.0001 0.001 (ssf)"),
        ({"given": ("epochs=1",)}, "5 points, grid: lr 0.0004 to 0.1, epochs=1 (ssf)"),
    ],
)
def test_another_budget_in_one_file_is_refused(
    changes: dict[str, Any], budget: str, path: Path
) -> None:
    write_tuned([cell("san"), cell("san", "count")], LR, path)
    before = path.read_bytes()
    search = changes.pop("search", LR)
    with pytest.raises(InvalidValueError, match="would have methods of different budgets") as error:
        write_tuned([cell("ssf", **changes)], search, path)
    assert budget in str(error.value)
    assert "5 points, grid: lr 0.0004 to 0.1 (san);" in str(error.value)
    assert path.read_bytes() == before
    # All of them searched again alike.
    again = [cell(each, task, **changes) for each, task in [("san", "digits"), ("san", "count")]]
    write_tuned([*again, cell("ssf", **changes)], search, path)
    assert len(lines(path)) == 3


def test_additions_are_the_same_budget_of_points(path: Path) -> None:
    search = load_search("lr_rank")
    both = [cell("ssf"), cell("lora", choice=found(**{"lr": 0.1, "method.rank": 16}))]
    write_tuned(both, search, path)
    assert len({line["space"] for line in lines(path)}) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it needs suite, backbone, method, settings, task"),
        (b"a,b\n1,2\n", "has the columns a, b; it needs suite"),
        (b"suite,backbone,method,settings,task,lr\ndemo,*,san,,*,0.1\n", "written by no search"),
        (b"\xff\xfe", "it is no UTF-8 text"),
    ],
)
def test_a_file_of_somebody_else_is_not_replaced(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises((InvalidValueError, FileAccessError), match=message) as error:
        write_tuned([cell()], LR, path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == content


def test_a_directory_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="is a directory"):
        write_tuned([cell()], LR, tmp_path)


def test_without_a_runner_up_its_field_is_empty(path: Path) -> None:
    alone = Choice(Trial({"lr": 0.1}, [Score(10, 0, 200)]), 5, 0, None, 4, ())
    write_tuned([cell(choice=alone)], LR, path)
    (line,) = lines(path)
    assert (line["runner_up"], line["at_edge"], line["val_accuracy"]) == ("", "", "0.00")
    read = row(path)
    assert read is not None
    assert "runner_up" not in read.evidence
