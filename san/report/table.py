"""Tables: a pure function of records and of published numbers.

Missing cells are shown, and never averaged over. Rows that were run again stand apart from rows
that are cited; gaps are ours minus the published value.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from san.record import Record
from san.report import facts, published
from san.report.aggregate import Column, accuracy_columns
from san.report.published import PublishedRow
from san.report.rows import (
    Row,
    RunGroup,
    group_runs,
    in_table,
    make_gap_row,
    make_our_row,
    make_published_row,
)
from san.report.value import Flag
from san.tasks import Suite


@dataclass(frozen=True)
class Section:
    """Rows of a kind."""

    rows: tuple[Row, ...]

    def row(self, label: str) -> Row:
        """Return the row with a label; raise KeyError if there is none."""
        by_label = {row.label: row for row in self.rows}
        return by_label[label]


@dataclass(frozen=True)
class Gap:
    """Ours minus a published row, and that row."""

    published: Row
    difference: Row


@dataclass(frozen=True)
class Table:
    """Sections of rows with the same columns of accuracies.

    notes: the legend of the flags that occur, and what was left out and why. cells, runs: lines of
    the files for programs.
    """

    title: str
    columns: tuple[Column, ...]
    ours: Section
    published: Section
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]
    cells: tuple[facts.CellFacts, ...]
    runs: tuple[facts.RunFacts, ...]

    @property
    def differences(self) -> Section:
        """The rows of gaps."""
        return Section(tuple(gap.difference for gap in self.gaps))


def make_table(suite: Suite, records: Sequence[Record], backbone: str | None = None) -> Table:
    """Make the table of a suite and a backbone from their records; others are ignored.

    backbone: the suite's own where it is None.
    """
    backbone = backbone or suite.backbone
    title = suite.title if backbone == suite.backbone else f"{suite.title}, {backbone}"
    own_records = [r for r in records if r.suite == suite.name and r.backbone == backbone]
    runs, conflicts = _deduplicate(own_records)
    shown_runs = in_table(suite, runs)
    groups = group_runs(suite, shown_runs)
    our_rows = [make_our_row(suite, group, groups) for group in groups]
    printed, omitted = published.published_rows(suite, backbone)
    published_rows = [make_published_row(suite, row, backbone) for row in printed]
    gaps = _make_gaps(groups, our_rows, printed, published_rows)
    labels = [row.label for row in our_rows]
    notes = [
        *conflicts,
        *_excluded_note(len(runs) - len(shown_runs)),
        *_make_legend([*our_rows, *published_rows]),
        *_published_notes(printed, omitted),
    ]
    return Table(
        title=title,
        columns=tuple(accuracy_columns(suite)),
        ours=Section(tuple(our_rows)),
        published=Section(tuple(published_rows)),
        gaps=tuple(gaps),
        notes=tuple(notes),
        cells=tuple(facts.cell_facts(suite.name, backbone, groups, labels)),
        runs=tuple(facts.run_facts(r) for r in runs),
    )


def _deduplicate(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Leave out copies of records, of which the newest stays.

    Also return a note on each identity that has different results; these all stay.
    """
    by_identity: dict[object, dict[object, Record]] = {}
    for r in sorted(records, key=lambda r: r.created):
        results = by_identity.setdefault((r.id, r.task, r.method, r.seed), {})
        results[r.status, _counts(r), r.params] = r
    kept = []
    notes = []
    for results in by_identity.values():
        different = list(results.values())
        kept += different
        if len(different) > 1:
            notes.append(_conflict_note(different))
    return kept, notes


def _counts(r: Record) -> tuple[int, int, int] | None:
    """Return what a result is compared by: losses differ by rounding between machines."""
    return None if r.score is None else (r.score.epoch, r.score.correct, r.score.total)


def _conflict_note(records: Sequence[Record]) -> str:
    """Say that records of one identity have different results."""
    first = records[0]
    results = ", ".join(_describe_result(r) for r in records)
    return (
        f"{Flag.CONFLICT.mark} {first.task} {first.method} seed {first.seed} has {len(records)} "
        f"records of one identity ({first.id}) with other results: {results}."
    )


def _describe_result(r: Record) -> str:
    """Say how a run ended."""
    if r.score is None:
        return r.status
    return f"{r.score.correct} of {r.score.total}"


def _make_gaps(
    groups: Sequence[RunGroup],
    our_rows: Sequence[Row],
    printed: Sequence[PublishedRow],
    published_rows: Sequence[Row],
) -> Iterator[Gap]:
    """Yield the gap of each of our rows whose method has published numbers."""
    compared = {}
    for published_row, row in zip(printed, published_rows, strict=True):
        if published_row.has_numbers:
            compared[published_row.our_method] = row
    for group, ours in zip(groups, our_rows, strict=True):
        if group.key.method in compared:
            reference = compared[group.key.method]
            yield Gap(reference, make_gap_row(ours, reference))


def _excluded_note(count: int) -> list[str]:
    """Say how many records are not in the table."""
    if count == 0:
        return []
    return [f"{count} records evaluated on another split or task are not in the table."]


def _make_legend(rows: Sequence[Row]) -> list[str]:
    """Explain the spread and the flags that occur."""
    flags: set[Flag] = set()
    most_seeds = 0
    for row in rows:
        flags |= row.flags
        for value in row.values.values():
            flags |= value.visible_flags
            most_seeds = max(most_seeds, value.n)
    legend = []
    if most_seeds > 1:
        legend.append("± standard deviation over seeds, and their number.")
    legend += [f"{flag.mark} {flag.legend}." for flag in Flag if flag in flags]
    return legend


def _published_notes(rows: Sequence[PublishedRow], omitted: Sequence[str]) -> list[str]:
    """Return claims without numbers, and which published rows are left out."""
    notes = []
    for row in rows:
        if row.claim and not row.accuracies:
            notes.append(f"{row.method}: {row.claim}.")
    if omitted:
        names = ", ".join(omitted)
        notes.append(f"Published, but incomplete, and in _cells.csv alone: {names}.")
    return notes
