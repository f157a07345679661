"""Tables as files: CSV for programs, Markdown for people, LaTeX for papers."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd

from san.errors import FileAccessError
from san.report.aggregate import (
    MEAN_OF_GROUP,
    MEAN_OF_TASKS,
    SUMMARY_COLUMNS,
    TRAINABLE_COLUMNS,
    Column,
)
from san.report.facts import RUN_COLUMNS, CellFacts
from san.report.latex import latex
from san.report.rows import Row
from san.report.table import Table
from san.report.value import to_text
from san.runtime.files import atomic_write


def markdown(table: Table) -> str:
    """Return the table in Markdown, for a terminal too.

    First our rows, then gaps below the published values, both with methods across; at last the
    means of published rows. The files have every cell.
    """
    parts = [f"**{table.title}**, top-1 accuracy in percent\n"]
    if table.ours.rows:
        parts.append(_methods_across(table.ours.rows, [*table.columns, *SUMMARY_COLUMNS]))
    if table.gaps:
        rows = [row for gap in table.gaps for row in (gap.published, gap.difference)]
        parts.append("\nThe published value, and ours minus it\n")
        parts.append(_methods_across(rows, table.columns))
    if table.published.rows:
        parts.append("\nPublished, not run again\n")
        parts.append(_means_down(table.published.rows, table.columns))
    return "\n".join([*parts, "", *table.notes]).rstrip() + "\n"


def _wide_csv(table: Table) -> str:
    """Return every row of the table as printed."""
    sections = {"re-run": table.ours, "cited": table.published, "gap": table.differences}
    lines = []
    for kind, section in sections.items():
        for row in section.rows:
            lines.append([kind, row.label, *_row_texts(row)])
    header = ["kind", "method", *_joined([*table.columns, *SUMMARY_COLUMNS])]
    return _to_csv(pd.DataFrame(lines, columns=header))


def cells_frame(table: Table) -> pd.DataFrame:
    """Return a line for each cell: ours, the published value with its source, the gap."""
    columns = [field.name for field in fields(CellFacts)]
    lines = [asdict(cell) for cell in table.cells]
    return pd.DataFrame(lines, columns=columns)


def runs_frame(table: Table) -> pd.DataFrame:
    """Return a line for each run."""
    if not table.runs:
        return pd.DataFrame(columns=RUN_COLUMNS)
    return pd.DataFrame(table.runs)


def write_table(table: Table, directory: Path, name: str) -> list[Path]:
    """Write `<name>.csv` (wide), `_cells.csv`, `_runs.csv` (tidy), `.md` and `.tex`; return paths.

    Raises FileAccessError where one of them cannot be written; then none is replaced.
    """
    texts = {
        f"{name}.csv": _wide_csv(table),
        f"{name}_cells.csv": _to_csv(cells_frame(table)),
        f"{name}_runs.csv": _to_csv(runs_frame(table)),
        f"{name}.md": markdown(table),
        f"{name}.tex": latex(table),
    }
    return _write_texts({directory / file: text for file, text in texts.items()})


def _write_texts(texts: Mapping[Path, str]) -> list[Path]:
    """Write files so that a reader sees the old ones or the new ones.

    Raises FileAccessError where one cannot be written; then none is replaced.
    """
    try:
        # Each file is on the disk before the stack ends and the first one is replaced.
        with contextlib.ExitStack() as stack:
            for path, text in texts.items():
                unfinished = stack.enter_context(atomic_write(path))
                _write_through(text, unfinished)
    except OSError as error:
        raise FileAccessError(
            f"The tables cannot be written: {error}. Those that were there are unchanged."
        ) from error
    return list(texts)


def _write_through(text: str, path: Path) -> None:
    """Write a text to the disk itself, so that a full disk shows now."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _row_texts(row: Row) -> list[str]:
    """Return the texts of a row: accuracies, trained parameters, seeds."""
    accuracies = [to_text(value) for value in row.values.values()]
    return accuracies + row.summary_texts()


def _joined(columns: Sequence[Column]) -> list[str]:
    """Return the names of columns, each in one line."""
    return [f"{column.group} {column.label}" for column in columns]


def _methods_across(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Return a Markdown table with a line for each of the first columns of the rows."""
    texts_by_row = [_row_texts(row) for row in rows]
    lines = []
    group = ""
    for index, column in enumerate(columns):
        texts = [texts[index] for texts in texts_by_row]
        # A group is named in its first line only.
        shown_group = column.group if column.group != group else ""
        group = column.group
        lines.append([shown_group, column.label, *texts])
    labels = [row.label.replace("|", "\\|") for row in rows]
    return _markdown_table(lines, ["", "task", *labels], left=2)


def _means_down(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Return a Markdown table of means, with a line for each row."""
    mean_groups = (MEAN_OF_GROUP, MEAN_OF_TASKS.group)
    means = [column for column in columns if column.group in mean_groups]
    lines = []
    for row in rows:
        texts = [to_text(row.values[column]) for column in means]
        lines.append([row.label, *texts, *row.trainable.texts()])
    header = ["cited", *_joined([*means, *TRAINABLE_COLUMNS])]
    return _markdown_table(lines, header, left=1)


def _markdown_table(lines: Sequence[Sequence[str]], header: Sequence[str], left: int) -> str:
    """Return a Markdown table whose first columns, so many, are aligned to the left."""
    frame = pd.DataFrame(lines, columns=list(header))
    right = len(header) - left
    text = frame.to_markdown(
        index=False,
        disable_numparse=True,  # numbers are texts already
        colalign=["left"] * left + ["right"] * right,
    )
    return str(text)


def _to_csv(frame: pd.DataFrame) -> str:
    safe = frame.map(_quote_formula).rename(columns=_quote_formula)
    return safe.to_csv(index=False)


def _quote_formula(cell: object) -> object:
    """Return a cell that no spreadsheet runs: a text that begins like a formula gets a quote.

    Names of tasks, methods and variants may come from somebody else's records.
    """
    if not isinstance(cell, str) or not cell.lstrip().startswith(("=", "+", "-", "@")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a signed number
