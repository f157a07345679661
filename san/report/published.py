"""The numbers that papers print, each with its source (benchmarks/published/)."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import yaml

from san.errors import choose
from san.schema import from_mapping
from san.tasks import BENCHMARKS, Suite

FOLDER = BENCHMARKS / "published"
_INDEX_FILE = FOLDER / "rows.yaml"


@dataclass(frozen=True)
class ProtocolFamily:
    """What the official code of a family of papers does; None where it is not known.

    weights: the pre-trained weights of ViT-B/16. selected_on: the split on which the epoch was
    chosen, or `last`.
    """

    weights: str | None = None
    selected_on: Literal["last", "test"] | None = None


@dataclass(frozen=True)
class HeadCounting:
    """Rows of a suite whose printed number of parameters includes the head, and those without it.

    excluded: `others` for all rows that are not among `included`.
    """

    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] | Literal["others"] = ()


@dataclass(frozen=True)
class PublishedIndex:
    """How the published numbers are read: benchmarks/published/rows.yaml.

    backbones: ours to the papers' name. families: by the tag in a row's note. head: by suite.
    our_methods: ours to the row that it is compared with. claims: by row, what is published without
    a number for each task.
    """

    backbones: Mapping[str, str]
    families: Mapping[str, ProtocolFamily]
    head: Mapping[str, HeadCounting]
    our_methods: Mapping[str, str]
    claims: Mapping[str, str]


@dataclass(frozen=True)
class PublishedNumber:
    """A printed accuracy in percent, of a task or of a stated mean (`natural`, `mean`).

    params_m: printed parameters in millions. source: where it was read.
    """

    method: str
    task: str
    accuracy: float
    params_m: float | None
    source: str
    note: str


@dataclass(frozen=True, eq=False)
class PublishedRow:
    """A row as papers print it.

    our_method: ours that is compared with it, or nothing. accuracies: percent by task.
    reported_means: percent by group, where a source states them. params_m: millions of trained
    parameters as printed, the mean over tasks; counts_head: whether the head is among them.
    weights, selected_on: of its family. None where it is not known. claim: a sentence in place of
    numbers.
    """

    method: str
    our_method: str
    accuracies: Mapping[str, float]
    reported_means: Mapping[str, float]
    params_m: float | None = None
    counts_head: bool | None = None
    weights: str | None = None
    selected_on: str | None = None
    claim: str = ""

    @property
    def has_numbers(self) -> bool:
        """Whether anything is printed but a claim."""
        return bool(self.accuracies or self.reported_means)


@cache
def published_index() -> PublishedIndex:
    """Read benchmarks/published/rows.yaml.

    Raises UnknownNameError on an unknown key, InvalidValueError on a value that is not allowed.
    """
    rows: dict[str, Any] = yaml.safe_load(_INDEX_FILE.read_text("utf-8"))
    where = _INDEX_FILE.name
    families = {
        name: from_mapping(ProtocolFamily, row, f"{where}: family {name}")
        for name, row in rows.get("families", {}).items()
    }
    head = {
        suite: from_mapping(HeadCounting, row, f"{where}: head of {suite}")
        for suite, row in rows.get("head", {}).items()
    }
    return from_mapping(PublishedIndex, {**rows, "families": families, "head": head}, where)


@cache
def published_numbers(suite: str, backbone: str) -> tuple[PublishedNumber, ...]:
    """Return every published number of a suite with a backbone, in the order of the file."""
    path = FOLDER / f"{suite}.csv"
    printed_name = published_index().backbones.get(backbone)
    if not path.is_file() or printed_name is None:
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return tuple(_read_number(row) for row in rows if row["backbone"] == printed_name)


def all_published_rows(suite: Suite, backbone: str) -> list[PublishedRow]:
    """Return the published rows of a suite, complete or not, in the order of the file."""
    by_method: dict[str, list[PublishedNumber]] = {}
    for number in published_numbers(suite.name, backbone):
        by_method.setdefault(number.method, []).append(number)
    if by_method:
        for method in published_index().claims:
            by_method.setdefault(method, [])
    return [_make_row(suite, name, found, backbone) for name, found in by_method.items()]


def published_rows(suite: Suite, backbone: str) -> tuple[list[PublishedRow], list[str]]:
    """Return the published rows of a suite, and the names of those that are left out.

    Rows that one of our methods is compared with come first, in our order. Of the others, a row is
    left out where the mean of a group is unknown: tasks are missing, and no source states it.
    """
    rows = all_published_rows(suite, backbone)
    shown = [row for row in rows if row.our_method or _has_all_means(suite, row)]
    shown.sort(key=_position)
    return shown, [row.method for row in rows if row not in shown]


def counts_head(suite: str, method: str) -> bool | None:
    """Return whether the printed parameters of a row include the head; None where unknown."""
    counting = published_index().head.get(suite, HeadCounting())
    if method in counting.included:
        return True
    if counting.excluded == "others" or method in counting.excluded:
        return False
    return None


def is_vit_b16(backbone: str) -> bool:
    """Return whether papers call the backbone ViT-B/16."""
    return published_index().backbones.get(backbone) == "ViT-B/16"


def _read_number(row: Mapping[str, str]) -> PublishedNumber:
    """Turn a line of a CSV file into a number."""
    return PublishedNumber(
        method=row["method"],
        task=row["task"],
        accuracy=float(row["accuracy"]),
        params_m=float(row["params_m"]) if row["params_m"] else None,
        source=row["source"],
        note=row["note"],
    )


def _has_all_means(suite: Suite, row: PublishedRow) -> bool:
    """Return whether the mean of each group is known: from its tasks, or as reported."""
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
    family = _protocol_family(suite.name, numbers)
    return PublishedRow(
        method=method,
        our_method=_our_method(method),
        accuracies=accuracies,
        reported_means=_reported_means(suite, first),
        params_m=_mean_params(numbers, accuracies),
        counts_head=counts_head(suite.name, method),
        weights=family.weights if is_vit_b16(backbone) else None,
        selected_on=family.selected_on,
        claim=published_index().claims.get(method, ""),
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
    if len(suite.groups) == 1 and "mean" in printed:
        means[suite.groups[0]] = printed["mean"]
    return means


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


def _protocol_family(suite: str, numbers: Sequence[PublishedNumber]) -> ProtocolFamily:
    """Return the family that the notes of a row name first, as in `[NOAH] ...`.

    Raises UnknownNameError where rows.yaml does not have it.
    """
    families = published_index().families
    for number in numbers:
        tag = re.match(r"\[([^]]+)\]", number.note)
        if tag is not None:
            return families[choose(tag[1], families, f"family in published/{suite}.csv")]
    return ProtocolFamily()
