"""Where a number of a table comes from: records, settings, and the commands that repeat a run."""

import shlex
from collections.abc import Iterator, Sequence
from operator import attrgetter

from san.record import Record
from san.renamed_keys import current_words
from san.report.published import (
    PublishedNumber,
    PublishedRow,
    published_index,
    published_numbers,
    published_rows,
)
from san.tasks import Suite, load_suite

_RECIPE_KEYS = ("epochs", "batch_size", "optimizer", "lr", "weight_decay")
_RECORD_ORDER = attrgetter("backbone", "variant", "protocol", "seed", "created")


def explain_cell(suite: str, method: str, task: str, records: Sequence[Record]) -> Iterator[str]:
    """Yield what is known of a cell, ours and published.

    method: a name that exists. Raises UnknownNameError with the nearest names on an unknown suite
    or task.
    """
    facts = load_suite(suite)
    facts.task(task)
    found = []
    backbones = {facts.backbone}
    for r in sorted(records, key=_RECORD_ORDER):
        if (r.suite, r.method, r.task) == (suite, method, task):
            found.append(r)
            backbones.add(r.backbone)
    yield f"{suite}/{task} {method}: {len(found)} records"
    for r in found:
        yield from _describe_record(r)
    for backbone in sorted(backbones):
        yield from _describe_published(facts, method, task, backbone)


def rerun_command(r: Record) -> str:
    """Return the command that repeats a run; where its record still exists, add `force=true`."""
    precision = r.config.get("precision", "auto")
    words = [
        f"method={r.method}",
        f"data={r.suite}/{r.task}",
        f"seed={r.seed}",
    ]
    if r.backbone != load_suite(r.suite).backbone:
        words.append(f"backbone={r.backbone}")
    words.append(f"protocol={r.protocol}")
    words.append(f"precision={precision}")
    words += _variant_words(r)
    if r.data.forced:
        words.append("force_data=true")
    # Records have the words of schema 1; the command has the current ones.
    words = current_words(words, warn=False)
    return shlex.join(["python", "train.py", *words])


def _variant_words(r: Record) -> list[str]:
    """Return the overrides of a variant, which says only that an adapter was restored."""
    words = shlex.split(r.variant)
    if "restored" in words:
        adapter = r.config.get("restore")
        words[words.index("restored")] = f"restore={adapter}"
    return words


def _describe_record(r: Record) -> Iterator[str]:
    """Yield what a record says."""
    result = _result(r)
    yield f"\n{r.id}  seed {r.seed}  {result}, epoch chosen on {r.selected_on}, {r.created}"
    yield _line("settings", _settings(r))
    yield _line("weights", f"{r.backbone}, {r.weights}")
    yield _line("data", _data(r))
    if r.data.forced:
        yield _line("FORCED", r.data.forced)
    yield _line("made by", _made_by(r))
    if r.error:
        last_line = r.error.strip().splitlines()[-1]
        yield _line("error", last_line)
    yield _line("reproduce", rerun_command(r))


def _line(label: str, text: str) -> str:
    return f"  {label:<10} {text}"


def _result(r: Record) -> str:
    """Return the accuracy of a run, or how it ended."""
    if r.score is None:
        return r.status
    return f"{r.accuracy:.2f} % ({r.score.correct} of {r.score.total})"


def _settings(r: Record) -> str:
    """Return the recipe of a run, and how it departs from its suite's."""
    recipe = [f"{key}={r.config.get(key)}" for key in _RECIPE_KEYS]
    settings = ", ".join(recipe)
    return f"{settings}; {r.variant}" if r.variant else settings


def _data(r: Record) -> str:
    """Return the source of the images, and the fingerprints of the splits."""
    source = r.data.source or "unknown"
    train = r.data.train or "unknown"
    evaluate = r.data.evaluate or "unknown"
    return f"{source}; train {train}, {r.evaluated_on} {evaluate}"


def _made_by(r: Record) -> str:
    """Return commit, versions and device; and whether files differed from the commit."""
    commit = str(r.code.commit)[:12]
    changes = " with changes" if r.code.dirty else ""
    parts = [f"commit {commit}{changes}"]
    for name, version in r.versions.items():
        parts.append(f"{name} {version}")
    parts.append(f"on {r.device.name}")
    return ", ".join(parts)


def _describe_published(suite: Suite, method: str, task: str, backbone: str) -> Iterator[str]:
    """Yield what is published of a cell in each variant of the row that the method is compared to.

    `SSF (Mai et al. logs)` is a variant of `SSF`.
    """
    compared = published_index().our_methods.get(method)
    if compared is None:
        return
    rows, _ = published_rows(suite, backbone)
    numbers = published_numbers(suite.name, backbone)
    for row in rows:
        if _without_variant(row.method) != _without_variant(compared):
            continue
        for number in numbers:
            if number.method == row.method and number.task == task:
                yield from _describe_number(number, row)
        if row.claim:
            yield f"\nclaimed    {row.method}: {row.claim}"


def _describe_number(number: PublishedNumber, row: PublishedRow) -> Iterator[str]:
    """Yield a published number, and what is known of the protocol of its row."""
    weights = row.weights or "not known"
    selected_on = row.selected_on or "not known"
    yield f"\npublished  {number.accuracy:g} % as {number.method}"
    yield _line("weights", f"{weights}; epoch chosen on {selected_on}")
    yield _line("source", number.source)
    yield _line("note", number.note)


def _without_variant(row_name: str) -> str:
    return row_name.partition(" (")[0]
