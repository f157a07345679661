"""Recipes as rows: the hyper-parameters of a method on a task, each with its source.

A file has a line for each suite, backbone, method and task: what papers tuned
(`benchmarks/recipes/*.csv`), and what `make search` found (`benchmarks/tuned/*.csv`). A column
is named as the setting of train.py that it is for: `lr`, `method.rank`.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from san.errors import InvalidValueError
from san.runtime.files import parse_json, read_text

ANY = "*"  # every task, or every backbone, that has no line of its own
NAMES = ("suite", "backbone", "method", "settings", "task")
# What is known of how the values were found; the other columns are values.
EVIDENCE = (
    "source",
    "search",
    "space",
    "addition",
    "trials",
    "failed",
    "seeds",
    "val_accuracy",
    "val_images",
    "ties",
    "runner_up",
    "at_edge",
    "records",
)


@dataclass(frozen=True)
class Cell:
    """What a line is looked up by: `settings` are options of the method, as texts."""

    suite: str
    backbone: str
    method: str
    settings: Mapping[str, str]
    task: str


@dataclass(frozen=True)
class RecipeRow:
    """A line of a file: values by the settings of train.py, and what is known of them.

    settings: the options of the method for which they were found, beside its defaults.
    """

    suite: str
    backbone: str
    method: str
    settings: Mapping[str, str]
    task: str
    values: Mapping[str, Any]
    evidence: Mapping[str, Any]

    def is_for(self, cell: Cell) -> bool:
        """Return whether the line is for a cell.

        An option that the line itself gives a value to may be anything there.
        """
        if (self.suite, self.method) != (cell.suite, cell.method):
            return False
        if self.backbone not in (ANY, cell.backbone) or self.task not in (ANY, cell.task):
            return False
        asked = {}
        for option, value in cell.settings.items():
            if f"method.{option}" not in self.values:
                asked[option] = value
        return asked == self.settings


def find_row(path: Path, cell: Cell) -> RecipeRow | None:
    """Return the line of a file for a cell, the one that names its task and backbone first.

    None where there is none. Raises SanError where the file cannot be read.
    """
    found = [row for row in read_rows(path) if row.is_for(cell)]
    found.sort(key=lambda row: (row.task == ANY, row.backbone == ANY))
    return found[0] if found else None


def read_rows(path: Path) -> Sequence[RecipeRow]:
    """Return the lines of a file, read once for each version of it.

    Raises SanError where it cannot be read, InvalidValueError where it has no such columns or says
    something twice.
    """
    state = path.stat() if path.is_file() else None
    return _read_rows(path, None if state is None else (state.st_mtime_ns, state.st_size))


@cache
def _read_rows(path: Path, version: tuple[int, int] | None) -> Sequence[RecipeRow]:
    lines = _read_lines(path)
    header = lines[0] if lines else []
    missing = [name for name in NAMES if name not in header]
    if missing or len(set(header)) < len(header):
        raise InvalidValueError(
            f"{path} has the columns {', '.join(header)}; it needs {', '.join(NAMES)}, each once, "
            "and a column for each setting."
        )
    rows: dict[tuple[str, ...], RecipeRow] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise InvalidValueError(f"{path}, line {number}: {len(cells)} of {len(header)} fields.")
        try:
            row = _parse_row(dict(zip(header, cells, strict=True)))
        except InvalidValueError as error:
            raise InvalidValueError(f"{path}, line {number}: {error}") from error
        key = tuple(cells[header.index(name)] for name in NAMES)
        if key in rows:
            raise InvalidValueError(f"{path}, line {number}: {' '.join(key)} is there twice.")
        rows[key] = row
    return tuple(rows.values())


def _read_lines(path: Path) -> list[list[str]]:
    """Return the fields of each line. An interpolation would read what is none of its business."""
    text = read_text(path)
    if "${" in text:
        raise InvalidValueError(f"{path} has a value with ${{...}}; allowed: plain values.")
    try:
        return list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise InvalidValueError(f"{path} cannot be read as CSV ({error}).") from error


def _parse_settings(text: str) -> dict[str, str]:
    """Return options as `rank=4 targets=[qkv]` states them, by name.

    Raises InvalidValueError on a word that gives no value.
    """
    settings = {}
    for word in text.split():
        option, equals, value = word.partition("=")
        if not (option and equals and value):
            raise InvalidValueError(f"'{word}' came as an option; allowed: option=value.")
        settings[option] = value
    return settings


def _parse_row(cells: Mapping[str, str]) -> RecipeRow:
    values = {}
    evidence = {}
    for column, text in cells.items():
        if text == "" or column in NAMES:
            continue
        if column in EVIDENCE:
            evidence[column] = _parse_value(text)
        else:
            values[column] = _parse_value(text)
    return RecipeRow(
        suite=cells["suite"],
        backbone=cells["backbone"],
        method=cells["method"],
        settings=_parse_settings(cells["settings"]),
        task=cells["task"],
        values=values,
        evidence=evidence,
    )


def _parse_value(text: str) -> Any:
    """Return a truth value or null as JSON writes it, a number, a list as `[q, v]`, or the text."""
    if text.startswith("[") and text.endswith("]"):
        return [_parse_item(item.strip()) for item in text[1:-1].split(",") if item.strip()]
    return _parse_item(text)


def _parse_item(text: str) -> Any:
    try:
        return parse_json(text, bool | int | float | str | None)
    except ValueError:
        pass
    try:
        number = float(text)  # sources write `0.`, too
    except ValueError:
        return text
    return number if math.isfinite(number) else text
