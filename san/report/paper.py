"""A table as a paper prints it: names, blocks, caption and references."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from san.report.effort import effort_columns
from san.report.emphasis import emphasize
from san.report.latex import Block, PaperStyle, PaperTexts, cell_flags, latex
from san.report.latex_grid import Head
from san.report.latex_text import command, escape_latex
from san.report.means import LOWER_IS_BETTER
from san.report.published_index import method_label, method_paper, published_index
from san.report.published_sources import bibtex, find_source
from san.report.rows import Row
from san.report.selection import Selection
from san.report.table import Table
from san.report.value import Flag, marks
from san.settings import shorten_variant

_OURS = "Measured by us"
_PUBLISHED = "As published"
_USUAL_PROTOCOL = "last_epoch"
_PACKAGES = ("booktabs", "graphicx", "siunitx")
_EMPHASIS = (
    r"Underlined: the best of its block on a task or mean; bold: not told apart from it at 5\,\% "
    "(tasks: by test images and seeds; means: by the Wilcoxon signed-rank test over tasks, with "
    "Holm's correction; nothing is bold where so few tasks could tell no row apart)."
)


@dataclass(frozen=True)
class PaperOptions:
    """How a table for a paper looks: see `latex.PaperStyle`."""

    decimals: int = 1
    with_spread: bool = False
    with_cost: bool = False
    is_transposed: bool = False


def paper_latex(table: Table, selection: Selection, options: PaperOptions) -> str:
    """Return the chosen rows as LaTeX: baselines, our rows, published rows, each in a block."""
    style = PaperStyle(
        columns=selection.columns,
        group_labels=table.suite.group_labels,
        decimals=options.decimals,
        with_spread=options.with_spread,
        with_cost=options.with_cost,
        is_transposed=options.is_transposed,
    )
    blocks = list(_blocks(table, selection))
    texts = PaperTexts(
        caption=" ".join(_caption(table, selection, blocks, options)),
        short_caption=f"{escape_latex(_what(table, selection))}.",
        label="tab:" + re.sub(r"[^\w.-]", "-", table.name, flags=re.ASCII),
        comments=list(_comments(table, selection)),
    )
    return latex(blocks, style, texts)


def paper_bibtex(table: Table, selection: Selection) -> str:
    """Return what the table cites, as BibTeX."""
    return bibtex(_cited_keys(selection))


def _blocks(table: Table, selection: Selection) -> Iterator[Block]:
    """Yield the rows in blocks: baselines apart, as papers have them."""
    has_titles = bool(selection.ours and selection.published)
    for rows, title in ((selection.ours, _OURS), (selection.published, _PUBLISHED)):
        shown_title = title if has_titles else ""
        for is_baseline in (True, False):
            block = [row for row in rows if row.is_baseline == is_baseline]
            if block:
                yield Block(
                    title=shown_title,
                    rows=block,
                    names=[_name(row, selection.ours) for row in block],
                    emphasis=emphasize(table.suite, block),
                )
                shown_title = ""


def _name(row: Row, ours: Sequence[Row]) -> Head:
    """Return a row's name, its marks, and the paper of the method.

    ours: the rows from which the name sets one of ours apart.
    """
    return Head(_label(row, ours), marks(row.flags), _paper_key(row))


def _label(row: Row, ours: Sequence[Row]) -> str:
    """Return the method as papers write it, and in what the row departs from others."""
    if row.key is None:
        return _method(row)
    protocols = {other.key.protocol for other in ours if other.key is not None}
    details = [shorten_variant(row.key.variant)] if row.key.variant else []
    if len(protocols) > 1 and row.key.protocol != _USUAL_PROTOCOL:
        details.append(row.key.protocol.replace("_", " "))
    return f"{_method(row)} ({', '.join(details)})" if details else _method(row)


def _method(row: Row) -> str:
    """Return how papers write the method of a row."""
    return row.name if row.key is None else method_label(row.key.method)


def _paper_key(row: Row) -> str:
    """Return the key of the paper of a row's method, or nothing."""
    paper = method_paper(row.key.method if row.key is not None else row.name)
    return paper.key if paper is not None else ""


def _cited_keys(selection: Selection) -> list[str]:
    """Return the keys of all papers that the table and its caption cite."""
    keys = {_paper_key(row) for row in (*selection.ours, *selection.published)}
    for row in selection.published:
        assert row.published is not None
        keys.add(row.published.cite_key)
    return sorted(keys - {""})


def _comments(table: Table, selection: Selection) -> Iterator[str]:
    """Yield what stands above the table: what it needs, what it says, and what its marks mean."""
    packages = list(_PACKAGES)
    keys = _cited_keys(selection)
    if any(find_source(key, "paper").kind == "web" for key in keys):
        packages.append("url")
    yield command("usepackage", ",".join(packages))
    if keys:
        bibliography = command("bibliography", table.name)
        yield f"{bibliography} has what it cites; with natbib or without."
    yield "For columns of 3.25 in and pages of 6.75 in (ICML); scaled down where that is too wide."
    if selection.ours:
        yield from table.verdict.sentences
    yield from table.notes


def _what(table: Table, selection: Selection) -> str:
    """Return what the numbers are."""
    kind = "Top-1 accuracy (%)"
    if LOWER_IS_BETTER & set(selection.columns):
        kind += " and mean corruption error (mCE)"
    printed_name = published_index().backbones.get(table.backbone)
    backbone = f"{printed_name} ({table.backbone})" if printed_name else table.backbone
    split = "" if table.split == "test" else f", {table.split} split"
    return f"{kind} on {table.suite.title} with {backbone}{split}"


def _caption(
    table: Table, selection: Selection, blocks: Sequence[Block], options: PaperOptions
) -> Iterator[str]:
    """Yield the sentences of the caption as LaTeX."""
    yield f"{escape_latex(_what(table, selection))}."
    yield _parameters_sentence(selection)
    rows = (*selection.ours, *selection.published)
    for effort in effort_columns(rows, with_cost=options.with_cost):
        yield effort.note
    yield from _seeds_sentences(selection.ours, options)
    if selection.published:
        yield _sources_sentence(selection.published)
    if any(block.emphasis for block in blocks):
        yield _EMPHASIS
        yield from _unranked_sentences(selection)
    shown = _shown_flags(selection)
    for flag in Flag:
        if flag in shown:
            yield f"{escape_latex(f'{flag.mark}: {flag.legend}')}."


def _parameters_sentence(selection: Selection) -> str:
    """Say what is counted."""
    rows = (*selection.ours, *selection.published)
    is_estimated = any(row.trainable.is_estimated for row in rows)
    head = ", whose mean is taken off where papers count it" if is_estimated else ""
    return f"Params: trained parameters in millions, without the head{head}."


def _seeds_sentences(rows: Sequence[Row], options: PaperOptions) -> Iterator[str]:
    """Say of how many runs our numbers are the means."""
    seeds = {value.n for row in rows for value in row.values.values() if value.n}
    if not seeds:
        return
    if max(seeds) == 1:
        yield f"{_OURS}: one seed."
        return
    count = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else str(max(seeds))
    spread = escape_latex(", ± their standard deviation") if options.with_spread else ""
    yield f"{_OURS}: means of {count} seeds{spread}."


def _sources_sentence(rows: Sequence[Row]) -> str:
    """Say whose the published numbers are, where not of the paper that a row cites."""
    others: dict[str, list[str]] = {}
    for row in rows:
        assert row.published is not None
        key = row.published.cite_key
        if row.published.has_numbers and key and key != _paper_key(row):
            others.setdefault(key, []).append(escape_latex(row.name))
    own = "numbers of the papers cited"
    sources = [own]
    for key, names in others.items():
        sources.append(f"{', '.join(names)} from~{command('citep', key)}")
    return f"{_PUBLISHED}: {'; '.join(sources)}."


def _unranked_sentences(selection: Selection) -> Iterator[str]:
    """Say which rows take no part in the comparison, beside those with marks that say so."""
    rows = (*selection.ours, *selection.published)
    unranked = list(dict.fromkeys(_method(row) for row in rows if row.is_baseline))
    classes = {row.comparison_class for row in selection.published if not row.is_baseline}
    if len(classes) > 1:
        unranked.append("published rows whose marks differ from those of most")
    if unranked:
        yield f"Not compared: {escape_latex(', '.join(unranked))}."


def _shown_flags(selection: Selection) -> set[Flag]:
    """Return the flags whose marks the table has."""
    flags: set[Flag] = set()
    for row in (*selection.ours, *selection.published):
        flags |= row.flags
        for column in selection.columns:
            flags |= cell_flags(row, column)
    return flags
