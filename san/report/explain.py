"""Where a number of a table comes from: records, settings, and the commands that repeat a run."""

import shlex
from collections.abc import Iterator, Sequence

from san.record import Record
from san.renamed_keys import current_words
from san.report.published import (
    PublishedRow,
    published_index,
    published_numbers,
    published_rows,
)
from san.tasks import load_suite

_RECIPE_KEYS = ("epochs", "batch_size", "optimizer", "lr", "weight_decay")


def explain_cell(suite: str, method: str, task: str, records: Sequence[Record]) -> Iterator[str]:
    """Yield what is known of a cell, ours and published.

    method: a name that exists. Raises UnknownNameError with the nearest names on an unknown suite
    or task.
    """
    facts = load_suite(suite)
    facts.task(task)
    cell = (suite, method, task)
    found = [r for r in records if (r.suite, r.method, r.task) == cell]
    yield f"{suite}/{task} {method}: {len(found)} records"
    for r in sorted(found, key=_record_order):
        yield from _describe_record(r)
    for backbone in sorted({facts.backbone, *(r.backbone for r in found)}):
        yield from _describe_published(suite, method, task, backbone)


def rerun_command(r: Record) -> str:
    """Return the command that repeats a run; where its record still exists, add `force=true`."""
    words = [f"method={r.method}", f"data={r.suite}/{r.task}", f"seed={r.seed}"]
    if r.backbone != load_suite(r.suite).backbone:
        words.append(f"backbone={r.backbone}")
    words.append(f"protocol={r.protocol}")
    words.append(f"precision={r.config.get('precision', 'auto')}")
    for word in shlex.split(r.variant):
        # A variant says that an adapter was restored, and the configuration from which file.
        words.append(f"restore={r.config.get('restore')}" if word == "restored" else word)
    if r.data.forced:
        words.append("force_data=true")
    return shlex.join(["python", "train.py", *current_words(words, warn=False)])


def _record_order(r: Record) -> tuple[str, str, str, int, str]:
    return (r.backbone, r.variant, r.protocol, r.seed, r.created)


def _describe_record(r: Record) -> Iterator[str]:
    """Yield what a record says."""
    yield f"\n{r.id}  seed {r.seed}  {_result(r)}, epoch chosen on {r.selected_on}, {r.created}"
    settings = ", ".join(f"{key}={r.config.get(key)}" for key in _RECIPE_KEYS)
    yield f"  settings   {settings}; {r.variant}" if r.variant else f"  settings   {settings}"
    yield f"  weights    {r.backbone}, {r.weights}"
    source = r.data.source or "unknown"
    train = r.data.train or "unknown"
    evaluate = r.data.evaluate or "unknown"
    yield f"  data       {source}; train {train}, {r.evaluated_on} {evaluate}"
    if r.data.forced:
        yield f"  FORCED     {r.data.forced}"
    versions = ", ".join(f"{name} {version}" for name, version in r.versions.items())
    yield f"  made by    commit {_commit(r)}, {versions}, on {r.device.name}"
    if r.error:
        yield f"  error      {r.error.strip().splitlines()[-1]}"
    yield f"  reproduce  {rerun_command(r)}"


def _result(r: Record) -> str:
    """Return the accuracy of a run, or how it ended."""
    if r.score is None:
        return r.status
    return f"{r.accuracy:.2f} % ({r.score.correct} of {r.score.total})"


def _commit(r: Record) -> str:
    """Return the commit a run was made with, and whether there were changes beside it."""
    changes = " with changes" if r.code.dirty else ""
    return str(r.code.commit)[:12] + changes


def _describe_published(suite: str, method: str, task: str, backbone: str) -> Iterator[str]:
    """Yield what is published of a cell in each variant of the row that the method is compared to.

    `SSF (Mai et al. logs)` is a variant of `SSF`.
    """
    compared = published_index().our_methods.get(method)
    if compared is None:
        return
    rows, _ = published_rows(load_suite(suite), backbone)
    for row in rows:
        if _without_variant(row.method) == _without_variant(compared):
            yield from _describe_published_row(row, suite, task, backbone)


def _describe_published_row(
    row: PublishedRow, suite: str, task: str, backbone: str
) -> Iterator[str]:
    """Yield the numbers of a row for a task, and what is claimed in place of numbers."""
    weights = row.weights or "not known"
    selected_on = row.selected_on or "not known"
    for number in published_numbers(suite, backbone):
        if (number.method, number.task) == (row.method, task):
            yield f"\npublished  {number.accuracy:g} % as {number.method}"
            yield f"  weights    {weights}; epoch chosen on {selected_on}"
            yield f"  source     {number.source}"
            yield f"  note       {number.note}"
    if row.claim:
        yield f"\nclaimed    {row.method}: {row.claim}"


def _without_variant(row_name: str) -> str:
    return row_name.partition(" (")[0]
