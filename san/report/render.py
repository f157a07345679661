"""Tables as files: CSV for programs, Markdown for people, LaTeX for papers."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from san.report.aggregate import CONFLICT, FEWER, FORCED, LOWER, MISSING, ON_TEST, SUMMARY, Column
from san.report.table import Section, Table

NOT_RANKED = (
    ON_TEST,
    FORCED,
    CONFLICT,
    FEWER,
    "failed",
    "OOM",
)  # in a cell that takes no part in the ranking
SPREAD = re.compile(r"([\d.]+) ± ([\d.]+) \((\d+)\)(.*)")
COMMANDS: dict[str, str | int | None] = {
    "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}", "§": r"\S{}", "¶": r"\P{}", "‖": r"\textbardbl{}",
    "◦": r"\textopenbullet{}", "*": r"\textasteriskcentered{}", MISSING: "--",
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "$": r"\$", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#",
}  # fmt: skip


def markdown(table: Table) -> str:
    """Return the table in Markdown, for a terminal too: what was run again, gaps and what is cited, methods across.

    Of cited rows only the means are shown; the files have every cell.
    """
    parts = [f"**{table.title}**, top-1 accuracy in percent\n"]
    if len(table.ours.cells):
        parts.append(transpose(table.ours.cells))
    if table.pairs:
        rows = [
            (name, frame.loc[name])
            for gap, printed in table.pairs.items()
            for name, frame in ((printed, table.cited.cells), (gap, table.gaps.cells))
        ]
        beside = pd.DataFrame(
            [row for _, row in rows], index=pd.Index([name for name, _ in rows], dtype=object)
        )
        parts += [
            "\nThe published value, and ours minus it\n",
            transpose(beside.drop(columns=SUMMARY)),
        ]
    if len(table.cited.cells):
        means = [c for c in columns_of(table.cited) if c[0] in ("mean of", "mean", "trainable")]
        down = (
            table.cited.cells[means]
            .set_axis([" ".join(c) for c in means], axis=1)
            .rename_axis(index="cited")
        )
        align = ["left", *["right"] * len(means)]
        parts += [
            "\nPublished, not run again\n",
            down.to_markdown(disable_numparse=True, colalign=align),
        ]
    return "\n".join([*parts, "", *table.notes]).rstrip() + "\n"


def transpose(cells: pd.DataFrame) -> str:
    """Return rows as columns: tasks down, methods across."""
    turned = (
        cells.rename(index=lambda name: str(name).replace("|", "\\|"))
        .T.rename_axis(index=["", "task"], columns=None)
        .reset_index()
    )
    turned[""] = turned[""].mask(turned[""].duplicated(), "")
    return str(
        turned.to_markdown(
            index=False, disable_numparse=True, colalign=["left", "left", *["right"] * len(cells)]
        )
    )


def latex(table: Table) -> str:
    r"""Return the table for LaTeX, ready for `\input` in a `table*`: it is as wide as the line.

    Needs booktabs, graphicx and textcomp. Of what was run again the best value of a column is bold and the second
    underlined; cells that were chosen on the test split, forced, in conflict or not whole take no part.
    """
    columns = columns_of(table.ours)
    blocks = {
        "Run again": highlight_best(table.ours),
        "Published": table.cited.cells,
        "Ours minus published": table.gaps.cells,
    }
    lines = [
        r"\resizebox{\linewidth}{!}{\setlength{\tabcolsep}{3pt}%",
        rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        *header_rows(columns),
    ]
    for title, cells in blocks.items():
        if len(cells):
            lines += [
                r"\midrule",
                rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{title}}}}} \\",
            ]
            lines += [
                " & ".join([escape_latex(str(name)), *map(latex_cell, row)]) + r" \\"
                for name, row in zip(cells.index, cells.to_numpy(), strict=True)
            ]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    notes = (
        [
            rf"\par\smallskip{{\footnotesize\raggedright {' '.join(map(escape_latex, table.notes))}\par}}"
        ]
        if table.notes
        else []
    )
    return "\n".join([*lines, *notes]) + "\n"


def columns_of(block: Section) -> list[Column]:
    """Return the columns of a block, (group, label)."""
    columns: list[Column] = block.cells.columns.to_list()  # type: ignore[assignment]
    return columns


def header_rows(columns: Sequence[Column]) -> list[str]:
    """Return the two lines of the head, with rules below the groups."""
    groups = list(dict.fromkeys(group for group, _ in columns))
    spans, rules, at = [], [], 2
    for group in groups:
        width = sum(g == group for g, _ in columns)
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(group)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    names = [rf"\rotatebox{{90}}{{{escape_latex(name)}}}" for _, name in columns]
    return [" & ".join(["", *spans]) + r" \\", "".join(rules), " & ".join(["", *names]) + r" \\"]


def highlight_best(block: Section) -> pd.DataFrame:
    """Return the texts of a block with the best of each column of accuracies in bold and the second underlined."""
    texts, numbers = (
        block.cells.to_numpy(dtype=object, copy=True),
        block.numbers.to_numpy(dtype=float),
    )
    for at, column in enumerate(columns_of(block)):
        named = enumerate(zip(numbers[:, at], texts[:, at], strict=True))
        values = {
            i: round(v, 2)
            for i, (v, text) in named
            if not math.isnan(v) and not any(m in text for m in NOT_RANKED)
        }
        if column in SUMMARY or len(values) < 2:
            continue
        order = sorted(set(values.values()), reverse=column not in LOWER)
        for command, best in zip((r"\textbf", r"\underline"), order, strict=False):
            for i in (i for i, v in values.items() if v == best):
                texts[i, at] = f"@{command}{{{latex_cell(texts[i, at])}}}"
    return pd.DataFrame(texts, index=block.cells.index, columns=block.cells.columns)


def latex_cell(text: str) -> str:
    """Return a cell for LaTeX, its spread as an index; what begins with @ is LaTeX already."""
    if text.startswith("@"):
        return text[1:]
    if text[:1] == "-" and text[1:2].isdigit():
        return "$-$" + escape_latex(text[1:])
    spread = SPREAD.fullmatch(text)
    return (
        f"{spread[1]}$_{{\\pm{spread[2]}}}^{{{spread[3]}}}${escape_latex(spread[4])}"
        if spread
        else escape_latex(text)
    )


def escape_latex(text: str) -> str:
    """Return text with what LaTeX would misread replaced."""
    return text.translate(str.maketrans(COMMANDS))


def write_table(table: Table, folder: Path, name: str) -> list[Path]:
    """Write `<name>.csv` (wide, as printed), `_cells.csv`, `_runs.csv` (tidy), `.md` and `.tex`; return paths."""
    kinds = {"re-run": table.ours, "cited": table.cited, "gap": table.gaps}
    wide = pd.concat([b.cells for b in kinds.values()], keys=list(kinds), names=["kind", "method"])
    texts = {
        f"{name}.csv": wide.set_axis(
            [" ".join(filter(None, column)) for column in wide.columns], axis=1
        ).to_csv(),
        f"{name}_cells.csv": table.facts.to_csv(index=False),
        f"{name}_runs.csv": table.runs.to_csv(index=False),
        f"{name}.md": markdown(table),
        f"{name}.tex": latex(table),
    }
    return write_texts(texts, folder)


def write_texts(texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Write files so that a reader sees the old ones or the new; none is replaced where one cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    new = {folder / file: folder / f".{os.getpid()}-{file}" for file in texts}
    try:
        for text, place in zip(texts.values(), new.values(), strict=True):
            place.write_text(text)
        for path, place in new.items():
            place.replace(path)
    finally:
        for place in new.values():
            place.unlink(missing_ok=True)
    return list(new)
