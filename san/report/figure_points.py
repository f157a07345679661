"""The rows of a table as points of a figure."""

import math
from collections.abc import Collection, Iterator, Sequence

from san.report.figures.points import Interval, Kind, MethodPoint, Reservation
from san.report.means import LOWER_IS_BETTER
from san.report.rows import Row
from san.report.standings import main_column
from san.report.table import Table
from san.report.value import Flag, Value

ERROR_BARS = "Error bars: 95 % intervals for the test images."


def points_of(table: Table) -> Iterator[MethodPoint]:
    """Yield the rows whose mean over all tasks is known."""
    column = main_column(table.suite)
    ranked = _ranked_rows(table)
    for row in (*table.ours.rows, *table.published.rows):
        value = row.values[column]
        if not value.exists:
            continue
        count = row.trainable.without_head
        is_compared = any(row is other for other in ranked)
        yield MethodPoint(
            label=row.name,
            kind=Kind.OURS if row.key is not None else Kind.PUBLISHED,
            accuracy=value.mean,
            parameters=None if math.isnan(count) else count,
            is_estimated=row.trainable.is_estimated,
            interval=interval_of(value) if row.key is not None else None,
            reservations=tuple(_reservations(row.flags | value.flags)),
            ranked=is_compared,
            important=row.published is not None and bool(row.published.our_method),
        )


def notes_on(points: Sequence[MethodPoint]) -> list[str]:
    """Return what error bars are, where there are some."""
    has_bars = any(point.interval is not None for point in points)
    return [ERROR_BARS] if has_bars else []


def _ranked_rows(table: Table) -> list[Row]:
    """Return the rows among which there is a front: ours, else the largest class of published.

    Rows of another protocol, or of one that is not known, are drawn and are not on the front.
    """
    if main_column(table.suite) in LOWER_IS_BETTER:
        return []
    verdicts = [table.verdict, *table.published_verdicts]
    found = [verdict for verdict in verdicts if len(verdict.standings.ranked) > 1]
    if not found:
        return []
    chosen = found[0]
    if chosen is not table.verdict:
        chosen = max(found, key=lambda verdict: len(verdict.standings.ranked))
    standings = (*chosen.standings.ranked, *chosen.standings.baselines)
    return [standing.row for standing in standings]


def _reservations(flags: Collection[Flag]) -> Iterator[Reservation]:
    """Yield marks with their sentences, in the order of the legend."""
    for flag in Flag:
        if flag in flags:
            yield Reservation(flag.mark, flag.legend)


def interval_of(value: Value) -> Interval | None:
    """Return the interval of a value for its test images, where it is known."""
    return None if math.isnan(value.low) else Interval(value.low, value.high)
