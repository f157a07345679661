"""The figures of a table, and a page of them with their captions.

<name>_parameters           accuracy against trained parameters
<name>_parameters_narrow    the same as wide as one column, for papers
<name>_ranks     average ranks over tasks with the critical difference
<name>_groups    means of groups
<name>_curves    training loss by epoch
<name>_scales    what SAN has learned, where an adapter was saved
<name>.md        all of them with their captions
"""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from san.errors import SanError
from san.record import Record
from san.record_file import record_path
from san.report.adapter_scales import read_scales
from san.report.aggregate import newest_done
from san.report.comparability import RowKey
from san.report.figure_points import ERROR_BARS, interval_of, notes_on, points_of
from san.report.figures.accuracy_parameters import draw_accuracy_parameters
from san.report.figures.critical_difference import MethodRank, draw_critical_difference
from san.report.figures.group_bars import Bar, BarRow, draw_group_bars
from san.report.figures.learning_curves import draw_learning_curves
from san.report.figures.page import Drawing, Width
from san.report.figures.save import save_drawing
from san.report.figures.scales import draw_scales
from san.report.mean_curve import mean_curve
from san.report.means import MEAN_OF_GROUP, Column
from san.report.rows import Row
from san.report.selection import Selection
from san.report.table import Table
from san.runtime.files import write_text

_MOST_ROWS = 8  # of ours in one picture of bars or curves


def draw_table(
    table: Table,
    selection: Selection,
    records: Sequence[Record],
    results: Path,
    *,
    for_paper: bool = False,
) -> list[Path]:
    """Draw what a table shows into `results/figures`, and return the paths.

    records: all that there are, for learning curves; their adapters lie beside them. for_paper:
    also as PDF, and the figure of parameters also as wide as one column. Nothing is
    drawn where matplotlib is not installed. Raises FileAccessError where a file cannot be written.
    """
    if not can_draw():
        return []
    directory = results / "figures"
    formats = ("pdf", "png") if for_paper else ("png",)
    widths = [Width.TWO_COLUMNS, Width.ONE_COLUMN] if for_paper else [Width.TWO_COLUMNS]
    paths = []
    captions = []
    for name, drawing in _drawings(table, selection, records, results, widths):
        if drawing is not None:
            paths += save_drawing(drawing, directory, name, formats)
            captions.append(f"![]({name}.png)\n\n{drawing.caption}\n")
    if captions:
        page = directory / f"{table.name}.md"
        write_text("\n".join([f"# Figures: {table.title}\n", *captions]), page)
        paths.append(page)
    return paths


def can_draw() -> bool:
    """Return whether the libraries of the extra `figures` are installed."""
    return all(importlib.util.find_spec(name) for name in ("matplotlib", "textalloc"))


def _drawings(
    table: Table,
    selection: Selection,
    records: Sequence[Record],
    results: Path,
    widths: Sequence[Width],
) -> Iterator[tuple[str, Drawing | None]]:
    """Yield each figure with the name of its files.

    A figure is None where there is nothing to draw.
    """
    points = list(points_of(table))
    what = f"{table.suite.means[0]}, percent"
    for width in widths:
        suffix = "" if width is Width.TWO_COLUMNS else "_narrow"
        notes = notes_on(points)
        chart = draw_accuracy_parameters(points, what, width, notes)
        yield f"{table.name}_parameters{suffix}", chart
    yield f"{table.name}_ranks", _draw_ranks(table)
    yield f"{table.name}_groups", _draw_groups(table, selection)
    runs = [_runs_of(table, row, records) for row in selection.ours]
    yield f"{table.name}_curves", _draw_curves(selection.ours, runs)
    yield f"{table.name}_scales", _draw_scales(table, selection.ours, runs, results / "records")


def _draw_ranks(table: Table) -> Drawing | None:
    """Draw the average ranks of our rows, or of the published ones where we have none."""
    for verdict in (table.verdict, *table.other_verdicts, *table.published_verdicts):
        found = verdict.standings
        if found.ranks is None:
            continue
        names = [standing.row.name for standing in found.ranked]
        averages = zip(names, found.ranks.average_ranks, strict=True)
        ranks = [MethodRank(name, rank) for name, rank in averages]
        groups = []
        for bar in found.ranks.bars:
            groups.append([names[index] for index in bar])
        critical_difference = found.ranks.critical_difference
        width = Width.TWO_COLUMNS if len(names) > _MOST_ROWS else Width.ONE_COLUMN
        return draw_critical_difference(ranks, critical_difference, groups, width)
    return None


def _draw_groups(table: Table, selection: Selection) -> Drawing | None:
    """Draw the means of groups of our rows."""
    groups = [column for column in table.columns if column.group == MEAN_OF_GROUP]
    rows = []
    for row in selection.ours:
        if all(row.values[column].exists for column in groups):
            rows.append(BarRow(row.name, [_bar(row, column) for column in groups]))
    notes = _cut_note(rows)
    if any(bar is not None and bar.interval is not None for row in rows for bar in row.bars):
        notes.append(ERROR_BARS)
    labels = [column.label for column in groups]
    return draw_group_bars(labels, rows[:_MOST_ROWS], notes=notes)


def _cut_note(rows: Sequence[object]) -> list[str]:
    """Say how many rows are drawn, where there are more."""
    return [f"The first {_MOST_ROWS} of {len(rows)} rows."] if len(rows) > _MOST_ROWS else []


def _bar(row: Row, column: Column) -> Bar:
    """Return the bar of a mean, with its interval."""
    value = row.values[column]
    return Bar(value.mean, interval_of(value))


def _runs_of(table: Table, row: Row, records: Sequence[Record]) -> list[Record]:
    """Return the runs behind the cells of a row of ours: one for each task and seed."""
    by_task: dict[str, list[Record]] = {task: [] for task in table.suite.tasks}
    for r in records:
        is_of_table = (r.suite, r.backbone) == (table.suite.name, table.backbone)
        is_of_row = RowKey.of(r) == row.key
        if is_of_table and is_of_row and r.evaluated_on == table.split and r.task in by_task:
            by_task[r.task].append(r)
    found: list[Record] = []
    for runs in by_task.values():
        found += newest_done(runs)
    return found


def _draw_curves(rows: Sequence[Row], runs: Sequence[Sequence[Record]]) -> Drawing | None:
    """Draw the training loss of our rows by epoch, the mean over their runs."""
    curves = []
    for row, of_row in zip(rows, runs, strict=True):
        curve = mean_curve(row.name, of_row)
        if curve is not None:
            curves.append(curve)
    return draw_learning_curves(curves[:_MOST_ROWS], notes=_cut_note(curves))


def _draw_scales(
    table: Table, rows: Sequence[Row], runs: Sequence[Sequence[Record]], records: Path
) -> Drawing | None:
    """Draw the scales of the first shown run whose saved adapter has some.

    The row that the others are compared with comes first.
    """
    pairs = list(zip(rows, runs, strict=True))
    reference = table.verdict.standings.reference
    pairs.sort(key=lambda pair: pair[0] is not reference)
    for row, r in ((row, r) for row, of_row in pairs for r in of_row):
        path = record_path(records, r.suite, r.method, r.task, r.seed, r.id)
        adapter = path.with_suffix(".safetensors")
        if adapter.is_file():
            try:
                return draw_scales(
                    read_scales(adapter), notes=[f"{row.name} on {r.task}, seed {r.seed}"]
                )
            except SanError:  # of a method without scales; the table does not need it
                continue
    return None
