"""Tables: a pure function of records. What is missing is shown as missing; no mean stands over an incomplete row."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from san.record import Record
from san.tasks import Suite

MISSING = "–"
MEANS = {"mean of all tasks": "all", "mean of groups": "groups"}
ON_TEST = "†"
CONFLICT = "‡"
MIXED = "§"
FORCED = "¶"
LEGEND = {
    ON_TEST: "the epoch was chosen on the test split",
    MIXED: "runs of this row differ in pre-trained weights, precision or the kind of data source",
    FORCED: "the data failed its check against the benchmark, and was forced (force_data=true)",
    CONFLICT: "a cell has records of different settings for one seed; the newest is shown",
}


@dataclass(frozen=True, order=True)
class Row:
    """What the runs of one row share."""

    method: str
    variant: str
    backbone: str
    protocol: str


@dataclass(frozen=True)
class Table:
    """cells: one line per row, columns (group, task label) and then the means, parameters and seeds, as text.

    numbers: the same in floats, percent, NaN where there is none. runs: one line per run. notes: the legend, and what
    was left out and why.
    """

    title: str
    cells: pd.DataFrame
    numbers: pd.DataFrame
    runs: pd.DataFrame
    notes: tuple[str, ...]


def make(suite: Suite, records: Sequence[Record]) -> Table:
    """Make a suite's table from its records; records of other suites are not looked at."""
    mine = [r for r in records if r.suite == suite.name]
    shown = [r for r in mine if r.evaluated_on == "test" and r.task in suite.tasks]
    notes = []
    if len(shown) < len(mine):
        notes.append(f"{len(mine) - len(shown)} records evaluated on another split or task are not in the table.")
    rows: dict[Row, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for r in shown:
        rows[Row(r.method, r.variant, r.backbone, r.protocol)][r.task].append(r)
    order = sorted(rows, key=lambda row: (rank(row.method, suite.methods), row))
    lines = [line(suite, row, rows[row]) for row in order]
    marks = {mark for _, cells in lines for mark in LEGEND if any(mark in str(cell) for cell in cells.values())}
    notes += [f"{mark} {text}." for mark, text in LEGEND.items() if mark in marks]
    mixed = [row for row in order if len(settings(rows[row])) > 1]
    notes += [f"{MIXED} {LEGEND[MIXED]}."] if mixed else []
    names = pd.Index([label(row, order, suite) + MIXED * (row in mixed) for row in order], name="method")
    columns = pd.MultiIndex.from_tuples(header(suite))
    return Table(
        suite.title,
        pd.DataFrame([cells for _, cells in lines], index=names, columns=columns),
        pd.DataFrame([numbers for numbers, _ in lines], index=names, columns=columns),
        pd.DataFrame([run_line(r) for r in mine]),
        tuple(notes),
    )


def rank(method: str, methods: Sequence[str]) -> int:
    """Place the suite's own methods first, in its order."""
    return methods.index(method) if method in methods else len(methods)


def header(suite: Suite) -> list[tuple[str, str]]:
    """Return the columns: tasks under their groups, then the summary."""
    tasks = [(group, t.label) for group in suite.groups for t in suite.tasks.values() if t.group == group]
    groups = [("mean of", group) for group in suite.groups]
    return [*tasks, *groups, *(("mean", MEANS[name]) for name in suite.means), *SUMMARY]


SUMMARY = [("trainable", "without head"), ("trainable", "with head"), ("runs", "seeds")]


def line(
    suite: Suite, row: Row, by_task: Mapping[str, list[Record]]
) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], str]]:
    """Return one row as numbers and as text, by column."""
    numbers: dict[tuple[str, str], float] = {}
    texts: dict[tuple[str, str], str] = {}
    for task in suite.tasks.values():
        key = (task.group, task.label)
        numbers[key], texts[key] = cell(by_task.get(task.name, []))
    by_group = {g: mean([v for (group, _), v in numbers.items() if group == g]) for g in suite.groups}
    everything = mean(list(numbers.values()))
    numbers |= {("mean of", group): value for group, value in by_group.items()}
    overall = {"all": everything, "groups": mean(list(by_group.values()))}
    numbers |= {("mean", MEANS[name]): overall[MEANS[name]] for name in suite.means}
    done = [r for runs in by_task.values() for r in runs if r.status == "done"]
    seeds = [len({r.seed for r in by_task.get(task, []) if r.status == "done"}) for task in suite.tasks]
    numbers[SUMMARY[0]] = mean([r.params["trainable"] - r.params["head"] for r in done])
    numbers[SUMMARY[1]] = mean([r.params["trainable"] for r in done])
    numbers[SUMMARY[2]] = min(seeds)
    mark = ON_TEST if any(r.selected_on != "last" for r in done) else ""
    for key, value in numbers.items():
        texts.setdefault(key, f"{value:.2f}{mark}" if not math.isnan(value) else MISSING)
    for key in SUMMARY[:2]:
        texts[key] = f"{numbers[key]:,.0f}" if done else MISSING
    texts[SUMMARY[2]] = str(seeds[0]) if len(set(seeds)) == 1 else f"{min(seeds)} to {max(seeds)}"
    return numbers, texts


def settings(by_task: Mapping[str, list[Record]]) -> set[tuple[object, ...]]:
    """Return the weights, precisions and kinds of data source that the runs of a row were made with."""
    runs = [r for runs in by_task.values() for r in runs if r.status == "done"]
    return {(r.weights, r.config.get("precision"), r.data.get("kind")) for r in runs}


def mean(values: Sequence[float]) -> float:
    """Return the plain mean; NaN if anything is missing or there is nothing."""
    return sum(values) / len(values) if values else float("nan")


def cell(runs: Sequence[Record]) -> tuple[float, str]:
    """Return the mean accuracy over the seeds of a cell, and its text with the sample standard deviation."""
    newest: dict[int, Record] = {}
    for r in sorted(runs, key=lambda r: (r.status == "done", r.created)):
        newest[r.seed] = r
    done = [r.accuracy for r in newest.values() if r.status == "done"]
    lost = sorted({"OOM" if r.status == "oom" else r.status for r in newest.values() if r.status != "done"})
    if not done:
        return float("nan"), lost[0] if lost else MISSING
    marks = ON_TEST if any(r.selected_on != "last" for r in newest.values()) else ""
    finished = [r for r in runs if r.status == "done"]
    marks += FORCED if any(r.data.get("forced") for r in finished) else ""
    marks += CONFLICT if len(finished) > len({r.seed for r in finished}) else ""
    spread = f" ± {pd.Series(done).std():.2f}" if len(done) > 1 else ""
    failures = f" ({', '.join(lost)})" if lost else ""
    return mean(done), f"{mean(done):.2f}{spread}{marks}{failures}"


def label(row: Row, rows: Sequence[Row], suite: Suite) -> str:
    """Name a row: the method, and whatever tells it from others."""
    extra = [row.variant] if row.variant else []
    extra += [row.backbone] if row.backbone != suite.backbone else []
    extra += [row.protocol] if len({other.protocol for other in rows}) > 1 else []
    return row.method + (f" [{', '.join(extra)}]" if extra else "")


def run_line(r: Record) -> dict[str, object]:
    """Return one run as a line of the tidy file."""
    keys = ("id", "method", "variant", "backbone", "protocol", "task", "seed", "status", "selected_on", "evaluated_on")
    point = r.point
    outcome = {"correct": point.correct, "total": point.total, "accuracy": point.accuracy} if point else {}
    counts = {f"params_{key}": value for key, value in r.params.items()}
    seconds = {f"seconds_{key}": value for key, value in r.seconds.items()}
    source = {f"data_{key}": value for key, value in r.data.items()}
    return {key: getattr(r, key) for key in keys} | outcome | counts | seconds | {"peak_bytes": r.peak_bytes} | source


def markdown(table: Table) -> str:
    """Return the table in Markdown, for a terminal too: tasks down, methods across."""
    turned = table.cells.T.rename_axis(index=["", "task"], columns=None).reset_index()
    repeated = turned[""].duplicated()
    turned[""] = turned[""].mask(repeated, "")
    align = ["left", "left", *["right"] * len(table.cells)]
    text = turned.to_markdown(index=False, disable_numparse=True, colalign=align)
    return "\n".join([f"**{table.title}**, top-1 accuracy in percent\n", text, "", *table.notes]).rstrip() + "\n"


def latex(table: Table) -> str:
    r"""Return the table for LaTeX's booktabs package, ready for `\input`."""
    plain = table.cells.rename_axis(index=None).map(lambda text: text.replace(MISSING, "--").replace(" ± ", " \\pm "))
    cells = plain.map(lambda text: f"${text}$" if "\\pm" in text else text)
    body = cells.rename(index=lambda name: name.replace("_", "\\_")).to_latex(multicolumn_format="c")
    marks = {ON_TEST: "\\textdagger{}", CONFLICT: "\\textdaggerdbl{}", MIXED: "\\S{}", FORCED: "\\P{}"}
    for mark, command in marks.items():
        body = body.replace(mark, command)
    return body + "".join(f"% {note}\n" for note in table.notes)


def write(table: Table, folder: Path, name: str) -> list[Path]:
    """Write `<name>.csv` (wide, numbers), `<name>_runs.csv` (a line per run), `.md` and `.tex`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    wide = table.numbers.set_axis([" ".join(filter(None, column)) for column in table.numbers.columns], axis=1)
    texts = {
        f"{name}.csv": wide.to_csv(),
        f"{name}_runs.csv": table.runs.to_csv(index=False),
        f"{name}.md": markdown(table),
        f"{name}.tex": latex(table),
    }
    for file, text in texts.items():
        (folder / file).write_text(text)
    return [folder / file for file in texts]
