"""Recipes as rows: which line a cell has, what a field means, and files that are no recipe."""

import os
from pathlib import Path
from typing import Any

import pytest

from san import recipe_files
from san.errors import FileAccessError, InvalidValueError, SanError
from san.recipe_files import Cell, RecipeRow

NAMES = "suite,backbone,method,settings,task"
HEADER = f"{NAMES},lr,method.rank,source\n"
GOOD = f"{HEADER}demo,*,lora,,*,0.1,4,a paper\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.csv"


def find(
    path: Path,
    method: str = "lora",
    task: str = "digits",
    backbone: str = "vit_nano",
    **settings: str,
) -> RecipeRow | None:
    return recipe_files.find_row(path, Cell("demo", backbone, method, settings, task))


def rate(path: Path, **cell: str) -> Any:
    """The learning rate that a file has for a cell, or None where it has no line."""
    row = find(path, **cell)
    return None if row is None else row.values["lr"]


def value(text: str, path: Path) -> Any:
    """What a field means."""
    quoted = text.replace('"', '""')
    path.write_text(f'{NAMES},x\ndemo,*,lora,,*,"{quoted}"\n')
    (row,) = recipe_files.read_rows(path)
    path.unlink()
    return row.values.get("x", "nothing")


ORDERS = [
    "demo,vit_nano,lora,,digits,1,,\n",
    "demo,*,lora,,digits,2,,\n",
    "demo,vit_nano,lora,,*,3,,\n",
    "demo,*,lora,,*,4,,\n",
]


@pytest.mark.parametrize("order", [1, -1])
def test_a_line_that_names_the_task_comes_first_then_one_that_names_the_backbone(
    order: int, path: Path
) -> None:
    for left_out in range(len(ORDERS)):
        path.write_text(HEADER + "".join(ORDERS[left_out:][::order]))
        assert rate(path) == left_out + 1
    assert left_out == 3


def test_a_line_is_for_its_suite_backbone_method_and_task_alone(path: Path) -> None:
    path.write_text(HEADER + ORDERS[0])
    assert rate(path) == 1
    assert rate(path, task="count") is None
    assert rate(path, backbone="vit_b16_augreg_in21k") is None
    assert rate(path, method="ssf") is None
    assert recipe_files.find_row(path, Cell("vtab", "vit_nano", "lora", {}, "digits")) is None


def test_a_star_is_every_task_and_backbone(path: Path) -> None:
    path.write_text(HEADER + ORDERS[3])
    assert rate(path, task="count", backbone="any other") == 4
    assert rate(path, method="*") is None


def test_options_of_the_method_have_to_be_those_of_the_line(path: Path) -> None:
    path.write_text(
        f"{HEADER}demo,*,lora,,*,1,,\ndemo,*,lora,targets=[qkv],*,2,,\n"
        "demo,*,lora,dropout=0.1 targets=[qkv],digits,3,,\n"
    )
    assert rate(path) == 1
    assert rate(path, targets="[qkv]") == 2
    assert rate(path, dropout="0.1", targets="[qkv]") == 3
    assert rate(path, targets="[qkv]", dropout="0.1") == 3  # in whatever order
    assert rate(path, task="count", dropout="0.1", targets="[qkv]") is None
    assert rate(path, dropout="0.1") is None
    assert rate(path, targets="[q]") is None


def test_an_option_that_the_line_gives_may_be_anything(path: Path) -> None:
    path.write_text(f"{HEADER}demo,*,lora,,*,1,16,\ndemo,*,lora,dropout=0.1,*,2,16,\n")
    assert rate(path, rank="16") == rate(path, rank="3") == rate(path) == 1
    assert rate(path, rank="3", dropout="0.1") == 2
    assert rate(path, rank="3", dropout="0.2") is None
    path.write_text(f"{HEADER}demo,*,lora,,*,1,,\n\n"[:-1])
    assert rate(path) == 1
    assert rate(path, rank="16") is None


VALUES: list[tuple[str, Any]] = [
    ("5e-3", 0.005),
    ("0.", 0.0),  # numbers stand as their source writes them
    (".5", 0.5),
    ("1", 1),
    ("-2", -2),
    ("true", True),
    ("null", None),
    ("adamw", "adamw"),
    ("no number 1", "no number 1"),
    ("True", "True"),
    ("NaN", "NaN"),
    ("1e999", "1e999"),
    ("[q, v]", ["q", "v"]),
    ("[q,v]", ["q", "v"]),
    ("[1, 0.5, true, null]", [1, 0.5, True, None]),
    ("[]", []),
    ("[qkv", "[qkv"),
    ('{"a": 1}', '{"a": 1}'),
    ("", "nothing"),
]


@pytest.mark.parametrize(("text", "meant"), VALUES)
def test_a_field_is_a_value_as_json_has_it_a_list_or_a_text(
    text: str, meant: Any, path: Path
) -> None:
    found = value(text, path)
    assert found == meant
    assert type(found) is type(meant)


def test_evidence_is_no_value(path: Path) -> None:
    path.write_text(f"{NAMES},lr,source,trials,seeds\ndemo,*,lora,,*,0.1,a paper,5,[0]\n")
    (row,) = recipe_files.read_rows(path)
    assert row.values == {"lr": 0.1}
    assert row.evidence == {"source": "a paper", "trials": 5, "seeds": [0]}


BAD: dict[str, tuple[str, str]] = {
    "nothing": ("", "it needs suite, backbone, method, settings, task, each once"),
    "no header": ("demo,*,lora,,*\n", "it needs suite"),
    "a missing column": (GOOD.replace("settings,", "", 1), "it needs suite, backbone, method"),
    "a column twice": (GOOD.replace("method.rank", "lr"), "each once"),
    "a name twice": (GOOD.replace("method.rank", "task"), "each once"),
    "a field too few": (GOOD + "demo,*,lora\n", "line 3: 3 of 8 fields"),
    "a field too many": (GOOD.replace("0.1", "0.1,2"), "line 2: 9 of 8 fields"),
    "an empty line": (GOOD + "\n", "line 3: 0 of 8 fields"),
    "a line twice": (
        GOOD + "demo,*,lora,,*,0.2,4,x\n",
        r"line 3: demo \* lora  \* is there twice",
    ),
    "an option without a value": (
        GOOD.replace("lora,,", "lora,rank,"),
        "line 2: 'rank' came as an option; allowed: option=value",
    ),
    "an option without a name": (GOOD.replace("lora,,", "lora,=4,"), "line 2: '=4' came as"),
    "a field without an end": (GOOD + '"' + "x" * 200_000, "cannot be read as CSV"),
    "an interpolation": (GOOD.replace("0.1", "${oc.env:HOME}"), "allowed: plain values"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_with_its_name(kind: str, path: Path) -> None:
    path.write_text(GOOD)
    assert rate(path) == 0.1
    text, message = BAD[kind]
    path.write_text(text)
    with pytest.raises(InvalidValueError, match=message) as error:
        recipe_files.read_rows(path)
    assert str(path) in str(error.value)


def test_what_is_no_text_or_no_file_is_named(path: Path) -> None:
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(FileAccessError, match="it is no UTF-8 text"):
        recipe_files.read_rows(path)
    path.unlink()
    with pytest.raises(SanError, match="does not exist"):
        recipe_files.read_rows(path)
    path.mkdir()
    with pytest.raises(FileAccessError, match="is a directory"):
        recipe_files.read_rows(path)


def test_a_file_that_was_written_again_is_read_again(path: Path) -> None:
    path.write_text(GOOD)
    assert rate(path) == 0.1
    path.write_text(GOOD.replace("0.1", "0.02"))
    assert rate(path) == 0.02
    path.write_text(GOOD.replace("0.1", "0.03"))  # of the same size
    os.utime(path, ns=(1, 1))
    assert rate(path) == 0.03


def test_lines_may_end_as_on_windows(path: Path) -> None:
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert rate(path) == 0.1
