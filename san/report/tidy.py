"""Tidy files for programs: a line for each value of a row and for each run, numbers as numbers.

Keys are stable: no line is named by marks, or by what other rows there are.
"""

import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from san.record import Record
from san.report.aggregate import trials_of
from san.report.means import MEAN_OF_GROUP, Column, mean_columns, task_column
from san.report.published import PublishedNumber
from san.report.rows import Row
from san.report.value import Flag, Value
from san.runtime.formatting import first_line_of_error
from san.tasks import Suite

Line = dict[str, object]
CELL_COLUMNS = (
    "suite",
    "backbone",
    "kind",  # ours, published, or quoted: a further source of a published number
    "method",  # our key, also of a published row that is compared with it
    "row",  # as tables call it, without marks
    "settings",  # in which the row departs from the suite's defaults
    "protocol",
    "weights",  # pre-trained; of ours, the backbone says it
    "epoch_chosen_on",
    "statistic",  # accuracy of a task, or which mean
    "group",
    "task",
    "mean",  # percent; so are std, low and high
    "std",
    "n",  # seeds
    "low",
    "high",
    "status",
    "flags",
    "is_compared",
    "trainable_without_head",
    "trainable_with_head",
    "trials_fewest",  # settings tried for the hyper-parameters of a task, over runs of the row
    "trials_most",
    "source",
    "source_table",
    "quoted_through",
    "note",
)
# Of a record's fields, by column, in the words of the file of cells; more columns follow.
_RUN_FIELDS = {
    "suite": "suite",
    "backbone": "backbone",
    "method": "method",
    "settings": "variant",
    "protocol": "protocol",
    "task": "task",
    "seed": "seed",
    "id": "id",
    "status": "status",
    "epoch_chosen_on": "selected_on",
    "evaluated_on": "evaluated_on",
    "created": "created",
    "weights": "weights",
}
RUN_COLUMNS = tuple(_RUN_FIELDS)
_SETTINGS = ("lr", "weight_decay", "epochs", "batch_size", "optimizer", "precision")
_PARTS = ("params", "seconds", "data", "code", "device")


class _Place(NamedTuple):
    """Where a value stands: its column, and the keys of it in a file."""

    column: Column
    statistic: str
    group: str
    task: str


def our_lines(suite: Suite, backbone: str, row: Row) -> Iterator[Line]:
    """Yield the values of one of our rows: tasks, then means."""
    assert row.key is not None
    keys: Line = {
        "suite": suite.name,
        "backbone": backbone,
        "kind": "ours",
        "method": row.key.method,
        "row": row.name,
        "settings": row.key.variant,
        "protocol": row.key.protocol,
        "weights": backbone,
    }
    for place in _places(suite):
        facts = _facts(row, place)
        on_test = Flag.CHOSEN_ON_TEST in row.flags | row.values[place.column].flags
        yield {**keys, **facts, "epoch_chosen_on": "test" if on_test else "last"}


def published_lines(
    suite: Suite,
    backbone: str,
    row: Row,
    numbers: Sequence[PublishedNumber],
) -> Iterator[Line]:
    """Yield the values of a published row, then what further sources say.

    numbers: all of the row; the first of each task is the value that tables show.
    """
    assert row.published is not None
    keys: Line = {
        "suite": suite.name,
        "backbone": backbone,
        "kind": "published",
        "method": row.published.our_method,
        "row": row.name,
        "protocol": row.published.family,
        "weights": row.published.weights,
        "epoch_chosen_on": row.published.selected_on,
    }
    first = {number.task: number for number in reversed(numbers)}
    for place in _places(suite):
        if row.values[place.column].exists:
            shown = first.get(place.task or place.group)
            yield {**keys, **_facts(row, place), **_source(shown)}
    for number in numbers:
        if number is not first[number.task]:
            quoted = {"kind": "quoted", "task": number.task, "mean": number.accuracy}
            yield {**keys, **quoted, "statistic": "accuracy", **_source(number)}


def run_line(r: Record) -> Line:
    """Return one run: the result, settings, parameters, costs, data and code of its record."""
    line: Line = {column: getattr(r, field) for column, field in _RUN_FIELDS.items()}
    if r.score is not None:
        line["correct"] = r.score.correct
        line["total"] = r.score.total
        line["accuracy"] = r.score.accuracy
    for name, score in (("last", r.last), ("best", r.best), ("validation", r.validation)):
        if score is not None:
            line[f"{name}_epoch"] = score.epoch
            line[f"{name}_accuracy"] = score.accuracy
    for key in _SETTINGS:
        line[key] = _scalar(r.config.get(key))
    line["trials"] = trials_of(r)
    for name in _PARTS:
        known = msgspec.to_builtins(getattr(r, name)) or {}
        for key, value in known.items():
            line[f"{name}_{key}"] = value
    for name in ("started", "host", "device_hours", "peak_bytes", "joules", "adapter_bytes"):
        line[name] = getattr(r, name)
    if r.error is not None:
        line["error"] = first_line_of_error(r.error)
    return line


def _places(suite: Suite) -> Iterator[_Place]:
    """Yield where the values of a row stand: tasks, then means."""
    for task in suite.tasks.values():
        yield _Place(task_column(task), "accuracy", task.group, task.name)
    for column, statistic in mean_columns(suite).items():
        group = column.label if column.group == MEAN_OF_GROUP else ""
        yield _Place(column, statistic, group, "")


def _facts(row: Row, place: _Place) -> Line:
    """Return what is known of a value; None in place of NaN."""
    value = row.values[place.column]
    return {
        "statistic": place.statistic,
        "group": place.group,
        "task": place.task,
        "mean": _known(value.mean),
        "std": _known(value.std),
        "n": value.n or None,
        "low": _known(value.low),
        "high": _known(value.high),
        "status": str(value.status),
        "flags": _flag_names(row, value),
        "is_compared": value.is_compared and row.comparison_class is not None,
        "trainable_without_head": _known(row.trainable.without_head),
        "trainable_with_head": _known(row.trainable.with_head),
        "trials_fewest": None if row.trials is None else row.trials.fewest,
        "trials_most": None if row.trials is None else row.trials.most,
    }


def _flag_names(row: Row, value: Value) -> str:
    """Return the flags of a value and its row by their keys."""
    flags = row.flags | value.flags
    return " ".join(flag.value for flag in Flag if flag in flags)


def _source(number: PublishedNumber | None) -> Line:
    """Return where a published number was read; of a mean that was computed, nothing."""
    if number is None:
        return {}
    return {
        "source": number.source,
        "source_table": number.table,
        "quoted_through": "; ".join(map(str, number.quoted_through)),
        "note": number.note,
    }


def _scalar(value: object) -> object:
    """Return a setting that a column can hold; of a record made by hand it may be anything."""
    return value if isinstance(value, str | int | float | None) else json.dumps(value)


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
