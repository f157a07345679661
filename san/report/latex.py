r"""Tables for papers, for `\input` alone: environment, caption and label are in the file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from san.report.aggregate import MEAN_OF_GROUP, Column
from san.report.emphasis import Emphasis
from san.report.rows import Row
from san.report.value import MISSING, Value, format_absent, marks

# At 7 pt six rows of VTAB-1k's 19 tasks and four means fit 6.75 in, the text width of ICML.
_FONT = r"\fontsize{7}{8.4}\selectfont\setlength{\tabcolsep}{1.5pt}"
_SUMMARY_GROUP = "Mean"
_ESCAPES = str.maketrans(
    {
        "†": r"\textdagger{}",
        "‡": r"\textdaggerdbl{}",
        "§": r"\S{}",
        "¶": r"\P{}",
        "‖": r"\textbardbl{}",
        "◦": r"\textopenbullet{}",
        "≠": r"$\neq$",
        "◇": r"$\diamond$",
        "±": r"$\pm$",
        "°": r"\textdegree{}",
        "−": "$-$",
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
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)
_LAST_LATIN_LETTER = 0x17F  # pdflatex knows those up to here


@dataclass(frozen=True)
class PaperStyle:
    """How a table for a paper looks.

    columns: of accuracies, in order. decimals: of accuracies. with_spread: print the standard
    deviation over seeds. is_transposed: methods across. is_narrow: as wide as one column of the
    page.
    """

    columns: Sequence[Column]
    decimals: int = 1
    with_spread: bool = False
    is_transposed: bool = False
    is_narrow: bool = False


@dataclass(frozen=True)
class Block:
    """Rows between two rules, with the names that papers give them and what is set off.

    title: what they are; nothing where that is plain. names: LaTeX already. emphasis: by index of
    the row and column.
    """

    title: str
    rows: Sequence[Row]
    names: Sequence[str]
    emphasis: Mapping[tuple[int, Column], Emphasis]


def latex(
    blocks: Sequence[Block],
    style: PaperStyle,
    caption: str,
    label: str,
    group_labels: Mapping[str, str],
) -> str:
    """Return a floating table; caption and label are plain text."""
    body = _transposed if style.is_transposed else _tabular
    environment = "table" if style.is_narrow else "table*"
    packages = "booktabs, siunitx, textcomp"
    if not style.is_transposed:
        packages += ", graphicx"
    lines = [
        rf"% \usepackage: {packages}",
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{{label}}}",
        rf"{_FONT}%",
        *body(blocks, style, group_labels),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Return text in which the characters that pdflatex would misread are replaced.

    One that it does not know becomes its number in Unicode.
    """
    return "".join(_known_character(letter) for letter in text.translate(_ESCAPES))


def _known_character(letter: str) -> str:
    if ord(letter) <= _LAST_LATIN_LETTER or letter in "–—‘’“”":
        return letter
    return f"[U+{ord(letter):04X}]"


def _tabular(
    blocks: Sequence[Block],
    style: PaperStyle,
    group_labels: Mapping[str, str],
) -> Iterator[str]:
    """Yield the lines of a table with methods down."""
    accuracies = f"*{{{len(style.columns)}}}{{{_number_column(style)}}}"
    yield rf"\begin{{tabular}}{{@{{}}l S[table-format=2.2]{accuracies}@{{}}}}"
    yield r"\toprule"
    yield from _header(style.columns, group_labels)
    width = len(style.columns) + 2
    for block in blocks:
        yield r"\midrule"
        if block.title:
            yield rf"\multicolumn{{{width}}}{{@{{}}l}}{{\emph{{{block.title}}}}} \\"
        for index, (row, name) in enumerate(zip(block.rows, block.names, strict=True)):
            cells = [name, _parameters(row)]
            for column in style.columns:
                emphasis = block.emphasis.get((index, column), Emphasis.NONE)
                cells.append(_cell(row.values[column], emphasis, style))
            yield " & ".join(cells) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _header(columns: Sequence[Column], group_labels: Mapping[str, str]) -> Iterator[str]:
    """Yield the groups with rules below them, then the columns."""
    groups = [_group_of(column) for column in columns]
    first = 3
    titles = " & "
    rules = ""
    for group in dict.fromkeys(groups):
        width = groups.count(group)
        title = escape_latex(group_labels.get(group, group))
        titles += rf" & \multicolumn{{{width}}}{{c}}{{{title}}}"
        rules += rf"\cmidrule(lr){{{first}-{first + width - 1}}}"
        first += width
    yield titles + r" \\"
    yield rules
    names = [escape_latex(_column_label(column)) for column in columns]
    turned = [rf"{{\rotatebox{{90}}{{{name}}}}}" for name in ["Params (M)", *names]]
    yield " & ".join(["", *turned]) + r" \\"


def _transposed(
    blocks: Sequence[Block],
    style: PaperStyle,
    group_labels: Mapping[str, str],
) -> Iterator[str]:
    """Yield the lines of a table with methods across and a line for each task."""
    number = _number_column(style)
    counts = [len(block.rows) for block in blocks]
    across = "@{\\hskip 6pt}".join(f"*{{{count}}}{{{number}}}" for count in counts)
    yield rf"\begin{{tabular}}{{@{{}}l {across}@{{}}}}"
    yield r"\toprule"
    names = [f"{{{name}}}" for block in blocks for name in block.names]
    yield " & ".join(["", *names]) + r" \\"
    parameters = [_parameters(row) for block in blocks for row in block.rows]
    yield " & ".join(["Params (M)", *parameters]) + r" \\"
    group = ""
    for column in style.columns:
        if _group_of(column) != group:
            group = _group_of(column)
            title = escape_latex(group_labels.get(group, group))
            yield r"\midrule"
            yield rf"\multicolumn{{{sum(counts) + 1}}}{{@{{}}l}}{{\emph{{{title}}}}} \\"
        cells = [escape_latex(_column_label(column))]
        for block in blocks:
            for index, row in enumerate(block.rows):
                emphasis = block.emphasis.get((index, column), Emphasis.NONE)
                cells.append(_cell(row.values[column], emphasis, style))
        yield " & ".join(cells) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _group_of(column: Column) -> str:
    """Return the group above a column: the mean of a group stands among its tasks."""
    if column.group == MEAN_OF_GROUP:
        return column.label
    return _SUMMARY_GROUP if column.group == "mean" else column.group


def _column_label(column: Column) -> str:
    """Return how a paper names a column."""
    if column.group == MEAN_OF_GROUP:
        return "Mean"
    if column.group == "mean":
        return {"all": "All tasks", "groups": "Of groups"}.get(column.label, column.label)
    return column.label


def _number_column(style: PaperStyle) -> str:
    spread = f"(1.{style.decimals})" if style.with_spread else ""
    return f"S[table-format=2.{style.decimals}{spread}]"


def _parameters(row: Row) -> str:
    """Return the trained parameters in millions, without the head where they are known so."""
    text = row.trainable.in_millions_text()
    return text if text.replace(".", "").isdigit() else f"{{{escape_latex(text)}}}"


def _cell(value: Value, emphasis: Emphasis, style: PaperStyle) -> str:
    """Return a value; in braces where it is more than a number."""
    if not value.exists:
        return f"{{{escape_latex(format_absent(value))}}}"
    number = f"{value.mean:.{style.decimals}f}"
    number = number.removeprefix("-") if float(number) == 0 else number
    if style.with_spread and value.n > 1:
        number += rf"\,$\pm$\,{value.std:.{style.decimals}f}"
    mark = escape_latex(marks(value.visible_flags))
    if emphasis is Emphasis.NONE and not mark and not style.with_spread:
        return number
    if emphasis is Emphasis.BEST:
        number = rf"\underline{{{number}}}"
    if emphasis is not Emphasis.NONE:
        number = rf"\textbf{{{number}}}"
    superscript = rf"\rlap{{\textsuperscript{{{mark}}}}}" if mark else ""
    return f"{{{number}{superscript}}}"
