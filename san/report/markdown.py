"""Tables for people: the verdict first, then the rows, the best one first.

what the table says, in sentences
our rows     means, trained parameters, seeds, trials and costs where known, the difference from the
             reference and its p
their tasks  six rows across
published    means, and ours minus them
what rows that were tuned otherwise say, and published rows, for each class that can be compared
the legend: marks, what differs between rows, what was left out
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from san.report.effort import effort_columns
from san.report.emphasis import Emphasis, emphasize
from san.report.markdown_grid import to_markdown
from san.report.means import MEAN_OF_GROUP, Column, mean_columns
from san.report.rows import Row
from san.report.selection import Selection
from san.report.standings import Standing, Standings
from san.report.table import Table
from san.report.value import Value, to_text

_ROWS_ACROSS = 6  # so many fit a wide terminal
_LINE = 100
_EMPHASIS = {
    Emphasis.NONE: "",
    Emphasis.NOT_TOLD_APART: "**",
    Emphasis.BEST: "***",
    Emphasis.BEST_UNTESTED: "*",
}
_LEGEND = (
    "*Italic*: the best of a column; **bold**: not told apart from it at 5 % (means: over tasks; "
    "tasks: over test images and seeds); nothing is bold where so few tasks could tell no row "
    "apart."
)
_NOT_RANKED = " Baselines are not ranked."


def markdown(table: Table, selection: Selection) -> str:
    """Return what the table says, then its rows, in Markdown that a terminal can show.

    First the means of our rows, the best one first; then their tasks; then published rows, with
    what ours are above them. The files have every cell.
    """
    parts = [f"**{table.title}**, top-1 accuracy in percent\n"]
    if selection.ours:
        parts.append(_list(table.verdict.sentences))
        parts.append(_our_means(table, selection))
        parts += _our_tasks(table, selection)
    if selection.published:
        parts.append(_published_means(table, selection))
    shown = [id(row) for row in selection.ours]
    shown += [id(row) for row in selection.published]
    for verdict in (*table.other_verdicts, *table.published_verdicts):
        # What is said of rows that are not shown helps nobody.
        ranked = verdict.standings.ranked
        if not any(id(standing.row) in shown for standing in ranked):
            continue
        parts.append(f"\nRows {verdict.title}:\n")
        parts.append(_list(verdict.sentences))
    parts.append("")
    parts += _notes(table, selection)
    return "\n".join(parts).rstrip() + "\n"


def _list(sentences: Sequence[str]) -> str:
    """Return sentences as a list, in lines that fit a terminal."""
    items = []
    for text in sentences:
        item = textwrap.fill(f"- {text}", _LINE, subsequent_indent="  ", break_on_hyphens=False)
        items.append(item)
    return "\n".join(items) + "\n"


def _notes(table: Table, selection: Selection) -> list[str]:
    """Return what explains the table."""
    notes = [effort.note for effort in effort_columns(selection.ours)]
    notes += table.notes
    if len(selection.ours) > 1:
        legend = _LEGEND
        if table.suite.baselines:
            legend += _NOT_RANKED
        notes.insert(0, legend)
    return [textwrap.fill(note, _LINE, break_on_hyphens=False) for note in notes]


def _our_means(table: Table, selection: Selection) -> str:
    """Return the means of our rows, their costs, and how they stand to the reference."""
    means = _shown_means(table, selection)
    emphasis = _emphasis(table)
    standings = _standings_by_row(table.verdict.standings)
    efforts = effort_columns(selection.ours)
    lines = []
    for index, row in enumerate(selection.ours):
        line = [row.label]
        for column in means:
            line.append(_text(row, column, emphasis.get((id(row), column))))
        parameters, _, seeds = row.summary_texts()
        line += [parameters, seeds]
        line += [effort.texts[index] for effort in efforts]
        line += _against_reference(standings.get(id(row)))
        lines.append(line)
    reference = table.verdict.standings.reference
    less = "difference" if reference is None else f"{reference.name} minus it"
    titles = [effort.title for effort in efforts]
    header = _header("", means, "trained", "seeds", *titles, f"{less} [95 %]", "p")
    return to_markdown(lines, header, left=1)


def _our_tasks(table: Table, selection: Selection) -> Iterator[str]:
    """Yield the tasks of our rows, with so many rows across as a terminal can show."""
    means = mean_columns(table.suite)
    columns = [column for column in selection.columns if column not in means]
    if not columns:
        return
    emphasis = _emphasis(table)
    for start in range(0, len(selection.ours), _ROWS_ACROSS):
        rows = selection.ours[start : start + _ROWS_ACROSS]
        lines = []
        group = ""
        for column in columns:
            # A group is named in its first line only.
            shown_group = column.group if column.group != group else ""
            group = column.group
            line = [shown_group, column.label]
            for row in rows:
                line.append(_text(row, column, emphasis.get((id(row), column))))
            lines.append(line)
        header = ["", "task"]
        header += [row.label for row in rows]
        yield "\n" + to_markdown(lines, header, left=2)


def _published_means(table: Table, selection: Selection) -> str:
    """Return the means of published rows, with what ours are above those compared with them.

    Each of our shown rows of a method has a line of its own.
    """
    means = _shown_means(table, selection)
    shown = [id(row) for row in selection.ours]
    gaps = [gap for gap in table.gaps if id(gap.ours) in shown]
    lines = []
    for row in selection.published:
        line = [row.label]
        line += [_text(row, column) for column in means]
        line.append(row.trainable.in_millions_text())
        lines.append(line)
        for gap in gaps:
            if gap.published is row:
                line = [f"&emsp;{gap.ours.name} minus it"]
                line += [_text(gap.difference, column) for column in means]
                lines.append([*line, ""])
    header = _header("published", means, "trained, M")
    return "\n" + to_markdown(lines, header, left=1)


def _emphasis(table: Table) -> dict[tuple[int, Column], Emphasis]:
    """Return what is set off, among all rows of ours, by the identity of the row and the column."""
    found = emphasize(table.suite, table.ours.rows)
    rows = table.ours.rows
    return {(id(rows[index]), column): emphasis for (index, column), emphasis in found.items()}


def _shown_means(table: Table, selection: Selection) -> list[Column]:
    """Return the columns of means, the overall ones first."""
    means = [column for column in mean_columns(table.suite) if column in selection.columns]
    return sorted(means, key=lambda column: column.group == MEAN_OF_GROUP)


def _header(first: str, means: Sequence[Column], *others: str) -> list[str]:
    """Return the titles of a table of means."""
    titles = [first]
    for column in means:
        is_of_group = column.group == MEAN_OF_GROUP
        titles.append(column.label if is_of_group else f"{column.group} {column.label}")
    titles += others
    return titles


def _standings_by_row(found: Standings) -> Mapping[int, Standing]:
    """Return how each row stands, by the identity of the row."""
    return {id(standing.row): standing for standing in (*found.ranked, *found.baselines)}


def _against_reference(standing: Standing | None) -> list[str]:
    """Return the difference from the reference with its interval, and p.

    standing: None of a row that is not compared.
    """
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
