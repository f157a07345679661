r"""The cells of a table for a paper, and the layout in which they are read best.

Widths are estimates, in points, of Computer Modern at 7 pt; other fonts are narrower.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from san.report.emphasis import Emphasis
from san.report.latex_text import command, escape_latex, is_known

# The widths of ICML's columns and pages, 3.25 and 6.75 in, in points of TeX.
_LINES = {"table": 234.9, "table*": 487.8}
_SMALLEST_SIZE = 7
# Font sizes in points, and the least space on either side of a column.
_LEAST_GAPS = {9: 2.5, 8: 2.5, _SMALLEST_SIZE: 1.0}
_MOST_GAP = 6.0
_DIGIT = 4.0
_POINT = 2.3
_PLUS_MINUS = 8.7  # between numbers
_PLUS_MINUS_ALONE = 5.4
_MARK = 4.0
_CAPITAL = 5.4
_LETTER = 3.8
_SYMBOL = 8.0
_CITATION = 15.0  # a number in brackets
_LINE_HEIGHT = 8.4
_UNKNOWN_LETTER = 32.0  # as its number in Unicode
# Names that are wider are broken; the last one leaves room for 19 tasks and their means.
_WIDEST_NAMES = (144.0, 72.0)
_WIDEST_PIECE = 60.0  # of a name that is broken


@dataclass(frozen=True)
class Head:
    """A name at a line or column, with the marks of a row and the key of a paper."""

    text: str
    marks: str = ""
    cite_key: str = ""

    @property
    def width(self) -> float:
        """How wide it is in one line."""
        cite = _CITATION if self.cite_key else 0.0
        return _text_width(self.text) + _MARK * len(self.marks) + cite

    @property
    def latex(self) -> str:
        """The name as LaTeX."""
        cite = "~" + command("citep", self.cite_key) if self.cite_key else ""
        return escape_latex(self.text) + superscript(self.marks) + cite

    def broken_latex(self, points: float) -> str:
        """Return the name as LaTeX in lines of a width."""
        text = r"\hspace{0pt}".join(map(escape_latex, _pieces(self.text)))
        text = text.replace(r" \hspace{0pt}", " ")
        text += superscript(self.marks)
        if self.cite_key:
            text += " " + command("citep", self.cite_key)
        lines = rf"\raggedright\hangindent=.5em {text}\strut"
        return command("parbox[t]", f"{points:.0f}pt", lines)


@dataclass(frozen=True)
class Cell:
    """A number, or words in its place.

    spread: the standard deviation, or nothing. is_apart: the number has other decimals than those
    of its column, and is not aligned with them.
    """

    number: str = ""
    words: str = ""
    spread: str = ""
    marks: str = ""
    emphasis: Emphasis = Emphasis.NONE
    is_apart: bool = False

    def width(self, *, is_stacked: bool) -> float:
        """Return how wide it is without its marks. is_stacked: the spread stands below."""
        if not self.number:
            return _text_width(self.words)
        number = _number_width(self.number)
        if not self.spread:
            return number
        spread = _number_width(self.spread)
        if is_stacked:
            return max(number, _PLUS_MINUS_ALONE + spread)
        return number + _PLUS_MINUS + spread


@dataclass(frozen=True)
class Line:
    """A line of cells, one for each column."""

    head: Head
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Part:
    """Lines between two rules, below a title if they have one."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Span:
    """So many columns below a title, or without one."""

    title: str
    columns: int


@dataclass(frozen=True)
class Grid:
    """All that a table shows.

    spans: of all columns. breaks: columns, by index, behind which there is more space.
    """

    spans: Sequence[Span]
    heads: Sequence[Head]
    breaks: frozenset[int]
    parts: Sequence[Part]

    @property
    def lines(self) -> list[Line]:
        """The lines of all parts."""
        return [line for part in self.parts for line in part.lines]

    def column(self, index: int) -> list[Cell]:
        """Return the cells of a column."""
        return [line.cells[index] for line in self.lines]

    def marks(self, index: int) -> int:
        """Return how many marks stand behind a number of a column at most."""
        return max((len(cell.marks) for cell in self.column(index)), default=0)

    def number_format(self, index: int) -> str:
        """Return how many digits a column has before and behind the point: `2.1`."""
        whole = 0
        decimals = 0
        for cell in self.column(index):
            if cell.number and not cell.is_apart:
                before, _, behind = cell.number.partition(".")
                whole = max(whole, len(before))
                decimals = max(decimals, len(behind))
        return f"{whole}.{decimals}" if whole else "2.1"

    def widest_spread(self, index: int) -> str:
        """Return the spread of the most digits in a column, or nothing."""
        return max((cell.spread for cell in self.column(index)), key=len, default="")


@dataclass(frozen=True)
class Layout:
    """How a grid is set.

    environment: as wide as a column of the page, or as the page. size: of the font; gap: on either
    side of a column, in points. widest_name: of names in one line, at 7 pt. is_stacked: spreads
    stand below their numbers.
    """

    environment: str
    size: int
    has_turned_heads: bool
    is_stacked: bool
    widest_name: float
    gap: float

    @property
    def scale(self) -> float:
        """How much wider the text is than at 7 pt."""
        return self.size / _SMALLEST_SIZE

    def name(self, head: Head) -> str:
        """Return a name as LaTeX, in several lines if need be."""
        if head.width <= self.widest_name:
            return head.latex
        return head.broken_latex(self.scale * self.widest_name)

    def space_behind(self, grid: Grid, index: int) -> float:
        """Return the space behind a column, in points: for its marks, and at a break."""
        is_last = index == len(grid.heads) - 1
        space = 0.0 if is_last else 2 * self.gap
        if index in grid.breaks:
            space += self.gap
        return max(space, _MARK * self.scale * grid.marks(index))

    def beside_turned_head(self, grid: Grid, index: int) -> float:
        """Return the space behind a turned head that puts it above the middle of a column."""
        beside = _column_width(grid, index, self) - _turned_width(grid.heads[index], self)
        return max(0.0, self.scale * beside / 2)


def choose_layout(grid: Grid, *, may_be_stacked: bool) -> Layout:
    """Return the layout for a table: as narrow as can be, then with the largest font.

    One that fits nowhere gets the smallest font and as little space as there may be.
    """
    stacked = (False, True) if may_be_stacked else (False,)
    choices = itertools.product(_LINES, stacked, _LEAST_GAPS, (False, True), _WIDEST_NAMES)
    for environment, is_stacked, size, has_turned_heads, widest_name in choices:
        layout = Layout(environment, size, has_turned_heads, is_stacked, widest_name, gap=0.0)
        room = _LINES[environment] - layout.scale * _width(grid, layout)
        gap = room / (2 * len(grid.heads) + len(grid.breaks))
        if gap >= _LEAST_GAPS[size]:
            return replace(layout, gap=min(gap, _MOST_GAP))
    return replace(layout, gap=_LEAST_GAPS[size])


def superscript(marks: str) -> str:
    """Return marks as LaTeX."""
    return command("textsuperscript", escape_latex(marks)) if marks else ""


def _width(grid: Grid, layout: Layout) -> float:
    """Return the width of a grid at 7 pt without the space between its columns."""
    widths = []
    for index, head in enumerate(grid.heads):
        own = min(head.width, layout.widest_name)
        if layout.has_turned_heads:
            own = _turned_width(head, layout)
        widths.append(max(own, _column_width(grid, index, layout)) + _MARK * grid.marks(index))
    total = max((min(line.head.width, layout.widest_name) for line in grid.lines), default=0.0)
    for span in grid.spans:
        below = [widths.pop(0) for _ in range(span.columns)]
        total += max(sum(below), _text_width(span.title))
    return total


def _column_width(grid: Grid, index: int, layout: Layout) -> float:
    """Return the width of the cells of a column at 7 pt, without their marks."""
    cells = grid.column(index)
    return max((cell.width(is_stacked=layout.is_stacked) for cell in cells), default=0.0)


def _turned_width(head: Head, layout: Layout) -> float:
    """Return the width of a turned head at 7 pt: that of its lines."""
    return _LINE_HEIGHT * math.ceil(head.width / layout.widest_name)


def _pieces(text: str) -> Iterator[str]:
    """Yield the parts of a name between which a line may end."""
    piece = ""
    for letter in text:
        if piece and _text_width(piece + letter) > _WIDEST_PIECE:
            yield piece
            piece = ""
        is_end_of_word = letter == "." and piece[-1:].isalpha()
        piece += letter
        if letter in " =@/," or is_end_of_word:
            yield piece
            piece = ""
    yield piece


def _text_width(text: str) -> float:
    return sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if not is_known(letter):
        return _UNKNOWN_LETTER
    if not letter.isascii():
        return _SYMBOL
    return _CAPITAL if letter.isupper() else _LETTER


def _number_width(number: str) -> float:
    return sum(_POINT if letter == "." else _DIGIT for letter in number)
