"""A table as a paper prints it: names, blocks, caption and references."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from san.report.emphasis import emphasize
from san.report.latex import Block, PaperStyle, escape_latex, latex
from san.report.published_index import method_label, method_paper
from san.report.published_sources import bibtex
from san.report.rows import Row
from san.report.selection import Selection
from san.report.table import Table
from san.report.value import Flag, marks


@dataclass(frozen=True)
class PaperOptions:
    """How a table for a paper looks: see `latex.PaperStyle`."""

    decimals: int = 1
    with_spread: bool = False
    is_transposed: bool = False
    is_narrow: bool = False


def paper_latex(table: Table, selection: Selection, options: PaperOptions) -> str:
    """Return the chosen rows as LaTeX: baselines, our rows, published rows, each in a block."""
    style = PaperStyle(
        columns=selection.columns,
        decimals=options.decimals,
        with_spread=options.with_spread,
        is_transposed=options.is_transposed,
        is_narrow=options.is_narrow,
    )
    blocks = [_block(title, rows, table) for title, rows in _blocks_of_rows(selection)]
    return latex(
        blocks,
        style,
        caption=_caption(table, selection),
        label=f"tab:{table.name}",
        group_labels=table.suite.group_labels,
    )


def paper_bibtex(table: Table, selection: Selection) -> str:
    """Return what the table cites, as BibTeX."""
    keys = [_cite_key(row) for row in (*selection.ours, *selection.published)]
    return bibtex([key for key in dict.fromkeys(keys) if key])


def _blocks_of_rows(selection: Selection) -> Iterator[tuple[str, list[Row]]]:
    """Yield title and rows of each block: baselines apart, as papers have them."""
    ours = selection.ours
    published = selection.published
    both = bool(ours and published)
    for rows, title in ((ours, "Measured by us"), (published, "As published")):
        shown_title = title if both else ""
        for is_baseline in (True, False):
            block = [row for row in rows if row.is_baseline == is_baseline]
            if block:
                yield shown_title, block
                shown_title = ""


def _block(title: str, rows: Sequence[Row], table: Table) -> Block:
    return Block(
        title=title,
        rows=rows,
        names=[_name(row) for row in rows],
        emphasis=emphasize(table.suite, rows),
    )


def _name(row: Row) -> str:
    """Return the name of a row in LaTeX, with the paper of the method and the marks of the row."""
    name = row.name
    if row.key is not None:
        name = method_label(row.key.method) + name.removeprefix(row.key.method)
    text = escape_latex(name)
    mark = marks(row.flags)
    if mark:
        text += rf"\textsuperscript{{{escape_latex(mark)}}}"
    key = _cite_key(row)
    return rf"{text}~\cite{{{key}}}" if key else text


def _cite_key(row: Row) -> str:
    """Return the key of the paper of a row's method, or nothing."""
    if row.published is not None:
        return row.published.cite_key
    assert row.key is not None
    paper = method_paper(row.key.method)
    return paper.key if paper is not None else ""


def _caption(table: Table, selection: Selection) -> str:
    """Return what the table shows, and what its marks mean."""
    sentences = [f"Top-1 accuracy (%) on {table.suite.title}, {table.backbone}."]
    sentences.append("Params: trained parameters without the head, in millions.")
    if len(selection.ours) + len(selection.published) > 1:
        sentences.append(
            "Bold: not told apart from the best of its block at 5 % (single tasks by their test "
            "images and seeds, means by a Wilcoxon test over tasks, corrected for the number of "
            "rows); underlined: the best."
        )
    flags: set[Flag] = set()
    for row in (*selection.ours, *selection.published):
        flags |= row.flags
        for column in selection.columns:
            flags |= row.values[column].visible_flags
    sentences += [f"{flag.mark}: {flag.legend}." for flag in Flag if flag in flags]
    return " ".join(sentences)
