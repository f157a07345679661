"""Tables: a pure function of records and of what is published. What is missing is shown, and never averaged over.

Rows that were run again stand apart from rows that are cited; gaps are ours minus the published value.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from san.record import Record
from san.report import published
from san.report.aggregate import (
    CONFLICT,
    FEWER,
    LEGEND,
    MISSING,
    MIXED,
    ON_TEST,
    STATED,
    SUMMARY,
    UNKNOWN,
    WEIGHTS,
    CellStats,
    Column,
    aggregate_cell,
    format_number,
    mean,
    table_columns,
    table_means,
)
from san.report.published import PublishedRow
from san.tasks import Suite

Line = tuple[dict[Column, float], dict[Column, str]]


@dataclass(frozen=True, order=True)
class Row:
    """What the runs of one row share."""

    method: str
    variant: str
    protocol: str


@dataclass(frozen=True)
class Section:
    """Rows of a kind, columns (group, task label) and then means, parameters and seeds: as text, and in floats."""

    cells: pd.DataFrame
    numbers: pd.DataFrame


@dataclass(frozen=True)
class Table:
    """ours, cited, gaps: blocks of rows with the same columns. pairs: of each gap the cited row.

    runs: a line per run; facts: a line per cell.

    notes: the legend of the marks that occur, and what was left out and why.
    """

    title: str
    ours: Section
    cited: Section
    gaps: Section
    pairs: Mapping[str, str]
    runs: pd.DataFrame
    facts: pd.DataFrame
    notes: tuple[str, ...]


def make_table(suite: Suite, records: Sequence[Record], backbone: str | None = None) -> Table:
    """Make the table of a suite and a backbone (the suite's own); other records are not looked at."""
    backbone = backbone or suite.backbone
    mine, notes = deduplicate(
        [r for r in records if r.suite == suite.name and r.backbone == backbone]
    )
    fitting = [r for r in mine if r.evaluated_on == "test" and r.task in suite.tasks]
    by_row: dict[Row, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for r in fitting:
        by_row[Row(r.method, r.variant, r.protocol)][r.task].append(r)
    order = sorted(by_row, key=lambda row: (method_order(row.method, suite.methods), row))
    cells = {row: {t: aggregate_cell(by_row[row].get(t, [])) for t in suite.tasks} for row in order}
    names = {row: row_label(row, order) + row_marks(row, by_row, cells) for row in order}
    rows, omitted = published.published_rows(suite, backbone)
    own = {row: row_of(suite, cells[row]) for row in order}
    printed = {r: published_row(suite, r) for r in rows}
    labels = {r: r.method + cited_marks(r, backbone) for r in rows}
    pairs = {
        row: r for row in order for r in rows if r.ours == row.method and (r.tasks or r.stated)
    }
    ours = make_section({names[row]: found for row, found in own.items()}, suite)
    cited = make_section({labels[r]: found for r, found in printed.items()}, suite)
    named = {row: f"{names[row]} - {labels[r]}" for row, r in pairs.items()}
    gaps = make_section(
        {named[row]: gap_line(own[row], printed[r]) for row, r in pairs.items()}, suite
    )
    lines = cell_rows(suite, {names[row]: (row, cells[row]) for row in order}, backbone)
    if len(fitting) < len(mine):
        notes.append(
            f"{len(mine) - len(fitting)} records evaluated on another split or task are not in the table."
        )
    notes += make_legend(ours, cited) + [
        f"{r.method}: {r.claim}." for r in rows if r.claim and not r.tasks
    ]
    if omitted:
        notes.append(f"Published, but incomplete, and in _cells.csv alone: {', '.join(omitted)}.")
    runs = pd.DataFrame([run_row(r) for r in mine]) if mine else pd.DataFrame(columns=RUNS)
    title = suite.title if backbone == suite.backbone else f"{suite.title}, {backbone}"
    beside = {named[row]: labels[r] for row, r in pairs.items()}
    return Table(title, ours, cited, gaps, beside, runs, lines, tuple(notes))


def deduplicate(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Leave out copies of records; report those of one identity that have different results, which all stay."""
    outcomes: dict[object, dict[object, Record]] = defaultdict(dict)
    for r in sorted(records, key=lambda r: r.created):
        outcomes[r.id, r.task, r.method, r.seed][r.status, r.point, *sorted(r.params.items())] = r
    notes = []
    for different in outcomes.values():
        found = list(different.values())
        if len(found) > 1:
            run, ends = (
                f"{found[0].task} {found[0].method} seed {found[0].seed}",
                ", ".join(outcome(r) for r in found),
            )
            notes.append(
                f"{CONFLICT} {run} has {len(found)} records of one identity ({found[0].id}) with other results: {ends}."
            )
    return [r for different in outcomes.values() for r in different.values()], notes


def outcome(r: Record) -> str:
    """Say how a run ended."""
    return f"{r.point.correct} of {r.point.total}" if r.point else r.status


def method_order(method: str, methods: Sequence[str]) -> int:
    """Place the suite's own methods first, in its order."""
    return methods.index(method) if method in methods else len(methods)


def make_section(lines: Mapping[str, Line], suite: Suite) -> Section:
    """Put lines of numbers and texts into frames."""
    columns = pd.MultiIndex.from_tuples(table_columns(suite))
    names = pd.Index(list(lines), name="method", dtype=object)
    texts = pd.DataFrame([texts for _, texts in lines.values()], index=names, columns=columns)
    return Section(
        texts,
        pd.DataFrame([numbers for numbers, _ in lines.values()], index=names, columns=columns),
    )


def row_of(suite: Suite, cells: Mapping[str, CellStats]) -> Line:
    """Return a row of ours as numbers and as text, by column; a mean has the marks of all that it is made of."""
    columns = {t: (task.group, task.label) for t, task in suite.tasks.items()}
    values = {t: c.mean for t, c in cells.items()}
    numbers = {columns[t]: value for t, value in values.items()} | table_means(suite, values, {})
    marks = "".join(mark for mark in LEGEND if any(mark in c.marks for c in cells.values()))
    marks += FEWER * any(c.status not in ("done", "missing") for c in cells.values())
    texts = {key: format_number(value, ".2f", marks) for key, value in numbers.items()}
    texts |= {columns[t]: c.text for t, c in cells.items()}
    counts = {key: mean([c.params[i] for c in cells.values()]) for i, key in enumerate(SUMMARY[:2])}
    seeds = [c.n for c in cells.values()]
    texts |= {key: format_number(value, ",.0f") for key, value in counts.items()}
    texts[SUMMARY[2]] = str(seeds[0]) if len(set(seeds)) == 1 else f"{min(seeds)} to {max(seeds)}"
    return numbers | counts | {SUMMARY[2]: min(seeds)}, texts


def published_row(suite: Suite, r: PublishedRow) -> Line:
    """Return a published row as numbers and as text, by column; its means are computed from its cells by our rules."""
    values = {t: r.tasks.get(t, math.nan) for t in suite.tasks}
    numbers = {(task.group, task.label): values[t] for t, task in suite.tasks.items()}
    texts = {
        key: format_number(value, ".1f" if round(value, 1) == value else ".2f")
        for key, value in numbers.items()
    }
    computed, summary = table_means(suite, values, {}), table_means(suite, values, r.stated)
    texts |= {
        key: format_number(value, ".2f", STATED * math.isnan(computed[key]))
        for key, value in summary.items()
    }
    params = math.nan if r.params_m is None else 1e6 * r.params_m
    counts = {
        SUMMARY[0]: math.nan if r.head is not False else params,
        SUMMARY[1]: params if r.head else math.nan,
    }
    texts |= {
        key: MISSING if math.isnan(value) else f"{value / 1e6:.3g} M"
        for key, value in counts.items()
    }
    return numbers | summary | counts | {SUMMARY[2]: math.nan}, texts | {SUMMARY[2]: MISSING}


def gap_line(ours: Line, cited: Line) -> Line:
    """Return ours minus the published value, by column of accuracies, with the marks of both."""
    (own, own_text), (printed, printed_text) = ours, cited
    gaps = {key: math.nan if key in SUMMARY else value - printed[key] for key, value in own.items()}
    marks = {
        key: "".join(mark for mark in LEGEND if mark in own_text[key] + printed_text[key])
        for key in gaps
    }
    return gaps, {key: format_number(value, "+.2f", marks[key]) for key, value in gaps.items()}


def preprocessing(r: Record) -> tuple[str | None, str | None]:
    """Return the resize and the normalisation of a run, as far as its record says."""
    chosen = r.config.get("data") or {}
    return chosen.get("resize"), chosen.get("normalise")


def row_marks(
    row: Row,
    rows: Mapping[Row, Mapping[str, list[Record]]],
    cells: Mapping[Row, Mapping[str, CellStats]],
) -> str:
    """Return the marks of one of our rows as a whole: mixed settings, fewer seeds than others."""
    runs = [r for runs in rows[row].values() for r in runs if r.status == "done"]
    settings = {
        (r.weights, r.config.get("precision"), r.data.get("kind"), preprocessing(r)) for r in runs
    }
    seeds = {other: min((c.n for c in cells[other].values() if c.n), default=0) for other in rows}
    data = [
        {(r.data.get("train"), r.data.get("evaluate")) for r in found if r.status == "done"}
        for found in rows[row].values()
    ]
    mixed = len(settings) > 1 or any(len(found) > 1 for found in data)
    return MIXED * mixed + FEWER * (0 < seeds[row] < max(seeds.values()))


def cited_marks(r: PublishedRow, backbone: str) -> str:
    """Return the marks of a published row."""
    vit = published.published_index()["backbones"][backbone] == "ViT-B/16"
    unknown = r.selected_on is None or (vit and r.weights is None)
    other = r.weights is not None and r.weights != backbone
    return (
        ON_TEST * (r.selected_on == "test")
        + WEIGHTS * other
        + UNKNOWN * (unknown and bool(r.tasks or r.stated))
    )


def make_legend(ours: Section, cited: Section) -> list[str]:
    """Explain the marks that occur."""
    names = [str(name) for b in (ours, cited) for name in b.cells.index]
    ends = [
        name[len(name.rstrip("".join(LEGEND))) :] for name in names
    ]  # a variant may have such characters in it
    text = "".join([*ends, *(str(part) for b in (ours, cited) for part in b.cells.to_numpy().flat)])
    seeds = ["± standard deviation over seeds, and their number."] if "±" in text else []
    return seeds + [f"{mark} {meaning}." for mark, meaning in LEGEND.items() if mark in text]


def row_label(row: Row, rows: Sequence[Row]) -> str:
    """Name a row: the method, and whatever tells it from others."""
    extra = [" ".join(row.variant.split())] if row.variant else []
    extra += [row.protocol] if len({other.protocol for other in rows}) > 1 else []
    return row.method + (f" [{', '.join(extra)}]" if extra else "")


FACTS = (
    "kind", "row", "task", "protocol", "mean", "std", "n", "status", "marks", "gap", "published", "published_as",
    "params_m", "source", "note",
)  # fmt: skip
RUNS = (
    "id", "method", "variant", "backbone", "weights", "protocol", "task", "seed", "status", "selected_on",
    "evaluated_on", "created",
)  # fmt: skip


def cell_rows(
    suite: Suite, ours: Mapping[str, tuple[Row, Mapping[str, CellStats]]], backbone: str
) -> pd.DataFrame:
    """Return a line for each cell: ours, the published value with its source, the gap; and for each cited number."""
    cited = published.published_numbers(suite.name, backbone)
    first = {(c.method, c.task): c for c in reversed(cited)}
    lines = []
    for name, (row, cells) in ours.items():
        for task, c in cells.items():
            found = first.get((published.published_index()["ours"].get(row.method, ""), task))
            gap = c.mean - found.accuracy if found else None
            own = {
                "protocol": row.protocol,
                "mean": c.mean,
                "std": c.std,
                "n": c.n,
                "status": c.status,
                "marks": c.marks,
            }
            lines.append(
                {"kind": "re-run", "row": name, "task": task}
                | own
                | {"gap": gap}
                | published_facts(found)
            )
    lines += [
        {"kind": "cited", "row": found.method, "task": found.task} | published_facts(found)
        for found in cited
    ]
    return pd.DataFrame(lines, columns=FACTS)


def published_facts(found: published.PublishedNumber | None) -> dict[str, object]:
    """Return what is published of a cell."""
    if found is None:
        return {"published": None, "published_as": "", "params_m": None, "source": "", "note": ""}
    return {
        "published": found.accuracy,
        "published_as": found.method,
        "params_m": found.params_m,
        "source": found.source,
        "note": found.note,
    }


def run_row(r: Record) -> dict[str, object]:
    """Return one run as a line of the tidy file."""
    point = asdict(r.point) | {"accuracy": r.point.accuracy} if r.point else {}
    nested: dict[str, Mapping[str, object]] = {
        "params": r.params,
        "seconds": r.seconds,
        "data": r.data,
    }
    flat = {
        f"{name}_{key}": value for name, values in nested.items() for key, value in values.items()
    }
    own = {key: getattr(r, key) for key in RUNS} | {
        k: point[k] for k in ("correct", "total", "accuracy") if k in point
    }
    return own | flat | {"precision": r.config.get("precision"), "peak_bytes": r.peak_bytes}
