"""The files of a table: CSV for programs, Markdown for people, LaTeX for papers."""

import contextlib
import importlib.util
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from san.errors import FileAccessError
from san.report.markdown import markdown
from san.report.paper import PaperOptions, paper_bibtex, paper_latex
from san.report.rows import Row
from san.report.selection import Selection, Wanted, select
from san.report.standings import Standing
from san.report.table import Table
from san.report.tidy import CELL_COLUMNS, RUN_COLUMNS
from san.runtime.files import atomic_write
from san.runtime.formatting import quote_formula

_WIDE_KEYS = ["kind", "row", "method", "settings", "protocol"]
_COMPARISON_COLUMNS = (
    "suite",
    "backbone",
    "compared",
    "reference",
    "row",
    "method",
    "settings",
    "protocol",
    "is_baseline",
    "row_mean",
    "reference_minus_row",
    "low",
    "high",
    "reference_wins",
    "ties",
    "reference_losses",
    "p",
    "p_holm",
    "probability_reference_better",
    "probability_practically_equal",
    "probability_reference_worse",
)


def cells_frame(table: Table) -> pd.DataFrame:
    """Return a line for each value: tasks and means, ours and published."""
    return pd.DataFrame(table.cells, columns=list(CELL_COLUMNS))


def runs_frame(table: Table) -> pd.DataFrame:
    """Return a line for each run."""
    if not table.runs:
        return pd.DataFrame(columns=list(RUN_COLUMNS))
    return pd.DataFrame(table.runs)


def _comparisons_frame(table: Table) -> pd.DataFrame:
    """Return a line for each row that is compared with a reference: the reference minus it."""
    lines = []
    for verdict in (table.verdict, *table.other_verdicts, *table.published_verdicts):
        found = verdict.standings
        for standing in (*found.ranked, *found.baselines):
            if standing.comparison is not None and found.reference is not None:
                keys = {
                    "suite": table.suite.name,
                    "backbone": table.backbone,
                    "compared": verdict.title,
                    "reference": found.reference.name,
                }
                lines.append({**keys, **_comparison_line(standing)})
    return pd.DataFrame(lines, columns=list(_COMPARISON_COLUMNS))


def write_table(
    table: Table,
    directory: Path,
    selection: Selection | None = None,
    options: PaperOptions | None = None,
) -> list[Path]:
    """Write the files of a table, which are named by it; return their paths.

    `<name>.csv` has a line for each row, `_cells.csv`, `_runs.csv`, `_comparisons.csv` one for each
    value, run and comparison; those of values and runs are there as Parquet, too, with pyarrow.
    `.md` is for people; `.tex`, with its `.bib`, for papers. selection: what the last ones show.
    Raises FileAccessError where one of them cannot be written; then none is replaced.
    """
    selection = selection or select(table, Wanted())
    options = options or PaperOptions()
    frames = {"cells": cells_frame(table), "runs": runs_frame(table)}
    frames["comparisons"] = _comparisons_frame(table)
    contents = {f"{table.name}.csv": _to_csv(_wide_frame(frames["cells"]))}
    for name, frame in frames.items():
        contents[f"{table.name}_{name}.csv"] = _to_csv(frame)
    contents[f"{table.name}.md"] = markdown(table, selection).encode()
    contents[f"{table.name}.tex"] = paper_latex(table, selection, options).encode()
    contents[f"{table.name}.bib"] = paper_bibtex(table, selection).encode()
    contents |= dict(_parquet_files(table.name, frames))
    return _write_all({directory / file: content for file, content in contents.items()})


def _comparison_line(standing: Standing) -> dict[str, object]:
    comparison = standing.comparison
    assert comparison is not None
    return {
        "row": standing.row.name,
        **_keys(standing.row),
        "is_baseline": standing.row.is_baseline,
        "row_mean": standing.mean,
        "reference_minus_row": comparison.mean,
        "low": comparison.interval.low,
        "high": comparison.interval.high,
        "reference_wins": comparison.wins,
        "ties": comparison.ties,
        "reference_losses": comparison.losses,
        "p": comparison.p,
        "p_holm": standing.p,
        "probability_reference_better": comparison.posterior.better,
        "probability_practically_equal": comparison.posterior.practically_equal,
        "probability_reference_worse": comparison.posterior.worse,
    }


def _keys(row: Row) -> dict[str, object]:
    """Return the stable keys of a row, as the file of cells has them."""
    if row.key is None:
        return {"method": row.published.our_method if row.published is not None else ""}
    return {
        "method": row.key.method,
        "settings": row.key.variant,
        "protocol": row.key.protocol,
    }


def _wide_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each row, with a column for each task and mean: numbers alone."""
    shown = cells[cells["kind"] != "quoted"].copy()
    names = shown["task"].where(shown["task"] != "", shown["statistic"] + " " + shown["group"])
    shown["column"] = names.str.strip()
    shown[_WIDE_KEYS] = shown[_WIDE_KEYS].astype("string").fillna("")
    wide = shown.pivot_table(
        index=_WIDE_KEYS, columns="column", values="mean", sort=False, dropna=False, observed=True
    )
    return wide.dropna(how="all").reset_index()


def _parquet_files(name: str, frames: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the Parquet files; nothing where pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        return
    for kind in ("cells", "runs"):
        buffer = io.BytesIO()
        frames[kind].convert_dtypes().to_parquet(buffer, index=False)
        yield f"{name}_{kind}.parquet", buffer.getvalue()


def _write_all(contents: Mapping[Path, bytes]) -> list[Path]:
    """Write files so that a reader sees the old ones or the new ones.

    Raises FileAccessError where one cannot be written; then none is replaced.
    """
    try:
        # Each file is on the disk before the stack ends and the first one is replaced.
        with contextlib.ExitStack() as stack:
            for path, content in contents.items():
                unfinished = stack.enter_context(atomic_write(path))
                _write_through(content, unfinished)
    except OSError as error:
        raise FileAccessError(
            f"The tables cannot be written: {error}. Those that were there are unchanged."
        ) from error
    return list(contents)


def _write_through(content: bytes, path: Path) -> None:
    """Write to the disk itself, so that a full disk shows now."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _to_csv(frame: pd.DataFrame) -> bytes:
    safe = frame.map(quote_formula).rename(columns=quote_formula)
    return safe.to_csv(index=False).encode()
