"""Tables: a pure function of records and of what is published. What is missing is shown, and never averaged over.

Rows that were run again stand apart from rows that are cited; gaps are ours minus the published value.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from san import published
from san.cells import (
    CONFLICT,
    FEWER,
    LEGEND,
    MISSING,
    MIXED,
    ON_TEST,
    STATED,
    SUMMARY,
    WEIGHTS,
    Cell,
    Column,
    cell,
    header,
    mean,
    means,
    shown,
)
from san.published import Cited
from san.record import Record
from san.tasks import Suite


@dataclass(frozen=True, order=True)
class Row:
    """What the runs of one row share."""

    method: str
    variant: str
    protocol: str


@dataclass(frozen=True)
class Block:
    """Rows of a kind, columns (group, task label) and then means, parameters and seeds: as text, and in floats."""

    cells: pd.DataFrame
    numbers: pd.DataFrame


@dataclass(frozen=True)
class Table:
    """ours, cited, gaps: blocks of rows with the same columns. runs: a line per run; facts: a line per cell.

    notes: the legend of the marks that occur, and what was left out and why.
    """

    title: str
    ours: Block
    cited: Block
    gaps: Block
    runs: pd.DataFrame
    facts: pd.DataFrame
    notes: tuple[str, ...]


def make(suite: Suite, records: Sequence[Record], backbone: str | None = None) -> Table:
    """Make the table of a suite and a backbone (the suite's own); other records are not looked at."""
    backbone = backbone or suite.backbone
    mine, twice = distinct([r for r in records if r.suite == suite.name and r.backbone == backbone])
    shown = [r for r in mine if r.evaluated_on == "test" and r.task in suite.tasks]
    left_out = len(mine) - len(shown)
    notes = [f"{left_out} records evaluated on another split or task are not in the table."] if left_out else []
    by_row: dict[Row, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for r in shown:
        by_row[Row(r.method, r.variant, r.protocol)][r.task].append(r)
    order = sorted(by_row, key=lambda row: (rank(row.method, suite.methods), row))
    cells = {row: {t: cell(by_row[row].get(t, [])) for t in suite.tasks} for row in order}
    names = {row: label(row, order) + row_marks(row, by_row, cells) for row in order}
    rows = published.rows(suite.name, backbone, list(suite.tasks))
    own = {row: line(suite, cells[row], by_row[row]) for row in order}
    printed = {r: cited_line(suite, r) for r in rows}
    pairs = {row: r for row in order for r in rows if r.ours == row.method and (r.tasks or r.stated)}
    ours = block({names[row]: found for row, found in own.items()}, suite)
    cited = block({r.method + cited_marks(r, backbone): found for r, found in printed.items()}, suite)
    gaps = block({names[row]: gap_line(own[row][0], printed[r][0]) for row, r in pairs.items()}, suite)
    lines = facts(suite, {names[row]: (row, cells[row]) for row in order}, rows, backbone)
    said = legend(ours, cited) + [f"{r.method}: {r.claim}." for r in rows if r.claim]
    title = suite.title if backbone == suite.backbone else f"{suite.title}, {backbone}"
    return Table(title, ours, cited, gaps, pd.DataFrame([run_line(r) for r in mine]), lines, (*notes, *twice, *said))


def distinct(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Leave out copies of records; report those of one identity that have different results, which all stay."""
    outcomes: dict[str, dict[object, Record]] = defaultdict(dict)
    for r in records:
        outcomes[r.id].setdefault((r.status, r.point), r)
    notes = []
    for key, different in outcomes.items():
        found = list(different.values())
        if len(found) > 1:
            run, ends = f"{found[0].task} {found[0].method} seed {found[0].seed}", ", ".join(outcome(r) for r in found)
            notes.append(
                f"{CONFLICT} {run} has {len(found)} records of one identity ({key}) with different results: {ends}."
            )
    return [r for different in outcomes.values() for r in different.values()], notes


def outcome(r: Record) -> str:
    """Say how a run ended."""
    return f"{r.point.correct} of {r.point.total}" if r.point else r.status


def rank(method: str, methods: Sequence[str]) -> int:
    """Place the suite's own methods first, in its order."""
    return methods.index(method) if method in methods else len(methods)


def block(lines: Mapping[str, tuple[Mapping[Column, float], Mapping[Column, str]]], suite: Suite) -> Block:
    """Put lines of numbers and texts into frames."""
    columns = pd.MultiIndex.from_tuples(header(suite))
    names = pd.Index(list(lines), name="method", dtype=object)
    texts = pd.DataFrame([texts for _, texts in lines.values()], index=names, columns=columns)
    return Block(texts, pd.DataFrame([numbers for numbers, _ in lines.values()], index=names, columns=columns))


def line(
    suite: Suite, cells: Mapping[str, Cell], by_task: Mapping[str, list[Record]]
) -> tuple[dict[Column, float], dict[Column, str]]:
    """Return a row of ours as numbers and as text, by column."""
    columns = {t: (task.group, task.label) for t, task in suite.tasks.items()}
    numbers = {columns[t]: c.mean for t, c in cells.items()} | means(suite, {t: c.mean for t, c in cells.items()}, {})
    texts = {columns[t]: c.text for t, c in cells.items()}
    done = [r for runs in by_task.values() for r in runs if r.status == "done"]
    seeds = [c.n for c in cells.values()]
    mark = ON_TEST if any(ON_TEST in c.marks for c in cells.values()) else ""
    texts = {key: shown(value, ".2f", mark) for key, value in numbers.items()} | texts
    counts = {
        SUMMARY[0]: mean([r.params["trainable"] - r.params["head"] for r in done]),
        SUMMARY[1]: mean([r.params["trainable"] for r in done]),
    }
    texts |= {key: f"{value:,.0f}" if done else MISSING for key, value in counts.items()}
    texts[SUMMARY[2]] = str(seeds[0]) if len(set(seeds)) == 1 else f"{min(seeds)} to {max(seeds)}"
    return numbers | counts | {SUMMARY[2]: min(seeds)}, texts


def cited_line(suite: Suite, r: Cited) -> tuple[dict[Column, float], dict[Column, str]]:
    """Return a published row as numbers and as text, by column; its means are computed from its cells by our rules."""
    values = {t: r.tasks.get(t, math.nan) for t in suite.tasks}
    numbers = {(task.group, task.label): values[t] for t, task in suite.tasks.items()}
    texts = {key: shown(value, ".1f" if round(value, 1) == value else ".2f") for key, value in numbers.items()}
    summary = means(suite, values, r.stated)
    mark = STATED if r.stated else ""
    texts |= {key: shown(value, ".2f", mark) for key, value in summary.items()}
    params = math.nan if r.params_m is None else 1e6 * r.params_m
    texts |= {
        SUMMARY[0]: shown(params, ".3g") if r.params_m is None else f"{r.params_m:.3g} M",
        SUMMARY[1]: MISSING,
        SUMMARY[2]: MISSING,
    }
    return numbers | summary | {SUMMARY[0]: params, SUMMARY[1]: math.nan, SUMMARY[2]: math.nan}, texts


def gap_line(
    ours: Mapping[Column, float], cited: Mapping[Column, float]
) -> tuple[dict[Column, float], dict[Column, str]]:
    """Return ours minus the published value, by column of accuracies."""
    gaps = {key: math.nan if key in SUMMARY else value - cited[key] for key, value in ours.items()}
    return gaps, {key: shown(value, "+.2f") for key, value in gaps.items()}


def preprocessing(r: Record) -> tuple[str | None, str | None]:
    """Return the resize and the normalisation of a run, as far as its record says."""
    chosen = r.config.get("data", {})
    return chosen.get("resize"), chosen.get("normalise")


def row_marks(row: Row, rows: Mapping[Row, Mapping[str, list[Record]]], cells: Mapping[Row, Mapping[str, Cell]]) -> str:
    """Return the marks of one of our rows as a whole: mixed settings, fewer seeds than others."""
    runs = [r for runs in rows[row].values() for r in runs if r.status == "done"]
    settings = {(r.weights, r.config.get("precision"), r.data.get("kind"), preprocessing(r)) for r in runs}
    seeds = {other: min((c.n for c in cells[other].values() if c.n), default=0) for other in rows}
    return MIXED * (len(settings) > 1) + FEWER * (0 < seeds[row] < max(seeds.values()))


def cited_marks(r: Cited, backbone: str) -> str:
    """Return the marks of a published row."""
    other = r.weights is not None and r.weights != backbone
    return ON_TEST * (r.selected_on == "test") + WEIGHTS * other


def legend(ours: Block, cited: Block) -> list[str]:
    """Explain the marks that occur."""
    text = "".join(str(part) for b in (ours, cited) for part in (*b.cells.index, *b.cells.to_numpy().flat))
    return [f"{mark} {meaning}." for mark, meaning in LEGEND.items() if mark in text]


def label(row: Row, rows: Sequence[Row]) -> str:
    """Name a row: the method, and whatever tells it from others."""
    extra = [row.variant] if row.variant else []
    extra += [row.protocol] if len({other.protocol for other in rows}) > 1 else []
    return row.method + (f" [{', '.join(extra)}]" if extra else "")


def facts(
    suite: Suite, ours: Mapping[str, tuple[Row, Mapping[str, Cell]]], rows: Sequence[Cited], backbone: str
) -> pd.DataFrame:
    """Return a line for each cell: ours, the published value with its source, the gap; and for each cited number."""
    printed = {(c.method, c.task): c for c in reversed(published.cells(suite.name, backbone))}
    named = {r.ours: r for r in rows if r.ours}
    lines = []
    for name, (row, cells) in ours.items():
        for task, c in cells.items():
            found = printed.get((named[row.method].method, task)) if row.method in named else None
            gap = c.mean - found.accuracy if found else None
            own = {"mean": c.mean, "std": c.std, "n": c.n, "status": c.status, "gap": gap}
            lines.append({"kind": "re-run", "row": name, "task": task} | own | cited_facts(found))
    for found in printed.values():
        lines.append({"kind": "cited", "row": found.method, "task": found.task} | cited_facts(found))
    return pd.DataFrame(lines)


def cited_facts(found: published.Cell | None) -> dict[str, object]:
    """Return what is published of a cell."""
    if found is None:
        return {"published": None, "published_as": "", "source": "", "note": ""}
    return {"published": found.accuracy, "published_as": found.method, "source": found.source, "note": found.note}


def run_line(r: Record) -> dict[str, object]:
    """Return one run as a line of the tidy file."""
    keys = ("id", "method", "variant", "backbone", "protocol", "task", "seed", "status", "selected_on", "evaluated_on")
    point = asdict(r.point) | {"accuracy": r.point.accuracy} if r.point else {}
    nested: dict[str, Mapping[str, object]] = {"params": r.params, "seconds": r.seconds, "data": r.data}
    flat = {f"{name}_{key}": value for name, values in nested.items() for key, value in values.items()}
    own = {key: getattr(r, key) for key in keys} | {k: point[k] for k in ("correct", "total", "accuracy") if k in point}
    return own | flat | {"peak_bytes": r.peak_bytes}
