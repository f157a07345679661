"""Tables for papers."""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from san.report.aggregate import LOWER_IS_BETTER, SUMMARY_COLUMNS, Column
from san.report.rows import Row
from san.report.table import Section, Table
from san.report.value import (
    MISSING,
    CellStatus,
    Flag,
    Value,
    format_absent,
    format_number,
    format_remarks,
)

# A value with one of these takes no part in the ranking.
_NOT_RANKED = {Flag.CHOSEN_ON_TEST, Flag.UNVERIFIED_DATA, Flag.CONFLICT, Flag.FEWER_SEEDS}
_ESCAPES = str.maketrans(
    {
        "†": r"\textdagger{}",
        "‡": r"\textdaggerdbl{}",
        "§": r"\S{}",
        "¶": r"\P{}",
        "‖": r"\textbardbl{}",
        "◦": r"\textopenbullet{}",
        "*": r"\textasteriskcentered{}",
        MISSING: "--",
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "$": r"\$",
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
    }
)


class Emphasis(StrEnum):
    """How a value is set off from the others of its column."""

    BEST = r"\textbf"
    SECOND = r"\underline"


def latex(table: Table) -> str:
    r"""Return the table for LaTeX, ready for `\input` in a `table*`: it is as wide as the line.

    Needs booktabs, graphicx and textcomp. Of what was run again the best value of a column is bold
    and the second underlined. Values that were chosen on the test split, are of unverified data, in
    conflict or lack seeds take no part.
    """
    columns = [*table.columns, *SUMMARY_COLUMNS]
    lines = [
        r"\resizebox{\linewidth}{!}{\setlength{\tabcolsep}{3pt}%",
        rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        *_header_lines(columns),
        *_section_lines("Run again", table.ours, columns, _rank(table.ours, table.columns)),
        *_section_lines("Published", table.published, columns, {}),
        *_section_lines("Ours minus published", table.differences, columns, {}),
        r"\bottomrule",
        r"\end{tabular}}",
    ]
    if table.notes:
        notes = " ".join(escape_latex(note) for note in table.notes)
        lines.append(rf"\par\smallskip{{\footnotesize\raggedright {notes}\par}}")
    return "\n".join(lines) + "\n"


def to_latex(value: Value) -> str:
    """Return a value for LaTeX, its spread and seeds as indices."""
    if not value.exists:
        return escape_latex(format_absent(value))
    number = format_number(value)
    if number.startswith("-"):
        number = "$-$" + number[1:]
    if value.n > 1:
        number += rf"$_{{\pm{value.std:.2f}}}^{{{value.n}}}$"
    return number + escape_latex(format_remarks(value))


def escape_latex(text: str) -> str:
    """Return text in which the characters that LaTeX would misread are replaced."""
    return text.translate(_ESCAPES)


def _header_lines(columns: Sequence[Column]) -> list[str]:
    """Return the two lines of the header, with rules below the groups."""
    labels = [rf" & \rotatebox{{90}}{{{escape_latex(column.label)}}}" for column in columns]
    groups = ""
    rules = ""
    first = 2
    for group in dict.fromkeys(column.group for column in columns):
        width = sum(column.group == group for column in columns)
        groups += rf" & \multicolumn{{{width}}}{{c}}{{{escape_latex(group)}}}"
        rules += rf"\cmidrule(lr){{{first}-{first + width - 1}}}"
        first += width
    return [groups + r" \\", rules, "".join(labels) + r" \\"]


def _section_lines(
    title: str,
    section: Section,
    columns: Sequence[Column],
    emphasis: dict[tuple[int, Column], Emphasis],
) -> Iterator[str]:
    """Yield a title and a line for each row; nothing for a section without rows."""
    if not section.rows:
        return
    yield r"\midrule"
    yield rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{title}}}}} \\"
    for index, row in enumerate(section.rows):
        texts = [escape_latex(row.label)]
        for column, value in row.values.items():
            text = to_latex(value)
            command = emphasis.get((index, column))
            texts.append(f"{command}{{{text}}}" if command else text)
        texts += [escape_latex(text) for text in row.summary_texts()]
        yield " & ".join(texts) + r" \\"


def _rank(section: Section, columns: Sequence[Column]) -> dict[tuple[int, Column], Emphasis]:
    """Return which values, by index of their row and column, are the best and second best."""
    emphasis = {}
    for column in columns:
        # Values that are printed alike are equally good.
        ranked = {
            index: round(row.values[column].mean, 2)
            for index, row in enumerate(section.rows)
            if _is_ranked(row, column)
        }
        if len(ranked) < 2:
            continue
        order = sorted(set(ranked.values()), reverse=column not in LOWER_IS_BETTER)
        commands = dict(zip(order, Emphasis, strict=False))
        for index, mean in ranked.items():
            if mean in commands:
                emphasis[index, column] = commands[mean]
    return emphasis


def _is_ranked(row: Row, column: Column) -> bool:
    """Return whether a value may be called the best."""
    value = row.values[column]
    is_complete = value.exists and value.status is CellStatus.DONE
    return is_complete and not value.flags & _NOT_RANKED
