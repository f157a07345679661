"""The figures of a table: what is drawn of its rows, and the captions below it."""

import importlib.util
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from san.errors import SanError
from san.record import Record, Status
from san.record_file import record_path
from san.report.adapter_scales import read_scales
from san.report.aggregate import MEAN_OF_GROUP, Column
from san.report.comparability import RowKey
from san.report.figures.accuracy_parameters import draw_accuracy_parameters
from san.report.figures.critical_difference import MethodRank, draw_critical_difference
from san.report.figures.group_bars import Bar, BarRow, draw_group_bars
from san.report.figures.learning_curves import Curve, draw_learning_curves
from san.report.figures.page import Drawing, Width
from san.report.figures.points import Interval, Kind, MethodPoint, Reservation
from san.report.figures.save import save_drawing
from san.report.figures.scales import draw_scales
from san.report.rows import Row
from san.report.selection import Selection
from san.report.table import Table
from san.report.value import Flag, Value
from san.report.verdict import main_column
from san.runtime.files import write_text

_MOST_ROWS = 8  # of ours in one picture of bars or curves


def draw_table(
    table: Table,
    selection: Selection,
    records: Sequence[Record],
    results: Path,
) -> list[Path]:
    """Draw what a table shows into `results/figures`, each figure as PDF and PNG; return the paths.

    records: all that there are, for learning curves; their adapters lie beside them. Nothing is
    drawn where matplotlib is not installed. Raises FileAccessError where a file cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return []
    directory = results / "figures"
    paths = []
    captions = []
    for name, drawing in _drawings(table, selection, records, results):
        if drawing is not None:
            paths += save_drawing(drawing, directory, name)
            captions.append(f"![]({name}.png)\n\n{drawing.caption}\n")
    if captions:
        page = directory / f"{table.name}.md"
        write_text("\n".join([f"# Figures: {table.title}\n", *captions]), page)
        paths.append(page)
    return paths


def _drawings(
    table: Table, selection: Selection, records: Sequence[Record], results: Path
) -> Iterator[tuple[str, Drawing | None]]:
    """Yield each figure with the name of its files."""
    points = [*_points(table, table.ours.rows), *_points(table, table.published.rows)]
    what = f"{table.suite.means[0]}, percent"
    for suffix, width in (("", Width.ONE_COLUMN), ("_wide", Width.TWO_COLUMNS)):
        chart = draw_accuracy_parameters(points, 0.0, what, width)
        yield f"{table.name}_parameters{suffix}", chart
    yield f"{table.name}_ranks", _draw_ranks(table)
    yield f"{table.name}_groups", _draw_groups(table, selection)
    runs = [r for r in records if r.suite == table.suite.name and r.backbone == table.backbone]
    yield f"{table.name}_curves", _draw_curves(selection, runs)
    yield f"{table.name}_scales", _draw_scales(runs, results / "records")


def _points(table: Table, rows: Sequence[Row]) -> Iterator[MethodPoint]:
    """Yield the rows whose mean over all tasks is known."""
    column = main_column(table.suite)
    for row in rows:
        value = row.values[column]
        if not value.exists:
            continue
        count = row.trainable.without_head
        yield MethodPoint(
            label=row.name,
            kind=Kind.OURS if row.key is not None else Kind.PUBLISHED,
            accuracy=value.mean,
            parameters=None if math.isnan(count) else count,
            interval=_over_seeds(value),
            reservations=tuple(_reservations(row.flags | value.flags)),
            ranked=value.is_compared,
            important=row.published is not None and bool(row.published.our_method),
        )


def _reservations(flags: Collection[Flag]) -> Iterator[Reservation]:
    for flag in Flag:
        if flag in flags:
            yield Reservation(flag.mark, flag.legend)


def _over_seeds(value: Value) -> Interval | None:
    """Return one standard deviation over seeds to both sides, where it is known."""
    if math.isnan(value.std):
        return None
    return Interval(value.mean - value.std, value.mean + value.std)


def _draw_ranks(table: Table) -> Drawing | None:
    """Draw the average ranks of our rows, or of the published ones where we have none."""
    for verdict in (table.verdict, *table.published_verdicts):
        if verdict.ranks is None:
            continue
        names = [standing.row.name for standing in verdict.standings]
        averages = zip(names, verdict.ranks.average_ranks, strict=True)
        ranks = [MethodRank(name, rank) for name, rank in averages]
        groups = []
        for bar in verdict.ranks.bars:
            groups.append([names[index] for index in bar])
        return draw_critical_difference(ranks, verdict.ranks.critical_difference, groups)
    return None


def _draw_groups(table: Table, selection: Selection) -> Drawing | None:
    """Draw the means of groups of our rows."""
    groups = [column for column in table.columns if column.group == MEAN_OF_GROUP]
    rows = []
    for row in selection.ours:
        if all(row.values[column].exists for column in groups):
            rows.append(BarRow(row.label, [_bar(row, column) for column in groups]))
    return draw_group_bars([column.label for column in groups], rows[:_MOST_ROWS])


def _bar(row: Row, column: Column) -> Bar:
    value = row.values[column]
    return Bar(value.mean, _over_seeds(value))


def _draw_curves(selection: Selection, records: Sequence[Record]) -> Drawing | None:
    """Draw the training loss of our rows by epoch, the mean over their runs."""
    curves = []
    for row in selection.ours:
        runs = [r for r in records if _row_of(r) == row.key and r.status == Status.DONE]
        curve = _mean_curve(row.name, runs)
        if curve is not None:
            curves.append(curve)
    return draw_learning_curves(curves[:_MOST_ROWS])


def _row_of(r: Record) -> RowKey:
    return RowKey(r.method, r.variant, r.protocol)


def _mean_curve(label: str, runs: Sequence[Record]) -> Curve | None:
    """Return the mean loss of the runs by epoch; None where losses were not kept by all."""
    lengths = {len(r.history) for r in runs}
    losses = [_losses(r) for r in runs]
    if len(lengths) != 1 or {len(of_run) for of_run in losses} != lengths or lengths == {0}:
        return None
    means = np.mean(losses, axis=0).tolist()
    epochs = {tuple(_evaluated_epochs(r)) for r in runs}
    if len(epochs) != 1:
        return Curve(label, range(1, len(means) + 1), means)
    accuracies = np.mean([_accuracies(r) for r in runs], axis=0).tolist()
    return Curve(label, range(1, len(means) + 1), means, epochs.pop(), accuracies)


def _losses(r: Record) -> list[float]:
    """Return the training losses that were kept."""
    return [entry.train_loss for entry in r.history if entry.train_loss is not None]


def _evaluated_epochs(r: Record) -> list[int]:
    return [score.epoch for score in r.curve]


def _accuracies(r: Record) -> list[float]:
    return [score.accuracy for score in r.curve]


def _draw_scales(runs: Sequence[Record], records: Path) -> Drawing | None:
    """Draw the scales of the first run of SAN whose adapter was saved."""
    for r in runs:
        path = record_path(records, r.suite, r.method, r.task, r.seed, r.id)
        adapter = path.with_suffix(".safetensors")
        if r.method.startswith("san") and adapter.is_file():
            try:
                return draw_scales(read_scales(adapter), notes=[f"{r.method} on {r.task}"])
            except SanError:  # an adapter of another version; the table does not need it
                continue
    return None
