"""Tables for people: the verdict first, then the rows, the best one first."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from san.report.aggregate import MEAN_OF_GROUP, Column, mean_columns
from san.report.emphasis import Emphasis, emphasize
from san.report.rows import Row
from san.report.selection import Selection
from san.report.table import Table
from san.report.value import Value, to_text
from san.report.verdict import Standing, Verdict

_ROWS_ACROSS = 6  # so many fit a wide terminal
_LINE = 100
_EMPHASIS = {Emphasis.NONE: "", Emphasis.NOT_TOLD_APART: "**", Emphasis.BEST: "***"}
_LEGEND = (
    "***Bold italic***: the best of a column; **bold**: not told apart from it at 5 % (means: over "
    "tasks; tasks: over test images and seeds). Baselines are not ranked."
)


def markdown(table: Table, selection: Selection) -> str:
    """Return what the table says, then its rows, in Markdown that a terminal can show.

    First the means of our rows, the best one first; then their tasks; then published rows, with
    what ours are above them. The files have every cell.
    """
    parts = [f"**{table.title}**, top-1 accuracy in percent\n"]
    if selection.ours:
        parts += [_list(table.verdict.sentences), _our_means(table, selection)]
        parts += list(_our_tasks(table, selection))
    if selection.published:
        parts.append(_published_means(table, selection))
    for verdict in table.published_verdicts:
        parts += [f"\nWhat is {verdict.title}:\n", _list(verdict.sentences)]
    parts += ["", *_notes(table, selection)]
    return "\n".join(parts).rstrip() + "\n"


def _list(sentences: Sequence[str]) -> str:
    """Return sentences as a list, in lines that fit a terminal."""
    items = [textwrap.fill(f"- {text}", _LINE, subsequent_indent="  ") for text in sentences]
    return "\n".join(items) + "\n"


def _notes(table: Table, selection: Selection) -> list[str]:
    """Return what explains the table."""
    legend = [_LEGEND] if len(selection.ours) > 1 else []
    return [textwrap.fill(note, _LINE) for note in [*legend, *table.notes]]


def _our_means(table: Table, selection: Selection) -> str:
    """Return the means of our rows, their costs, and how they stand to the reference."""
    means = _shown_means(table, selection)
    emphasis = emphasize(table.suite, selection.ours)
    standings = _standings_by_row(table.verdict)
    lines = []
    for index, row in enumerate(selection.ours):
        accuracies = [_text(row, column, emphasis.get((index, column))) for column in means]
        parameters, _, seeds = row.summary_texts()
        standing = standings.get(id(row))
        lines.append([row.label, *accuracies, parameters, seeds, *_against_reference(standing)])
    reference = table.verdict.reference
    less = f"{reference.name} minus it" if reference is not None else "difference"
    titles = [_title(column) for column in means]
    return _to_markdown(lines, ["", *titles, "trained", "seeds", f"{less} [95 %]", "p"], left=1)


def _our_tasks(table: Table, selection: Selection) -> Iterator[str]:
    """Yield the tasks of our rows, with so many rows across as a terminal can show."""
    means = mean_columns(table.suite)
    columns = [column for column in selection.columns if column not in means]
    if not columns:
        return
    emphasis = emphasize(table.suite, selection.ours)
    for start in range(0, len(selection.ours), _ROWS_ACROSS):
        rows = selection.ours[start : start + _ROWS_ACROSS]
        lines = []
        group = ""
        for column in columns:
            cells = []
            for index, row in enumerate(rows, start):
                cells.append(_text(row, column, emphasis.get((index, column))))
            # A group is named in its first line only.
            shown_group = column.group if column.group != group else ""
            group = column.group
            lines.append([shown_group, column.label, *cells])
        yield "\n" + _to_markdown(lines, ["", "task", *[row.label for row in rows]], left=2)


def _published_means(table: Table, selection: Selection) -> str:
    """Return the means of published rows, with those of ours that are compared with them."""
    means = _shown_means(table, selection)
    gaps = {id(gap.published): gap.difference for gap in table.gaps}
    lines = []
    for row in selection.published:
        texts = [_text(row, column) for column in means]
        lines.append([row.label, *texts, row.trainable.in_millions_text()])
        if id(row) in gaps:
            difference = gaps[id(row)]
            ours = [_text(difference, column) for column in means]
            lines.append(["&emsp;ours minus it", *ours, ""])
    header = ["published", *[_title(column) for column in means], "trained, M"]
    return "\n" + _to_markdown(lines, header, left=1)


def _shown_means(table: Table, selection: Selection) -> list[Column]:
    """Return the columns of means, the overall ones first."""
    means = [column for column in mean_columns(table.suite) if column in selection.columns]
    return sorted(means, key=lambda column: column.group == MEAN_OF_GROUP)


def _title(column: Column) -> str:
    return column.label if column.group == MEAN_OF_GROUP else f"{column.group} {column.label}"


def _standings_by_row(verdict: Verdict) -> Mapping[int, Standing]:
    """Return how each row stands, by the identity of the row."""
    return {id(standing.row): standing for standing in (*verdict.standings, *verdict.baselines)}


def _against_reference(standing: Standing | None) -> list[str]:
    """Return the difference from the reference with its interval, and p."""
    if standing is None:
        return ["not compared", ""]
    if standing.comparison is None:
        return ["", ""]
    comparison = standing.comparison
    interval = comparison.interval
    between = f"[{interval.low:+.2f}, {interval.high:+.2f}]"
    return [f"{comparison.mean:+.2f} {between}", f"{standing.p:.2g}"]


def _text(row: Row, column: Column, emphasis: Emphasis | None = None) -> str:
    """Return a value, set off as its emphasis says."""
    value: Value = row.values.get(column, Value())
    stars = _EMPHASIS[emphasis or Emphasis.NONE]
    return f"{stars}{to_text(value)}{stars}"


def _to_markdown(lines: Sequence[Sequence[str]], header: Sequence[str], left: int) -> str:
    """Return a Markdown table whose first columns, so many, are aligned to the left."""
    safe = [_without_bars(line) for line in lines]
    # Two rows may have one name; a frame does not mind.
    frame = pd.DataFrame(safe, columns=_without_bars(header))
    text = frame.to_markdown(
        index=False,
        disable_numparse=True,  # numbers are texts already
        colalign=["left"] * left + ["right"] * (len(header) - left),
    )
    return str(text)


def _without_bars(texts: Sequence[str]) -> list[str]:
    """Return texts that end no cell of Markdown."""
    return [text.replace("|", "\\|") for text in texts]
