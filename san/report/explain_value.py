"""A value of a table in words: its uncertainty, its flags, what it is compared with; its source."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from san.report.comparability import Difference, describe_difference
from san.report.explain_names import Place
from san.report.explain_record import WIDTH, labelled
from san.report.means import tasks_of_mean
from san.report.published import PublishedNumber, PublishedRow, published_numbers
from san.report.published_index import published_index
from san.report.published_sources import find_source
from san.report.rows import Row, RunGroup, make_gap_row
from san.report.value import MISSING, Flag, Value, to_text

_UNKNOWN = "not known"


def flagged_value(row: Row, place: Place) -> Value:
    """Return a value with the flags that stand at the name of its row, too."""
    value = row.values[place.column]
    flags = value.flags | row.flags
    return replace(value, flags=flags)


def describe_value(value: Value) -> Iterator[str]:
    """Yield what the uncertainty of a value is, as far as it is known."""
    if not math.isnan(value.low) and value.runs is not None:
        images = f"{value.runs.total:,} images"
        yield labelled(
            "interval",
            f"{value.low:.2f} to {value.high:.2f} at 95 %, from {images}; other seeds aside",
        )
    if value.n > 1:
        yield labelled("spread", f"± standard deviation over seeds, here {value.n}")


def describe_flags(
    value: Value,
    found: Mapping[Difference, Sequence[str]],
) -> Iterator[str]:
    """Yield the flags of a value in words. found: differences, and the labels of their tasks."""
    for flag in Flag:
        if flag not in value.visible_flags:
            continue
        details = "; ".join(_describe_differences(flag, found))
        yield labelled(f"flag {flag.mark}", f"{flag.legend}{': ' if details else ''}{details}")
    if value.exists and not value.is_compared:
        yield labelled("compared", "no: it takes no part in the comparison of rows")


def _describe_differences(
    flag: Flag,
    found: Mapping[Difference, Sequence[str]],
) -> Iterator[str]:
    """Yield what is behind a flag, each fact once, with its values if those are of all tasks."""
    texts: dict[str, str] = {}
    tasks: dict[str, list[str]] = {}
    for difference, labels in found.items():
        if difference.flag is not flag:
            continue
        fact = difference.fact
        # Of several values of a fact none is said.
        texts[fact] = fact if fact in texts else describe_difference(difference)
        tasks.setdefault(fact, []).extend(labels)
    for fact, text in texts.items():
        where = ", ".join(tasks[fact])
        yield f"{text} on {where}" if where else text


def differences(group: RunGroup, place: Place) -> dict[Difference, list[str]]:
    """Return in what the runs of a cell differ from most rows or from each other.

    With the labels of the tasks where they do, of a mean over several.
    """
    found: dict[Difference, list[str]] = {}
    for difference in group.mixed:
        found[difference] = []
    if place.task is not None:
        for difference in group.differences.get(place.task.name, []):
            found[difference] = []
        return found
    for name in tasks_of_mean(place.suite, place.column):
        task = place.suite.tasks[name]
        for difference in group.differences.get(name, []):
            found.setdefault(difference, []).append(task.label)
    return found


def describe_gap(ours: Row, printed: Row, place: Place) -> Iterator[str]:
    """Yield ours minus a published value, if there are both."""
    gaps = make_gap_row(ours, printed)
    gap = gaps.values[place.column]
    if not gap.exists:
        return
    theirs = flagged_value(printed, place)
    difference = replace(gap, flags=frozenset())  # those of both are said elsewhere
    yield labelled("gap", f"{to_text(difference)} to {printed.name}, {to_text(theirs)}")


def describe_published_cell(row: Row, place: Place, backbone: str) -> Iterator[str]:
    """Yield a published value, where it was printed, and what is known of its protocol."""
    printed = row.published
    assert printed is not None
    value = flagged_value(row, place)
    numbers = _numbers(row, place, backbone)
    if not value.exists and not numbers:
        yield from _describe_claim(printed, place)
        return
    called = published_index().backbones
    weights = printed.weights or called.get(backbone, backbone)
    yield f"{to_text(value)}  {place.title}, {row.name}, {weights}: published"
    yield from describe_value(value)
    yield from describe_flags(value, {})
    chosen = printed.selected_on or _UNKNOWN
    yield labelled("weights", f"{printed.weights or _UNKNOWN}; epoch chosen on {chosen}")
    is_stated = Flag.REPORTED_MEAN in value.flags
    if place.task is None and value.exists and not is_stated:
        yield labelled("computed", "from the values of its tasks, by the rules of our tables")
    for number in numbers:
        yield from _describe_number(number)
    keys = [number.source for number in numbers if number.source]
    for key in dict.fromkeys(keys):
        yield labelled("source", _describe_source(key))
    if printed.protocol:
        yield labelled("protocol", printed.protocol)
    yield ""


def _numbers(row: Row, place: Place, backbone: str) -> list[PublishedNumber]:
    """Return what is printed of a row at a place, variants of a task and stated means, too."""
    found = []
    for number in published_numbers(place.suite.name, backbone):
        if number.method == row.name and place.holds(number.task):
            found.append(number)
    return found


def _describe_claim(printed: PublishedRow, place: Place) -> Iterator[str]:
    """Yield what is said in place of a number."""
    claim = printed.claim or "no source has one here"
    text = f"{place.title}, {printed.method}: published without a number: {claim}"
    yield textwrap.fill(
        f"{MISSING}  {text}",
        WIDTH,
        subsequent_indent="   ",
    )
    yield ""


def _describe_number(number: PublishedNumber) -> Iterator[str]:
    """Yield a printed number, whose it is and where it was read, and a note on it."""
    _, _, variant = number.task.partition(":")
    text = f"{number.accuracy:g}"
    if variant:
        text += f" ({variant})"
    yield labelled("printed", f"{text}: {number.origin}")
    if number.note:
        yield labelled("note", number.note)


def _describe_source(key: str) -> str:
    """Return what a person needs to find a source of published numbers."""
    source = find_source(key, "the published numbers")
    facts = [source.title, source.venue]
    if source.year is not None:
        facts.append(str(source.year))
    facts.append(source.url)
    known = [fact for fact in facts if fact]
    return f"{key}: {', '.join(known)}"
