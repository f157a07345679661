"""Lines of the files for programs: one for each cell, one for each run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from san.record import Record
from san.report.published import PublishedNumber, published_numbers
from san.report.published_index import published_index
from san.report.rows import RunGroup
from san.report.value import CellStatus, Value, marks

# One run by column; which columns there are beside RUN_COLUMNS depends on its record.
RunFacts = dict[str, object]
RUN_COLUMNS = (
    "id",
    "method",
    "variant",
    "backbone",
    "weights",
    "protocol",
    "task",
    "seed",
    "status",
    "selected_on",
    "evaluated_on",
    "created",
)


@dataclass(frozen=True)
class CellFacts:
    """One cell: ours (kind `re-run`) with the gap to the published value, or a `cited` number.

    The fields are the columns of the file, in its order; None where a cell does not have one.
    """

    kind: str
    row: str
    task: str
    protocol: str | None = None
    mean: float | None = None
    std: float | None = None
    n: int | None = None
    status: CellStatus | None = None
    marks: str | None = None
    gap: float | None = None
    published: float | None = None
    published_as: str = ""
    params_m: float | None = None
    source: str = ""
    note: str = ""


def cell_facts(
    suite: str,
    backbone: str,
    groups: Sequence[RunGroup],
    labels: Sequence[str],
) -> Iterator[CellFacts]:
    """Yield our cells, then every published number. labels: of the groups, as in the table."""
    numbers = published_numbers(suite, backbone)
    # Several sources may quote a number; the first one counts.
    first = {(number.method, number.task): number for number in reversed(numbers)}
    our_methods = published_index().our_methods
    for group, label in zip(groups, labels, strict=True):
        published_as = our_methods.get(group.key.method, "")
        for task, value in group.cells.items():
            cell = _our_cell(group, label, task, value)
            number = first.get((published_as, task))
            yield cell if number is None else _beside(cell, number, value.mean - number.accuracy)
    for number in numbers:
        yield _beside(CellFacts("cited", number.method, number.task), number, None)


def run_facts(r: Record) -> RunFacts:
    """Return one run: the result, parameters, seconds and data that its record has."""
    line: RunFacts = {column: getattr(r, column) for column in RUN_COLUMNS}
    if r.score is not None:
        line["correct"] = r.score.correct
        line["total"] = r.score.total
        line["accuracy"] = r.score.accuracy
    parts = {"params": r.params, "seconds": r.seconds, "data": r.data}
    for name, part in parts.items():
        known = msgspec.to_builtins(part) or {}
        for key, value in known.items():
            line[f"{name}_{key}"] = value
    line["precision"] = r.config.get("precision")
    line["peak_bytes"] = r.peak_bytes
    return line


def _our_cell(group: RunGroup, label: str, task: str, value: Value) -> CellFacts:
    return CellFacts(
        kind="re-run",
        row=label,
        task=task,
        protocol=group.key.protocol,
        mean=value.mean,
        std=value.std,
        n=value.n,
        status=value.status,
        marks=marks(value.flags),
    )


def _beside(cell: CellFacts, number: PublishedNumber, gap: float | None) -> CellFacts:
    """Return a cell with the published number that stands beside it."""
    return replace(
        cell,
        gap=gap,
        published=number.accuracy,
        published_as=number.method,
        params_m=number.params_m,
        source=number.origin,
        note=number.note,
    )
