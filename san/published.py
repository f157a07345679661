"""What papers print: rows that are cited beside ours, each cell with its source (benchmarks/published/)."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from san.tasks import BENCHMARKS

STATED = ("natural", "specialised", "structured")
FOLDER = BENCHMARKS / "published"


@dataclass(frozen=True)
class Cell:
    """A printed number, of a task or of a stated mean (`natural`, `mean`), in percent; where it was read; a note."""

    method: str
    task: str
    accuracy: float
    params_m: float | None
    source: str
    note: str


@dataclass(frozen=True, eq=False)
class Cited:
    """A row as papers print it.

    ours: the method that is compared with it, or nothing. tasks, stated: percent by task, and by group where only means
    are known. params_m: millions that train without the head, as printed, the mean over tasks. weights (of ViT-B/16),
    selected_on: of its family, None where not known. claim: what is said in place of numbers.
    """

    method: str
    ours: str
    tasks: Mapping[str, float]
    stated: Mapping[str, float]
    params_m: float | None
    weights: str | None
    selected_on: str | None
    claim: str = ""


@cache
def reading() -> dict[str, Any]:
    """Return benchmarks/published/rows.yaml."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "rows.yaml").read_text())
    return found


@cache
def cells(suite: str, backbone: str) -> tuple[Cell, ...]:
    """Return every published number of a suite with a backbone, in the order of the file."""
    path, name = FOLDER / f"{suite}.csv", reading()["backbones"].get(backbone)
    if not path.is_file():
        return ()
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["backbone"] == name]
    return tuple(
        Cell(
            r["method"], r["task"], float(r["accuracy"]), float(r["params_m"]) if r["params_m"] else None,
            r["source"], r["note"],
        )
        for r in rows
    )  # fmt: skip


def rows(suite: str, backbone: str, tasks: Sequence[str]) -> list[Cited]:
    """Return the published rows of a suite: those that one of our methods is compared with first, in our order.

    Of the others, a row is left out that has neither a cell for every task nor a mean for every group; `cells` has it.
    """
    by_method: dict[str, list[Cell]] = {}
    for found in cells(suite, backbone):
        by_method.setdefault(found.method, []).append(found)
    ours = {label: name for name, label in reading()["ours"].items()}
    made = [row(method, ours.get(method, ""), found, tasks, "vit" in backbone) for method, found in by_method.items()]
    whole = [r for r in made if r.ours or len(r.tasks) == len(tasks) or (r.stated and not r.tasks)]
    claims = [Cited(m, ours.get(m, ""), {}, {}, None, None, None, text) for m, text in reading()["claims"].items()]
    order = list(reading()["ours"])
    return sorted([*whole, *(claims if by_method else [])], key=lambda r: order.index(r.ours) if r.ours else len(order))


def row(method: str, ours: str, found: Sequence[Cell], tasks: Sequence[str], vit: bool) -> Cited:
    """Return one row from its numbers; where a cell stands twice, the first."""
    by_task = {c.task: c.accuracy for c in reversed(found) if c.task in tasks}
    stated = {c.task: c.accuracy for c in reversed(found) if c.task in STATED} if not by_task else {}
    printed = [c.params_m for c in found if c.params_m is not None and (c.task in by_task or not by_task)]
    tags = [tag[1] for c in found if (tag := re.match(r"\[([^]]+)\]", c.note))]
    family = reading()["families"].get(tags[0] if tags else "", {})
    params = sum(printed) / len(printed) if printed else None
    return Cited(
        method, ours, by_task, stated, params, family.get("weights") if vit else None, family.get("selected_on")
    )
