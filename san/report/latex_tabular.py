"""A grid as a tabular environment, with siunitx's columns.

Numbers stand at the right edge of their columns, as they have the same decimals. So does what is
more than a number, and therefore in braces: it is aligned with the others whatever siunitx parses.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

from san.report.emphasis import Emphasis
from san.report.latex_grid import Cell, Grid, Head, Layout, Line, superscript
from san.report.latex_text import command, escape_latex

_PLUS_MINUS = r"${}\pm{}$"


def tabular(grid: Grid, layout: Layout) -> Iterator[str]:
    """Yield the lines of the environment."""
    names = "@{}l" + _space(2 * layout.gap)
    yield command("begin", "tabular", names + _number_columns(grid, layout))
    yield r"\toprule"
    yield from _spans(grid, layout)
    yield _heads(grid, layout)
    for part in grid.parts:
        yield r"\midrule"
        if part.title:
            title = command("emph", escape_latex(part.title))
            yield _row([command("multicolumn", len(grid.heads) + 1, "@{}l@{}", title)])
        for line in part.lines:
            yield from _line(line, grid, layout)
    yield r"\bottomrule"
    yield command("end", "tabular")


def _number_columns(grid: Grid, layout: Layout) -> str:
    """Return the columns of numbers: equal ones that follow each other together."""
    columns = []
    for index in range(len(grid.heads)):
        number_format = grid.number_format(index)
        space = _space(layout.space_behind(grid, index))
        columns.append(f"S[table-format={number_format}]{space}")
    together = []
    for column, found in groupby(columns):
        count = len(list(found))
        together.append(column if count == 1 else f"*{{{count}}}{{{column}}}")
    return "".join(together)


def _space(points: float) -> str:
    """Return what stands between columns in place of LaTeX's own space."""
    space = command("hspace", f"{points:.1f}pt") if points else ""
    return f"@{{{space}}}"


def _spans(grid: Grid, layout: Layout) -> Iterator[str]:
    """Yield the titles above columns, and rules that are as wide as the numbers below them."""
    if not any(span.title for span in grid.spans):
        return
    titles = [""]
    rules = ""
    end = 1  # the column of names
    for span in grid.spans:
        first = end + 1
        end += span.columns
        space = layout.space_behind(grid, end - 2)
        title = escape_latex(span.title)
        titles.append(command("multicolumn", span.columns, "@{}c" + _space(space), title))
        if title:
            rules += command(rf"cmidrule(r{{{space:.1f}pt}})", f"{first}-{end}")
    yield _row(titles)
    yield rules


def _heads(grid: Grid, layout: Layout) -> str:
    """Return the line of what columns are called."""
    heads = [""]
    for index, head in enumerate(grid.heads):
        beside = layout.beside_turned_head(grid, index)
        text = _head(head, layout, beside)
        heads.append(_in_braces(text))
    return _row(heads)


def _head(head: Head, layout: Layout, beside: float) -> str:
    """Return what a column is called. beside: the space behind it where it is turned."""
    name = layout.name(head)
    if not layout.has_turned_heads:
        return name
    return command("rotatebox", 90, name) + command("hspace*", f"{beside:.1f}pt")


def _line(line: Line, grid: Grid, layout: Layout) -> Iterator[str]:
    """Yield a line of numbers, and the one of their spreads where these stand below."""
    cells = [layout.name(line.head)]
    spreads = [""]
    for index, cell in enumerate(line.cells):
        if layout.is_stacked:
            cells.append(_cell(cell, ""))
            spreads.append(_spread_below(cell))
        else:
            cells.append(_cell(cell, grid.widest_spread(index)))
    yield _row(cells)
    if any(spreads):
        yield _row(spreads) + "[1pt]"


def _row(cells: Iterable[str]) -> str:
    """Return the cells of a line as a line."""
    return " & ".join(cells) + r" \\"


def _spread_below(cell: Cell) -> str:
    """Return ± and the spread, if there is one."""
    if not cell.spread:
        return ""
    return _in_braces(rf"$\pm${cell.spread}")


def _cell(cell: Cell, widest_spread: str) -> str:
    """Return a cell; in braces where it is more than a number.

    widest_spread: of its column, of those that stand behind their numbers.
    """
    if not cell.number:
        return _in_braces(escape_latex(cell.words))
    is_set_off = cell.emphasis is not Emphasis.NONE
    if not (is_set_off or cell.marks or cell.is_apart or widest_spread):
        return cell.number
    text = cell.number
    if cell.emphasis in (Emphasis.BEST, Emphasis.BEST_UNTESTED):
        text = command("underline", text)
    if cell.emphasis in (Emphasis.BEST, Emphasis.NOT_TOLD_APART):
        text = command("textbf", text)
    if widest_spread:
        text += _spread_behind(cell, widest_spread)
    if cell.marks:
        text += command("rlap", superscript(cell.marks))
    return _in_braces(text)


def _spread_behind(cell: Cell, widest: str) -> str:
    """Return ± and the spread, as wide as the widest one of the column."""
    if not cell.spread:
        return command("phantom", _PLUS_MINUS + widest)
    digits_less = len(widest) - len(cell.spread)
    if digits_less:
        padding = command("phantom", "0" * digits_less)
        return _PLUS_MINUS + padding + cell.spread
    return _PLUS_MINUS + cell.spread


def _in_braces(text: str) -> str:
    """Return what siunitx leaves as it is."""
    return f"{{{text}}}"
