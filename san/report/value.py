"""One entry of a table as a value, until a writer turns it into characters."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from san.report.within_task import CellRuns

MISSING = "–"


class Flag(StrEnum):
    """A reservation about a value or a row: its mark in tables and its sentence in the legend.

    Marks and legends are written in the order of the members.
    """

    mark: str
    legend: str

    def __new__(cls, key: str, mark: str, legend: str) -> Self:
        """Make a member whose value is `key`."""
        flag = str.__new__(cls, key)
        flag._value_ = key
        flag.mark = mark
        flag.legend = legend
        return flag

    CHOSEN_ON_TEST = "chosen_on_test", "†", "the epoch was chosen on the test split"
    MIXED_SETTINGS = "mixed_settings", "§", "an average over runs of different settings"
    OTHER_SETTINGS = (
        "other_settings",
        "≠",
        "measured under other settings than the compared rows",
    )
    UNCOMMITTED_CODE = "uncommitted_code", "◇", "run by code with uncommitted changes"
    UNVERIFIED_DATA = (
        "unverified_data",
        "¶",
        "the data failed its check against the benchmark, and was forced (force_data=true)",
    )
    CONFLICT = (
        "conflict",
        "‡",
        "a cell has records of different settings or results for one seed; the newest is shown",
    )
    OTHER_SEEDS = (
        "other_seeds",
        "‖",
        "other seeds than the compared rows have, or seeds that failed",
    )
    NEAR_CHANCE = (
        "near_chance",
        "∅",
        "a run is not shown to be better than always answering the most frequent class",
    )
    OTHER_WEIGHTS = "other_weights", "◦", "from other pre-trained weights than this table's"
    REPORTED_MEAN = (
        "reported_mean",
        "*",
        "from means as stated; not all values of its tasks are public",
    )
    UNKNOWN_PROTOCOL = (
        "unknown_protocol",
        "?",
        "its weights, or where its epoch was chosen, are not known",
    )


class CellStatus(StrEnum):
    """Whether a cell's seeds are complete, or how those that are not have ended."""

    DONE = "done"
    MISSING = "missing"
    FAILED = "failed"
    OOM = "OOM"
    OOM_AND_FAILED = "OOM, failed"


class NumberFormat(StrEnum):
    """How a number is written, as a format specification of Python."""

    ONE_DECIMAL = ".1f"
    TWO_DECIMALS = ".2f"
    SIGNED = "+.2f"


@dataclass(frozen=True)
class Value:
    """An accuracy in percent, or a difference of two in percentage points.

    mean: over `n` seeds, NaN where there is none; n is 0 where seeds were not counted. std: the
    sample standard deviation, NaN for fewer than two seeds. low, high: the 95 % interval that
    follows from the number of test images; NaN where that is not known. is_compared: whether it
    takes part in the comparison of rows. runs: right answers of the
    runs behind it; None for a mean.
    """

    mean: float = math.nan
    std: float = math.nan
    n: int = 0
    status: CellStatus = CellStatus.DONE
    flags: frozenset[Flag] = frozenset()
    number_format: NumberFormat = NumberFormat.TWO_DECIMALS
    low: float = math.nan
    high: float = math.nan
    is_compared: bool = True
    runs: CellRuns | None = field(default=None, compare=False)

    @property
    def exists(self) -> bool:
        """Whether there is a number."""
        return not math.isnan(self.mean)

    @property
    def visible_flags(self) -> frozenset[Flag]:
        """The flags that are written: none where there is no number."""
        return self.flags if self.exists else frozenset()


@dataclass(frozen=True)
class TrainableCounts:
    """Numbers of trained parameters, means over tasks; NaN where not known.

    in_millions: whether they are known to three digits only, as papers print them. is_estimated:
    whether the one without the head is the printed one with it, less the mean head of the tasks.
    """

    without_head: float = math.nan
    with_head: float = math.nan
    in_millions: bool = False
    is_estimated: bool = False

    def texts(self) -> list[str]:
        """Return both as they are printed."""
        return [self._text(self.without_head), self._text(self.with_head)]

    def in_millions_text(self) -> str:
        """Return those without the head in millions, as papers print them."""
        return MISSING if math.isnan(self.without_head) else f"{self.without_head / 1e6:.2f}"

    def _text(self, count: float) -> str:
        if math.isnan(count):
            return MISSING
        return f"{count / 1e6:.3g} M" if self.in_millions else f"{count:,.0f}"


@dataclass(frozen=True)
class RowCost:
    """What the runs of a row took together; NaN where one of them does not say.

    device_hours: wall time times devices. joules: of all devices.
    """

    device_hours: float = math.nan
    joules: float = math.nan


@dataclass(frozen=True)
class CountRange:
    """The fewest and the most of what the cells or runs of a row have: seeds, trials."""

    fewest: int
    most: int

    @classmethod
    def of(cls, counts: Collection[int]) -> Self:
        """Return the range of counts, of which there is one at least."""
        return cls(min(counts), max(counts))

    def text(self) -> str:
        """Return the number, or the range."""
        if self.fewest == self.most:
            return str(self.fewest)
        return f"{self.fewest} to {self.most}"


def marks(flags: Collection[Flag]) -> str:
    """Return the marks of flags, in the order of the legend."""
    return "".join(flag.mark for flag in Flag if flag in flags)


def _format_number(value: Value) -> str:
    """Return the mean in the value's number format; what rounds to zero has no sign."""
    text = format(value.mean, value.number_format)
    return text.lstrip("+-") if float(text) == 0 else text


def _format_remarks(value: Value) -> str:
    """Return what stands behind a number: its marks, and how seeds have failed."""
    failed = "" if value.status is CellStatus.DONE else f" ({value.status})"
    return marks(value.visible_flags) + failed


def format_absent(value: Value) -> str:
    """Return what stands in place of a number: how the seeds failed, or that there are none."""
    failed = value.status not in (CellStatus.DONE, CellStatus.MISSING)
    return str(value.status) if failed else MISSING


def to_text(value: Value) -> str:
    """Return mean ± standard deviation (seeds), marks, and how seeds have failed.

    This is what Markdown has.
    """
    if not value.exists:
        return format_absent(value)
    spread = f" ± {value.std:.2f} ({value.n})" if value.n > 1 else ""
    return _format_number(value) + spread + _format_remarks(value)
