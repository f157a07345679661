"""Copies of records, and records of one identity that have different results."""

from collections.abc import Sequence

from san.record import Record
from san.report.value import Flag


def deduplicate(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Leave out copies of records, of which the newest stays.

    Also return a note on each identity that has different results; these all stay.
    """
    by_identity: dict[object, dict[object, Record]] = {}
    for r in sorted(records, key=lambda r: r.created):
        # The row is a part of it: a run may be a cell of several.
        identity = (r.id, r.task, r.method, r.variant, r.seed)
        results = by_identity.setdefault(identity, {})
        results[r.status, _counts(r), r.params] = r
    kept = []
    notes = []
    for results in by_identity.values():
        different = list(results.values())
        kept += different
        if len(different) > 1:
            notes.append(_conflict_note(different))
    return kept, notes


def _counts(r: Record) -> tuple[int, int, int] | None:
    """Return what a result is compared by.

    Losses differ by rounding between machines.
    """
    return None if r.score is None else (r.score.epoch, r.score.correct, r.score.total)


def _conflict_note(records: Sequence[Record]) -> str:
    """Say that records of one identity have different results.

    They count as one cell, whose value has a mark.
    """
    first = records[0]
    mark = Flag.CONFLICT.mark
    results = ", ".join(_describe_result(r) for r in records)
    return (
        f"{mark} {first.task} {first.method} seed {first.seed} has {len(records)} "
        f"records of one identity ({first.id}) with other results: {results}."
    )


def _describe_result(r: Record) -> str:
    """Say how a run ended."""
    if r.score is None:
        return r.status
    return f"{r.score.correct} of {r.score.total}"
