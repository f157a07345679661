"""Tables: a pure function of records and of published numbers.

Missing cells are shown, and never averaged over. Rows that were run again stand apart from rows
that are cited; gaps are ours minus the published value.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from san.record import Record
from san.report import published, tidy
from san.report.aggregate import AnswersOf, newest_done, no_answers, recipe_of
from san.report.best_on_test import optimism_notes
from san.report.comparability import Difference, notes_on_differences
from san.report.duplicates import deduplicate
from san.report.means import Column, accuracy_columns
from san.report.published import ComparisonClass, PublishedRow
from san.report.published_rows import make_published_row
from san.report.rows import (
    Row,
    RunGroup,
    group_runs,
    in_table,
    make_gap_row,
    make_our_row,
)
from san.report.standings import main_class, reference_names
from san.report.value import Flag
from san.report.verdict import Verdict, make_verdict
from san.runtime.formatting import count_of
from san.tasks import Suite

_LEAST_ROWS_OF_A_CLASS = 3  # of published rows, for a verdict of their own


@dataclass(frozen=True, eq=False)
class Section:
    """Rows of a kind."""

    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        """Return the row with a name, without marks; raise KeyError if there is none."""
        by_name = {row.name: row for row in self.rows}
        return by_name[name]


@dataclass(frozen=True, eq=False)
class Gap:
    """Ours minus a published row, and both of them."""

    ours: Row
    published: Row
    difference: Row


@dataclass(frozen=True)
class Table:
    """Sections of rows with the same columns of accuracies.

    split: the one that runs were scored on. published: the rows that are whole, or that one of ours
    is compared with. verdict: on ours; other_verdicts: on ours that were tuned otherwise, and
    published_verdicts: on the published rows of each class that can be compared. label: what the
    files are called, beside the suite. notes: the legend of the flags that occur, what differs, and
    what was left out and why. cells, runs: lines of the files for programs.
    """

    suite: Suite
    backbone: str
    split: str
    columns: tuple[Column, ...]
    ours: Section
    published: Section
    gaps: tuple[Gap, ...]
    verdict: Verdict
    other_verdicts: tuple[Verdict, ...]
    published_verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    cells: tuple[tidy.Line, ...]
    runs: tuple[tidy.Line, ...]
    label: str = ""

    @property
    def title(self) -> str:
        """The suite; the backbone and the split where they are not its own."""
        title = self.suite.title
        if self.backbone != self.suite.backbone:
            title += f", {self.backbone}"
        if self.split != "test":
            title += f", {self.split} split"
        return title

    @property
    def name(self) -> str:
        """What the files of the table are called."""
        name = self.suite.name
        if self.backbone != self.suite.backbone:
            name += f"_{self.backbone}"
        if self.split != "test":
            name += f"_{self.split}"
        if self.label:
            name += f"_{_file_label(self.label)}"
        return name

    @property
    def differences(self) -> Section:
        """The rows of gaps."""
        return Section(tuple(gap.difference for gap in self.gaps))


def _file_label(label: str) -> str:
    """Return a label as a part of a file's name, which two labels never share."""
    allowed = re.sub(r"[^\w.-]", "_", label)
    if allowed == label:
        return label
    return f"{allowed}_{hashlib.sha256(label.encode()).hexdigest()[:4]}"


def make_table(
    suite: Suite,
    records: Sequence[Record],
    backbone: str | None = None,
    *,
    split: str = "test",
    reference: str | None = None,
    answers_of: AnswersOf = no_answers,
) -> Table:
    """Make the table of a suite and a backbone from their records; others are ignored.

    backbone: the suite's own where it is None. split: the one that runs were scored on; published
    rows are of the test split. reference: the row or method that all are compared with, the leader
    where it is None. answers_of: returns which images of the split a run had right, or None.
    """
    backbone = backbone or suite.backbone
    own_records = [r for r in records if r.suite == suite.name and r.backbone == backbone]
    runs, conflicts = deduplicate(own_records)
    shown_runs = in_table(suite, runs, split)
    groups = group_runs(suite, shown_runs, answers_of)
    our_rows = [make_our_row(suite, group, groups) for group in groups]
    printed = published.all_published_rows(suite, backbone) if split == "test" else []
    published_rows = [make_published_row(suite, row, backbone) for row in printed]
    shown = _shown(suite, backbone, published_rows)
    notes = [
        *conflicts,
        *_excluded_note(len(runs) - len(shown_runs), split),
        *_make_legend([*our_rows, *shown]),
        *_row_notes(suite, groups, our_rows),
        *_answers_note(groups, answers_of),
        *_published_notes(published_rows, shown),
        *_estimate_note(shown),
        *optimism_notes(_counted(groups), _printed(published_rows)),
    ]
    verdict, *others = _our_verdicts(suite, our_rows, reference, split)
    return Table(
        suite=suite,
        backbone=backbone,
        split=split,
        columns=tuple(accuracy_columns(suite)),
        ours=Section(tuple(our_rows)),
        published=Section(tuple(shown)),
        gaps=tuple(_make_gaps(our_rows, shown)),
        verdict=verdict,
        other_verdicts=tuple(others),
        published_verdicts=tuple(_published_verdicts(suite, shown)),
        notes=tuple(notes),
        cells=tuple(_cell_lines(suite, backbone, our_rows, published_rows)),
        runs=tuple(tidy.run_line(r) for r in runs),
    )


def _answers_note(groups: Sequence[RunGroup], answers_of: AnswersOf) -> list[str]:
    """Say how many runs have lost the answers to each image that their records speak of."""
    if answers_of is no_answers:
        return []
    lost = sum(r.answers is not None and answers_of(r) is None for r in _counted(groups))
    if not lost:
        return []
    return [
        f"Of {count_of(lost, 'run')} the file of answers is missing or damaged: their tasks are "
        "compared by counts alone, which tells less apart."
    ]


def _counted(groups: Sequence[RunGroup]) -> list[Record]:
    """Return the runs behind the cells of rows: one for each seed."""
    runs: list[Record] = []
    for group in groups:
        for of_task in group.runs.values():
            runs += newest_done(of_task)
    return runs


def _printed(rows: Iterable[Row]) -> list[PublishedRow]:
    """Return what is printed of published rows that are no baselines."""
    return [row.published for row in rows if row.published is not None and not row.is_baseline]


def _shown(suite: Suite, backbone: str, rows: Sequence[Row]) -> list[Row]:
    """Return the published rows that a table shows, those compared with ours first."""
    by_name = {row.name: row for row in rows}
    shown, _ = published.published_rows(suite, backbone)
    return [by_name[row.method] for row in shown if row.method in by_name]


def _cell_lines(
    suite: Suite, backbone: str, ours: Sequence[Row], printed: Sequence[Row]
) -> Iterator[tidy.Line]:
    """Yield the lines of the file of cells: ours, then all that is published."""
    for row in ours:
        yield from tidy.our_lines(suite, backbone, row)
    numbers = published.published_numbers(suite.name, backbone)
    for row in printed:
        of_row = [number for number in numbers if number.method == row.name]
        yield from tidy.published_lines(suite, backbone, row, of_row)


def _our_verdicts(
    suite: Suite, rows: Sequence[Row], reference: str | None, split: str
) -> Iterator[Verdict]:
    """Yield a verdict on the rows that the table is about, then on those that were tuned otherwise.

    The reference decides which rows these are, if there is one.
    """
    asked = [row for row in rows if reference in reference_names([row])]
    main = main_class(asked or rows)
    if main is None and rows:  # baselines alone
        main = (asked or rows)[0].comparison_class
    classes = dict.fromkeys([main, *(row.comparison_class for row in rows)])
    for each in classes:
        members = [row for row in rows if row.comparison_class == each]
        if each == main:
            title = "measured here" if len(classes) == 1 else f"measured here ({main})"
            yield make_verdict(suite, members, title, reference, split=split)
        else:
            verdict = make_verdict(suite, members, f"measured here ({each})", is_brief=True)
            if len(verdict.standings.ranked) > 1:
                yield verdict


def _published_verdicts(suite: Suite, rows: Sequence[Row]) -> Iterator[Verdict]:
    """Yield a verdict on each class of published rows that can be compared with each other."""
    by_class: dict[ComparisonClass, list[Row]] = {}
    for row in rows:
        if row.published is not None and row.published.comparison_class is not None:
            by_class.setdefault(row.published.comparison_class, []).append(row)
    for (weights, selected_on), members in by_class.items():
        epoch = "the last epoch" if selected_on == "last" else f"the best epoch on {selected_on}"
        title = f"published ({epoch}, weights {weights})"
        verdict = make_verdict(suite, members, title, is_brief=True)
        if len(verdict.standings.ranked) >= _LEAST_ROWS_OF_A_CLASS:
            yield verdict


def _make_gaps(our_rows: Sequence[Row], published_rows: Sequence[Row]) -> Iterator[Gap]:
    """Yield the gap of each of our rows whose method has published numbers."""
    compared = {}
    for row in published_rows:
        if row.published is not None and row.published.has_numbers:
            compared[row.published.our_method] = row
    for ours in our_rows:
        if ours.key is not None and ours.key.method in compared:
            reference = compared[ours.key.method]
            yield Gap(ours, reference, make_gap_row(ours, reference))


def _excluded_note(count: int, split: str) -> list[str]:
    """Say how many records are not in the table."""
    if count == 0:
        return []
    return [f"Not in the {split} table: {count_of(count, 'record')} of another split or task."]


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


def _row_notes(suite: Suite, groups: Sequence[RunGroup], rows: Sequence[Row]) -> Iterator[str]:
    """Yield in what rows differ that are not compared, and where a recipe said nothing."""
    yield from _difference_notes(suite, groups, rows)
    yield from _fallback_notes(suite, groups, rows)


def _difference_notes(
    suite: Suite, groups: Sequence[RunGroup], rows: Sequence[Row]
) -> Iterator[str]:
    """Say in what rows differ that are not compared."""
    tasks: dict[tuple[str, Difference], list[str]] = {}
    for group, row in zip(groups, rows, strict=True):
        for difference in group.mixed:
            tasks[row.name, difference] = []
        for task, found in group.differences.items():
            for difference in found:
                tasks.setdefault((row.name, difference), []).append(suite.tasks[task].label)
    return notes_on_differences(tasks, len(suite.tasks))


def _fallback_notes(suite: Suite, groups: Sequence[RunGroup], rows: Sequence[Row]) -> Iterator[str]:
    """Say on which tasks a recipe had no row, so that a run had the values of the suite's own."""
    for group, row in zip(groups, rows, strict=True):
        tasks = []
        for task, of_task in group.runs.items():
            recipes = [recipe_of(r) for r in of_task]
            if any(each.get("rows") is not None and each.get("row") is None for each in recipes):
                tasks.append(suite.tasks[task].label)
        if tasks:
            yield (
                f"{row.name}: the recipe has no row for {', '.join(tasks)}; there the values are "
                "those of the suite's recipe."
            )


def _published_notes(rows: Sequence[Row], shown: Sequence[Row]) -> list[str]:
    """Return claims without numbers, and which published rows are left out."""
    notes = []
    for row in shown:
        printed: PublishedRow | None = row.published
        if printed is not None and printed.claim and not printed.accuracies:
            notes.append(f"{printed.method}: {printed.claim}.")
    shown_names = [row.name for row in shown]
    names = ", ".join(row.name for row in rows if row.name not in shown_names)
    if names:
        notes.append(f"Published, but incomplete, and in _cells.csv alone: {names}.")
    return notes


def _estimate_note(shown: Sequence[Row]) -> list[str]:
    """Say whose trained parameters without the head are not printed anywhere."""
    names = [row.name for row in shown if row.trainable.is_estimated]
    if not names:
        return []
    return [
        "Trained parameters without the head are the printed ones less the mean head of the tasks "
        f"for: {', '.join(names)}."
    ]
