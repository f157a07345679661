"""Published rows of a table: what papers print, with means by our rules."""

import math
from collections.abc import Iterator
from dataclasses import replace

from san.errors import InvalidValueError
from san.report.means import MEAN_OF_GROUPS, MEAN_OF_TASKS, Column, interval_of_mean, table_means
from san.report.published import PublishedRow
from san.report.published_index import (
    is_vit_b16,
    mean_head,
    method_label,
    without_remark,
)
from san.report.rows import Row, by_column
from san.report.value import Flag, NumberFormat, TrainableCounts, Value
from san.report.within_task import CellRuns, wilson_interval
from san.tasks import Suite

_HALF_UNIT = 5e3  # of what papers print


def make_published_row(suite: Suite, published: PublishedRow, backbone: str) -> Row:
    """Return a published row; its means are computed from its values by our rules, else stated."""
    accuracies = {task: published.accuracies.get(task, math.nan) for task in suite.tasks}
    cells = {}
    for task, accuracy in accuracies.items():
        cells[task] = _printed_value(accuracy, suite.tasks[task].splits.get("test", 0))
    everything = list(suite.tasks.values())
    counted = [task for task in everything if task.name in published.params_tasks]
    computed = table_means(suite, accuracies, {})
    means = {}
    for column, average in table_means(suite, accuracies, published.reported_means).items():
        if math.isnan(computed[column]):
            means[column] = _stated(published, column, average)
        else:
            low, high = interval_of_mean(suite, column, cells)
            means[column] = Value(average, low=low, high=high)
    return Row(
        name=published.method,
        values=by_column(suite, cells, means),
        flags=_published_flags(published, backbone),
        trainable=_printed_trainable(published, mean_head(counted or everything, backbone)),
        published=published,
        is_baseline=_is_published_baseline(suite, published.method),
        comparison_class=published.comparison_class,
    )


def _is_published_baseline(suite: Suite, name: str) -> bool:
    """Return whether a published row is full fine-tuning or linear probing, by whomever."""
    return without_remark(name) in [method_label(method) for method in suite.baselines]


def _printed_value(accuracy: float, test_images: int) -> Value:
    """Return an accuracy with as many decimals as papers print, of one run on the test split."""
    has_one_decimal = round(accuracy, 1) == accuracy
    decimals = NumberFormat.ONE_DECIMAL if has_one_decimal else NumberFormat.TWO_DECIMALS
    if math.isnan(accuracy) or not test_images:
        return Value(accuracy, number_format=decimals)
    correct = accuracy / 100 * test_images
    interval = wilson_interval(correct, test_images)
    return Value(
        mean=accuracy,
        number_format=decimals,
        low=interval.low,
        high=interval.high,
        runs=CellRuns([correct], test_images),
    )


def _stated(published: PublishedRow, column: Column, average: float) -> Value:
    """Return a mean as stated. average: from stated means of groups, NaN where one lacks."""
    overall = {MEAN_OF_TASKS: published.mean_of_tasks, MEAN_OF_GROUPS: published.mean_of_groups}
    printed = overall.get(column)
    stated = printed if math.isnan(average) and printed is not None else average
    return Value(stated, flags=frozenset({Flag.REPORTED_MEAN}))


def _printed_trainable(published: PublishedRow, head: float) -> TrainableCounts:
    """Return the printed parameters, on the side of the head where they were counted.

    head: parameters of the tasks' heads, their mean: where it is among them, it is taken off.
    """
    unknown = TrainableCounts(in_millions=True)
    if published.params_m is None or published.counts_head is None:
        return unknown
    count = 1e6 * published.params_m
    if not published.counts_head:
        return replace(unknown, without_head=count)
    rest = _take_off_head(count, head, published.method)
    return replace(unknown, with_head=count, without_head=rest, is_estimated=True)


def _take_off_head(count: float, head: float, name: str) -> float:
    """Return what is left of a printed count without the head; NaN where the head is not known.

    Papers print 0.01 M: a rest within half of it is nothing, as of linear probing. Raises
    InvalidValueError where the head alone is larger.
    """
    rest = count - head
    if rest < -_HALF_UNIT:
        raise InvalidValueError(
            f"The parameters of {name} came as {count:,.0f} with the head; at least the mean head "
            f"of its tasks, {head:,.0f}, is allowed. Mend `head` in rows.yaml, or the number."
        )
    return 0.0 if abs(rest) <= _HALF_UNIT else rest


def _published_flags(published: PublishedRow, backbone: str) -> frozenset[Flag]:
    """Return the flags of a published row."""
    return frozenset(_published_reservations(published, backbone))


def _published_reservations(published: PublishedRow, backbone: str) -> Iterator[Flag]:
    if published.selected_on == "test":
        yield Flag.CHOSEN_ON_TEST
    if published.weights is not None and published.weights != backbone:
        yield Flag.OTHER_WEIGHTS
    lacks_weights = is_vit_b16(backbone) and published.weights is None
    is_unknown = published.selected_on is None or lacks_weights
    if is_unknown and published.has_numbers:
        yield Flag.UNKNOWN_PROTOCOL
