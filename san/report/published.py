"""The numbers that papers print, each with its source (benchmarks/published/)."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from san.errors import choose
from san.installation import BENCHMARKS
from san.report.published_index import (
    ProtocolFamily,
    counts_head,
    is_vit_b16,
    method_paper,
    published_index,
)
from san.report.published_sources import find_source
from san.tasks import Suite

FOLDER = BENCHMARKS / "published"
# Tasks of the files that are a mean over a whole suite; the last where a source does not say which.
MEAN_OF_TASKS = "mean_of_tasks"
MEAN_OF_GROUPS = "mean_of_groups"
UNSPECIFIED_MEAN = "mean"


class Place(NamedTuple):
    """A table of a source; without its number where that is not known or there is none."""

    key: str
    table: str = ""

    def __str__(self) -> str:
        """Return what a person reads, such as `jia2022vpt, Table 13`."""
        return f"{self.key}, Table {self.table}" if self.table else self.key


class ComparisonClass(NamedTuple):
    """What published rows have to share before one may be called better than another."""

    weights: str
    selected_on: str


@dataclass(frozen=True)
class PublishedNumber:
    """A printed accuracy in percent, of a task or of a stated mean (`natural`, MEAN_OF_TASKS).

    task: with a colon, a variant of it. params_m: printed parameters in millions. family: of its
    protocol, or nothing where that is not known. source, table: whose number it is; no source where
    that is not known. quoted_through: where it was really read, where that is not the source.
    """

    method: str
    task: str
    accuracy: float
    params_m: float | None
    family: str
    source: str
    table: str
    quoted_through: tuple[Place, ...]
    note: str

    @property
    def origin(self) -> str:
        """Whose number it is and where it was read, in words; the keys are in sources.yaml."""
        owner = str(Place(self.source, self.table)) if self.source else "not known"
        if not self.quoted_through:
            return owner
        return f"{owner}; read in {'; '.join(map(str, self.quoted_through))}"


@dataclass(frozen=True, eq=False)
class PublishedRow:
    """A row as papers print it.

    our_method: ours that is compared with it, or nothing. accuracies: percent by task.
    reported_means: percent by group, where a source states them. mean_of_tasks, mean_of_groups: in
    percent as stated; in a suite of one group they are one. params_m: millions of trained
    parameters as printed, the mean over tasks; params_tasks: of what they are printed;
    counts_head: whether the head is among them.
    family: of its protocol; weights, selected_on: of its family. None where it is not known.
    protocol: what the family does in this suite, in words.
    cite_key: of the source that owns its numbers; where that is not known of the one that quotes
    them, and of the method's paper where there are none; else nothing. claim: a sentence in place
    of numbers.
    """

    method: str
    our_method: str
    accuracies: Mapping[str, float]
    reported_means: Mapping[str, float]
    mean_of_tasks: float | None = None
    mean_of_groups: float | None = None
    params_m: float | None = None
    params_tasks: tuple[str, ...] = ()
    counts_head: bool | None = None
    family: str = ""
    weights: str | None = None
    selected_on: str | None = None
    protocol: str = ""
    cite_key: str = ""
    claim: str = ""

    @property
    def has_numbers(self) -> bool:
        """Whether anything is printed that a table has a column for."""
        has_overall = self.mean_of_tasks is not None or self.mean_of_groups is not None
        return has_overall or bool(self.accuracies or self.reported_means)

    @property
    def comparison_class(self) -> ComparisonClass | None:
        """What it shares with the rows that it may be compared with; None if it may with none."""
        if self.weights is None or self.selected_on is None:
            return None
        return ComparisonClass(self.weights, self.selected_on)


@cache
def published_numbers(suite: str, backbone: str) -> tuple[PublishedNumber, ...]:
    """Return every published number of a suite with a backbone, in the order of the file."""
    path = FOLDER / f"{suite}.csv"
    printed_name = published_index().backbones.get(backbone)
    if not path.is_file() or printed_name is None:
        return ()
    numbers = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["backbone"] == printed_name:
                numbers.append(_read_number(row, path.name))
    return tuple(numbers)


def all_published_rows(suite: Suite, backbone: str) -> list[PublishedRow]:
    """Return the published rows of a suite, complete or not, in the order of the file."""
    by_method: dict[str, list[PublishedNumber]] = {}
    for number in published_numbers(suite.name, backbone):
        by_method.setdefault(number.method, []).append(number)
    if by_method:
        for method in published_index().claims:
            by_method.setdefault(method, [])
    rows = []
    for name, found in by_method.items():
        rows.append(_make_row(suite, name, found, backbone))
    return rows


def published_rows(suite: Suite, backbone: str) -> tuple[list[PublishedRow], list[str]]:
    """Return the published rows of a suite, and the names of those that are left out.

    Rows that one of our methods is compared with come first, in our order. Of the others, a row is
    left out where no mean is known: tasks are missing, and no source states what replaces them.
    """
    rows = all_published_rows(suite, backbone)
    shown = []
    omitted = []
    for row in rows:
        if row.our_method or row.claim or _has_a_mean(suite, row):
            shown.append(row)
        else:
            omitted.append(row.method)
    shown.sort(key=_position)
    return shown, omitted


def _read_number(row: Mapping[str, str], where: str) -> PublishedNumber:
    """Turn a line of a CSV file into a number; raise UnknownNameError on an unknown source."""
    number = PublishedNumber(
        method=row["method"],
        task=row["task"],
        accuracy=float(row["accuracy"]),
        params_m=float(row["params_m"]) if row["params_m"] else None,
        family=row["family"],
        source=row["source"],
        table=row["table"],
        quoted_through=tuple(_read_places(row["quoted_through"])),
        note=row["note"],
    )
    for key in _cited_keys(number):
        find_source(key, where)
    return number


def _read_places(text: str) -> Iterator[Place]:
    """Yield the places of a text such as `noah_figure:1 vpetl_readme`."""
    for word in text.split():
        key, _, table = word.partition(":")
        yield Place(key, table)


def _cited_keys(number: PublishedNumber) -> list[str]:
    """Return the keys of a number's sources, the owner first."""
    owner = [number.source] if number.source else []
    return owner + [place.key for place in number.quoted_through]


def _has_a_mean(suite: Suite, row: PublishedRow) -> bool:
    """Return whether a mean over the suite is known: stated, or from tasks and means of groups."""
    if row.mean_of_tasks is not None or row.mean_of_groups is not None:
        return True
    for task in suite.tasks.values():
        if task.name not in row.accuracies and task.group not in row.reported_means:
            return False
    return True


def _position(row: PublishedRow) -> int:
    """Return the position of our method in rows.yaml; rows without one come last."""
    order = list(published_index().our_methods)
    return order.index(row.our_method) if row.our_method else len(order)


def _make_row(
    suite: Suite,
    method: str,
    numbers: Sequence[PublishedNumber],
    backbone: str,
) -> PublishedRow:
    """Return one row from its numbers."""
    # Several sources may quote a number; the first one counts.
    first = {number.task: number.accuracy for number in reversed(numbers)}
    accuracies = {task: first[task] for task in suite.tasks if task in first}
    family_name = _family_name(suite.name, numbers)
    family = published_index().families.get(family_name, ProtocolFamily())
    return PublishedRow(
        method=method,
        our_method=_our_method(method),
        accuracies=accuracies,
        reported_means=_reported_means(suite, first),
        mean_of_tasks=first.get(MEAN_OF_TASKS),
        mean_of_groups=first.get(MEAN_OF_GROUPS),
        params_m=_mean_params(numbers, accuracies),
        params_tasks=tuple(n.task for n in numbers if n.params_m is not None),
        counts_head=counts_head(suite.name, method),
        family=family_name,
        weights=family.weights if is_vit_b16(backbone) else None,
        selected_on=family.selected_on,
        protocol=family.description.get(suite.name, ""),
        cite_key=_cite_key(method, numbers),
        claim=_claim(suite, method, first),
    )


def _our_method(row_name: str) -> str:
    """Return which of our methods is compared with a row, or nothing."""
    for method, printed_name in published_index().our_methods.items():
        if printed_name == row_name:
            return method
    return ""


def _reported_means(suite: Suite, printed: Mapping[str, float]) -> dict[str, float]:
    """Return the printed means by group; the mean of a suite of one group is that group's."""
    means = {group: printed[group] for group in suite.groups if group in printed}
    if len(suite.groups) == 1 and UNSPECIFIED_MEAN in printed:
        means[suite.groups[0]] = printed[UNSPECIFIED_MEAN]
    return means


def _claim(suite: Suite, method: str, printed: Mapping[str, float]) -> str:
    """Return what is said of a row in place of numbers, or nothing."""
    claimed = published_index().claims.get(method, "")
    if set(printed) != {UNSPECIFIED_MEAN} or len(suite.groups) == 1:
        return claimed
    return f"a mean of {printed[UNSPECIFIED_MEAN]:g} alone is published; of what, is not said"


def _mean_params(
    numbers: Sequence[PublishedNumber],
    accuracies: Mapping[str, float],
) -> float | None:
    """Return the mean of the printed parameters in millions: of tasks, if there are any."""
    counts = []
    for number in numbers:
        is_counted = number.task in accuracies or not accuracies
        if is_counted and number.params_m is not None:
            counts.append(number.params_m)
    return sum(counts) / len(counts) if counts else None


def _family_name(suite: str, numbers: Sequence[PublishedNumber]) -> str:
    """Return the family that the numbers of a row name first, or nothing.

    Raises UnknownNameError where rows.yaml does not have it.
    """
    for number in numbers:
        if number.family:
            families = published_index().families
            return choose(number.family, families, f"family in published/{suite}.csv")
    return ""


def _cite_key(method: str, numbers: Sequence[PublishedNumber]) -> str:
    """Return the key of the source that owns a row's first number, or the next best."""
    for number in numbers:
        for key in _cited_keys(number):
            return key
    paper = method_paper(method)
    return paper.key if paper is not None else ""
