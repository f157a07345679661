r"""Tables for papers, for `\input` alone: environment, caption and label are in the file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

from san.report.effort import effort_columns
from san.report.emphasis import Emphasis
from san.report.latex_grid import Cell, Grid, Head, Line, Part, Span, choose_layout
from san.report.latex_tabular import tabular
from san.report.latex_text import command, escape_comment
from san.report.means import (
    LOWER_IS_BETTER,
    MEAN_CORRUPTION_ERROR,
    MEAN_OF_GROUP,
    MEAN_OF_GROUPS,
    MEAN_OF_TASKS,
    Column,
)
from san.report.rows import Row
from san.report.value import CellStatus, Flag, Value, format_absent, marks

_PARAMETERS = Head("Params (M)")
_MEAN_OF = "Mean of"
_OVERALL_MEANS = {
    MEAN_OF_TASKS: "All tasks",
    MEAN_OF_GROUPS: "Groups",
    MEAN_CORRUPTION_ERROR: "mCE ↓",
}
_GROUPS_OF_MEANS = (MEAN_OF_GROUP, MEAN_OF_TASKS.group)
# A table that is wider than the line is scaled down to it.
_SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


@dataclass(frozen=True)
class PaperStyle:
    """How a table for a paper looks.

    columns: of accuracies, in order. group_labels: how papers write groups, where not as we do.
    decimals: of accuracies. with_spread: print the standard deviation over seeds. with_cost: print
    device-hours and energy, where known. is_transposed: methods across.
    """

    columns: Sequence[Column]
    group_labels: Mapping[str, str]
    decimals: int = 1
    with_spread: bool = False
    with_cost: bool = False
    is_transposed: bool = False

    def group_label(self, group: str) -> str:
        """Return how papers write a group."""
        return self.group_labels.get(group, group[:1].upper() + group[1:])


@dataclass(frozen=True)
class Block:
    """Rows between two rules, with the names that papers give them and what is set off.

    title: what they are; nothing where that is plain, or the same as of the block before.
    emphasis: by index of the row and column.
    """

    title: str
    rows: Sequence[Row]
    names: Sequence[Head]
    emphasis: Mapping[tuple[int, Column], Emphasis]


@dataclass(frozen=True)
class PaperTexts:
    """What stands around a table. captions: LaTeX; comments: lines above it."""

    caption: str
    short_caption: str
    label: str
    comments: Sequence[str]


@dataclass(frozen=True)
class _Group:
    """Columns of accuracies below a title, or without one, and what they are called."""

    title: str
    columns: Sequence[Column]
    heads: Sequence[str]


def latex(blocks: Sequence[Block], style: PaperStyle, texts: PaperTexts) -> str:
    """Return a floating table that fits a column of the page, or the page."""
    grid = _transposed_grid(blocks, style) if style.is_transposed else _grid(blocks, style)
    layout = choose_layout(grid, may_be_stacked=style.with_spread and not style.is_transposed)
    lines = [
        *map(escape_comment, texts.comments),
        command("begin", layout.environment) + "[t]",
        r"\providecommand{\citep}{\cite}",
        r"\centering",
        command(f"caption[{texts.short_caption}]", texts.caption),
        command("label", texts.label),
        command("fontsize", layout.size, f"{1.2 * layout.size:.1f}") + r"\selectfont",
        r"\renewcommand{\bfdefault}{b}% Computer Modern's bx is wider than other digits",
        r"\setlength{\abovetopsep}{3pt}",
        r"\sisetup{detect-all,table-number-alignment=right,table-text-alignment=right}",
        _SHRINK,
        *tabular(grid, layout),
        r"}",
        command("end", layout.environment),
    ]
    return "\n".join(lines) + "\n"


def cell_flags(row: Row, column: Column) -> frozenset[Flag]:
    """Return the flags whose marks stand at a number of a row, and not at its name."""
    value = row.values[column]
    flags = value.visible_flags
    if value.exists and value.status not in (CellStatus.DONE, CellStatus.MISSING):
        flags |= {Flag.OTHER_SEEDS}
    return flags - row.flags


def _grid(blocks: Sequence[Block], style: PaperStyle) -> Grid:
    """Return a table with methods down."""
    groups = list(_groups(style))
    summaries = _summaries(blocks, style)
    heads = [line.head for line in summaries]
    summaries_by_row = zip(*[line.cells for line in summaries], strict=True)
    parts = []
    for block in blocks:
        lines = []
        for index, name in enumerate(block.names):
            cells = [_cell(block, index, column, style) for column in style.columns]
            lines.append(Line(name, [*next(summaries_by_row), *cells]))
        parts.append(Part(block.title, lines))
    spans = [Span("", len(heads)), *[Span(group.title, len(group.columns)) for group in groups]]
    return Grid(
        spans=spans,
        heads=[*heads, *[Head(head) for group in groups for head in group.heads]],
        breaks=_breaks(spans),
        parts=parts,
    )


def _transposed_grid(blocks: Sequence[Block], style: PaperStyle) -> Grid:
    """Return a table with methods across and a line for each task."""
    spans = [Span(block.title, len(block.rows)) for block in blocks]
    above = []
    for line in _summaries(blocks, style):
        apart = [replace(cell, is_apart=True) for cell in line.cells]
        above.append(replace(line, cells=apart))
    parts = [Part("", above)]
    for group in _groups(style):
        lines = []
        for column, head in zip(group.columns, group.heads, strict=True):
            cells = []
            for block in blocks:
                cells += [_cell(block, index, column, style) for index in range(len(block.rows))]
            lines.append(Line(Head(head), cells))
        parts.append(Part(group.title, lines))
    return Grid(
        spans=_joined(spans),
        heads=[name for block in blocks for name in block.names],
        breaks=_breaks(spans),
        parts=parts,
    )


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Return spans of which each takes in those behind it that have no title."""
    joined: list[Span] = []
    for span in spans:
        if joined and not span.title:
            joined[-1] = replace(joined[-1], columns=joined[-1].columns + span.columns)
        else:
            joined.append(span)
    return joined


def _breaks(spans: Sequence[Span]) -> frozenset[int]:
    """Return the last column of each span, but for the last one."""
    ends = accumulate(span.columns for span in spans)
    return frozenset(end - 1 for end in list(ends)[:-1])


def _groups(style: PaperStyle) -> Iterator[_Group]:
    """Yield the columns of accuracies by group; the mean of a group stands among its tasks."""
    columns = style.columns
    tasks = {column.group for column in columns if column.group not in _GROUPS_OF_MEANS}
    means = [column for column in columns if column.group in _GROUPS_OF_MEANS]
    if not tasks:
        heads = [style.group_label(column.label) for column in columns]
        heads = [_OVERALL_MEANS.get(c, head) for c, head in zip(columns, heads, strict=True)]
        yield _Group(_MEAN_OF, columns, heads)
    elif len(tasks) == 1 and means == [MEAN_OF_TASKS]:
        heads = ["Mean" if column in means else column.label for column in columns]
        yield _Group("", columns, heads)
    else:
        for title, found in groupby(columns, lambda column: _title(column, style)):
            of_group = list(found)
            yield _Group(title, of_group, [_head(column) for column in of_group])


def _title(column: Column, style: PaperStyle) -> str:
    """Return what stands above a column."""
    if column in _OVERALL_MEANS:
        return _MEAN_OF if column not in LOWER_IS_BETTER else ""
    group = column.label if column.group == MEAN_OF_GROUP else column.group
    return style.group_label(group)


def _head(column: Column) -> str:
    """Return what a column is called below its group."""
    if column.group == MEAN_OF_GROUP:
        return "Mean"
    return _OVERALL_MEANS.get(column, column.label)


def _summaries(blocks: Sequence[Block], style: PaperStyle) -> list[Line]:
    """Return what stands before the accuracies, with a cell for each row of all blocks."""
    rows = [row for block in blocks for row in block.rows]
    lines = [Line(_PARAMETERS, [_parameters(row) for row in rows])]
    for effort in effort_columns(rows, with_cost=style.with_cost):
        cells = [Cell(words=text) for text in effort.texts]
        lines.append(Line(Head(effort.head), cells))
    return lines


def _parameters(row: Row) -> Cell:
    """Return the trained parameters in millions."""
    text = row.trainable.in_millions_text()
    return Cell(text) if text.replace(".", "").isdigit() else Cell(words=text)


def _cell(block: Block, index: int, column: Column, style: PaperStyle) -> Cell:
    """Return the value of a row of a block."""
    row = block.rows[index]
    value = row.values[column]
    if not value.exists:
        return Cell(words=_words(value))
    has_spread = style.with_spread and not math.isnan(value.std)
    return Cell(
        number=_number(value.mean, style.decimals),
        spread=_number(value.std, style.decimals) if has_spread else "",
        marks=marks(cell_flags(row, column)),
        emphasis=block.emphasis.get((index, column), Emphasis.NONE),
    )


def _words(value: Value) -> str:
    """Return what stands in place of a number, in a word that fits a column."""
    is_mixed = value.status is CellStatus.OOM_AND_FAILED
    return str(CellStatus.FAILED) if is_mixed else format_absent(value)


def _number(number: float, decimals: int) -> str:
    """Return a rounded number; one that rounds to zero has no sign."""
    return f"{round(number, decimals) + 0.0:.{decimals}f}"
