"""How the published numbers are read (benchmarks/published/rows.yaml)."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import yaml

from san.installation import BENCHMARKS
from san.report.published_sources import Source, find_source
from san.schema import PositiveInt, from_mapping
from san.tasks import Task

_FILE = BENCHMARKS / "published" / "rows.yaml"


@dataclass(frozen=True)
class ProtocolFamily:
    """What the official code of a family of papers does; None, or no suite, where unknown.

    weights: the pre-trained weights of ViT-B/16.
    selected_on: the split on which the epoch was chosen, or `last`.
    normalization: a value of our `data.normalize`.
    resize, augmentation: by suite, values of our `data.resize` and names of our `augment`, or words
        where ours have none.
    tuned: what is chosen for each task, `nothing` where nothing is. tuned_on: the split.
    seeds: how many runs a number is the mean of.
    same_runs_as: the family that has the last epoch of the runs whose best is here, or nothing.
    description: by suite, in words.
    """

    weights: str | None = None
    selected_on: Literal["last", "test"] | None = None
    normalization: Literal["imagenet", "inception", "none"] | None = None
    resize: Mapping[str, str] = field(default_factory=dict)
    augmentation: Mapping[str, str] = field(default_factory=dict)
    tuned: str | None = None
    tuned_on: Literal["val", "test"] | None = None
    seeds: PositiveInt | None = None
    same_runs_as: str = ""
    description: Mapping[str, str] = field(default_factory=dict)


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

    backbones: ours to the papers' name. widths: of the features that the head of a backbone reads,
    by the papers' name. families: by the name in a row. head: by suite. our_methods: ours to the
    row that it is compared with. labels: how papers write ours that have no such row. papers: the
    key of a method's paper, by row without the remark in brackets, or by our name where none is
    published. claims: by row, what is published without a number for each task.
    """

    backbones: Mapping[str, str]
    widths: Mapping[str, PositiveInt]
    families: Mapping[str, ProtocolFamily]
    head: Mapping[str, HeadCounting]
    our_methods: Mapping[str, str]
    labels: Mapping[str, str]
    papers: Mapping[str, str]
    claims: Mapping[str, str]


@cache
def published_index() -> PublishedIndex:
    """Read benchmarks/published/rows.yaml.

    Raises UnknownNameError on an unknown key or source, InvalidValueError on a value that is not
    allowed.
    """
    rows: dict[str, Any] = yaml.safe_load(_FILE.read_text("utf-8"))
    where = _FILE.name
    families = {
        name: from_mapping(ProtocolFamily, row, f"{where}: family {name}")
        for name, row in rows.get("families", {}).items()
    }
    head = {
        suite: from_mapping(HeadCounting, row, f"{where}: head of {suite}")
        for suite, row in rows.get("head", {}).items()
    }
    index = from_mapping(PublishedIndex, {**rows, "families": families, "head": head}, where)
    for key in index.papers.values():
        find_source(key, f"{where}: papers")
    return index


def counts_head(suite: str, method: str) -> bool | None:
    """Return whether the printed parameters of a row include the head; None where unknown."""
    counting = published_index().head.get(suite, HeadCounting())
    if method in counting.included:
        return True
    if counting.excluded == "others" or method in counting.excluded:
        return False
    return None


def mean_head(tasks: Collection[Task], backbone: str) -> float:
    """Return the parameters of a head, the mean over tasks; NaN where unknown."""
    index = published_index()
    width = index.widths.get(index.backbones.get(backbone, ""))
    if width is None:
        return math.nan
    heads = [(width + 1) * len(task.classes) for task in tasks]
    return sum(heads) / len(heads)


def is_vit_b16(backbone: str) -> bool:
    """Return whether papers call the backbone ViT-B/16."""
    return published_index().backbones.get(backbone) == "ViT-B/16"


def method_paper(name: str) -> Source | None:
    """Return the paper of a method, by our name or a published row's; None where there is none.

    `SSF (Mai et al., last)` is SSF.
    """
    index = published_index()
    row_name = index.our_methods.get(name, name)
    for each in (name, row_name, without_remark(row_name)):
        if each in index.papers:
            return find_source(index.papers[each], "rows.yaml: papers")
    return None


def without_remark(row_name: str) -> str:
    """Return the name of a published row without the remark in brackets."""
    return row_name.partition(" (")[0]


def method_label(method: str) -> str:
    """Return how papers write one of our methods; our name where that is not known."""
    index = published_index()
    if method in index.labels:
        return index.labels[method]
    return without_remark(index.our_methods.get(method, method))
