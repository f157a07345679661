"""What papers print: rows that are cited beside ours, each cell with its source (benchmarks/published/)."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from san.tasks import BENCHMARKS, Suite

FOLDER = BENCHMARKS / "published"


@dataclass(frozen=True)
class PublishedNumber:
    """A printed number, of a task or of a stated mean (`natural`, `mean`), in percent; where it was read; a note."""

    method: str
    task: str
    accuracy: float
    params_m: float | None
    source: str
    note: str


@dataclass(frozen=True, eq=False)
class PublishedRow:
    """A row as papers print it.

    ours: the method that is compared with it, or nothing. tasks, stated: percent by task, and by group where a source
    states its mean. params_m: millions that train, as printed, the mean over tasks; head: whether the head is among
    them. weights (of ViT-B/16), selected_on: of its family. None where it is not known. claim: what is said in place of
    numbers.
    """

    method: str
    ours: str
    tasks: Mapping[str, float]
    stated: Mapping[str, float]
    params_m: float | None = None
    head: bool | None = None
    weights: str | None = None
    selected_on: str | None = None
    claim: str = ""


@cache
def published_index() -> dict[str, Any]:
    """Return benchmarks/published/rows.yaml."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "rows.yaml").read_text())
    return found


@cache
def published_numbers(suite: str, backbone: str) -> tuple[PublishedNumber, ...]:
    """Return every published number of a suite with a backbone, in the order of the file."""
    path, name = FOLDER / f"{suite}.csv", published_index()["backbones"].get(backbone)
    if not path.is_file():
        return ()
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["backbone"] == name]
    return tuple(
        PublishedNumber(
            r["method"], r["task"], float(r["accuracy"]), float(r["params_m"]) if r["params_m"] else None,
            r["source"], r["note"],
        )
        for r in rows
    )  # fmt: skip


def published_rows(suite: Suite, backbone: str) -> tuple[list[PublishedRow], list[str]]:
    """Return the published rows of a suite, and the names of those that are left out.

    Those that one of our methods is compared with come first, in our order. Of the others, a row is left out that lacks
    a group's mean: neither are all its tasks there, nor is it stated. `cells` has its numbers.
    """
    by_method: dict[str, list[PublishedNumber]] = {}
    for found in published_numbers(suite.name, backbone):
        by_method.setdefault(found.method, []).append(found)
    for method in published_index()["claims"] if by_method else ():
        by_method.setdefault(method, [])
    made = [make_row(suite, method, found, backbone) for method, found in by_method.items()]
    shown = [
        r for r in made if r.ours or all(has_group_mean(suite, r, group) for group in suite.groups)
    ]
    order = list(published_index()["ours"])
    shown.sort(key=lambda r: order.index(r.ours) if r.ours else len(order))
    return shown, [r.method for r in made if r not in shown]


def has_group_mean(suite: Suite, r: PublishedRow, group: str) -> bool:
    """Return whether a row has a mean of a group: from its tasks, or as stated."""
    return group in r.stated or all(
        t in r.tasks for t, task in suite.tasks.items() if task.group == group
    )


def make_row(
    suite: Suite, method: str, found: Sequence[PublishedNumber], backbone: str
) -> PublishedRow:
    """Return one row from its numbers; where one stands twice, the first. Raises KeyError on an unknown family."""
    means = {c.task: c.accuracy for c in reversed(found)}
    stated = {group: means[group] for group in suite.groups if group in means}
    if len(suite.groups) == 1 and "mean" in means:
        stated[suite.groups[0]] = means["mean"]
    by_task = {task: means[task] for task in suite.tasks if task in means}
    printed = [
        c.params_m for c in found if c.params_m is not None and (c.task in by_task or not by_task)
    ]
    tags = [tag[1] for c in found if (tag := re.match(r"\[([^]]+)\]", c.note))]
    family = published_index()["families"][tags[0]] if tags else {}
    vit = published_index()["backbones"][backbone] == "ViT-B/16"
    return PublishedRow(
        method,
        next((name for name, label in published_index()["ours"].items() if label == method), ""),
        by_task,
        stated,
        sum(printed) / len(printed) if printed else None,
        counts_head(suite.name, method),
        family.get("weights") if vit else None,
        family.get("selected_on"),
        published_index()["claims"].get(method, ""),
    )


def counts_head(suite: str, method: str) -> bool | None:
    """Return whether the printed parameters of a row count the head; None where it is not known."""
    said = published_index()["head"].get(suite, {})
    if method in said.get("with", ()):
        return True
    without = said.get("without", ())
    return False if without == "others" or method in without else None
