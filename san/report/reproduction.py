"""Does it reproduce here? This machine's runs beside the reference runs that the project ships.

    to the bit       every loss and every score of every epoch is the same
    the same count   so many test images are right; losses differ, by rounding as a rule
    else             which runs differ, by how many images, and what differs between the machines

Runs of another identity, under other settings or on other data, are named and not held against it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from san.installation import PROJECT
from san.record import Record, Status
from san.report.comparability import RowKey, facts_of_run

REFERENCE = PROJECT / "results" / "reference"  # in a checkout
_MOST_LISTED = 10


@dataclass(frozen=True)
class RunPair:
    """A run of the reference, and the one here of the same row, task and seed."""

    reference: Record
    own: Record

    @property
    def has_same_identity(self) -> bool:
        """Whether both are one experiment: all that may change its number is the same."""
        return self.reference.id == self.own.id

    @property
    def is_equal(self) -> bool:
        """Whether both have the same number of test images right."""
        return self._correct(self.reference) == self._correct(self.own)

    @property
    def is_equal_to_the_bit(self) -> bool:
        """Whether every loss and every score of every epoch is the same."""
        has_losses = any(epoch.train_loss is not None for epoch in self.reference.history)
        return has_losses and self.is_equal and self.reference.history == self.own.history

    @property
    def images(self) -> int:
        """How many more test images are right here; fewer where it is negative."""
        return self._correct(self.own) - self._correct(self.reference)

    @staticmethod
    def _correct(r: Record) -> int:
        return 0 if r.score is None else r.score.correct


def describe_reproduction(
    own: Sequence[Record],
    reference: Sequence[Record],
) -> Iterator[str]:
    """Yield sentences on how the runs here compare with those of the reference.

    own, reference: records of the suites that are shown, in any order; failed runs count as not
    there. Both as `record_names.named_by_value` returns them. Nothing where no run is in both.
    """
    pairs = _pair_runs(own, reference)
    if not pairs:
        return
    same = [pair for pair in pairs if pair.has_same_identity]
    unequal = [pair for pair in same if not pair.is_equal]
    wanted = len(_done(reference))
    yield f"{len(pairs)} of the {wanted} runs of the reference are here."
    if same:
        yield _equality_sentence(same, unequal)
    yield from _unequal_lines(unequal)
    if unequal or not all(pair.is_equal_to_the_bit for pair in same):
        yield from _environment_lines(same)
    others = [pair for pair in pairs if not pair.has_same_identity]
    if others:
        yield (
            f"{len(others)} were run here under other settings, so their numbers need not agree: "
            f"{'; '.join(_settings_differences(others)) or 'data or code revision'}."
        )


def _pair_runs(own: Sequence[Record], reference: Sequence[Record]) -> list[RunPair]:
    """Return the runs that are done in both, by row, task and seed: the newest of each."""
    by_cell: dict[object, Record] = {}
    identities = {r.id for r in reference}
    # Of several runs of a cell the one of the reference's identity counts, then the newest.
    for r in sorted(_done(own), key=lambda r: (r.id in identities, r.created)):
        by_cell[_cell_of(r)] = r
    pairs = []
    for r in _done(reference):
        if _cell_of(r) in by_cell:
            pairs.append(RunPair(r, by_cell[_cell_of(r)]))
    return pairs


def _done(records: Sequence[Record]) -> list[Record]:
    """Return the runs that have a number."""
    return [r for r in records if r.status == Status.DONE]


def _cell_of(r: Record) -> tuple[str, str, RowKey, str, int]:
    return (r.suite, r.backbone, RowKey.of(r), r.task, r.seed)


def _equality_sentence(pairs: Sequence[RunPair], unequal: Sequence[RunPair]) -> str:
    """Say how many runs are equal, and how far."""
    exact = sum(pair.is_equal_to_the_bit for pair in pairs)
    if exact == len(pairs):
        return (
            f"All {len(pairs)} of the same settings are equal to the bit: every loss and every "
            "score of every epoch."
        )
    if not unequal:
        return (
            f"All {len(pairs)} of the same settings have the same number of test images right; the "
            f"losses of {len(pairs) - exact} differ."
        )
    largest = max(unequal, key=lambda pair: abs(_points(pair)))
    return (
        f"{len(pairs) - len(unequal)} of {len(pairs)} of the same settings have the same number of "
        f"test images right, {exact} of them to the bit. "
        f"The largest difference is {_points(largest):+.2f} points."
    )


def _points(pair: RunPair) -> float:
    """Return the difference in percentage points, here minus the reference."""
    return pair.own.accuracy - pair.reference.accuracy


def _unequal_lines(pairs: Sequence[RunPair]) -> Iterator[str]:
    """Yield a line for each run with another result, the largest differences first."""
    ordered = sorted(pairs, key=lambda pair: -abs(_points(pair)))
    for pair in ordered[:_MOST_LISTED]:
        r = pair.own
        yield (
            f"  {r.task} {r.method} seed {r.seed}: {r.accuracy:.2f} % (reference: "
            f"{pair.reference.accuracy:.2f} %, {pair.images:+d} images)"
        )
    if len(pairs) > _MOST_LISTED:
        yield f"  and {len(pairs) - _MOST_LISTED} more"


def _environment_lines(pairs: Sequence[RunPair]) -> Iterator[str]:
    """Yield what differs between the machines and the versions of packages."""
    found: dict[str, None] = {}
    for pair in pairs:
        theirs = _environment(pair.reference)
        for name, here in _environment(pair.own).items():
            there = theirs.get(name, "none")
            if here != there:
                found[f"{name} {here} (reference: {there})"] = None
    if found:
        yield f"What differs between here and there: {'; '.join(sorted(found))}."
    else:
        yield "Nothing that records know differs between here and there."


def _environment(r: Record) -> Mapping[str, str]:
    """Return what may change the last digits of a run, and is no setting of it."""
    facts = {f"version of {name}": version for name, version in r.versions.items()}
    device = r.device
    facts["device"] = f"{device.count} x {device.name} ({device.type})"
    facts["threads"] = str(device.threads)
    facts["system"] = str(device.system)
    facts["commit"] = str(r.code.commit)[:12] + (" with changes" if r.code.dirty else "")
    return facts


def _settings_differences(pairs: Sequence[RunPair]) -> list[str]:
    """Return the settings in which runs differ, each once."""
    found: dict[str, None] = {}
    for pair in pairs:
        own = facts_of_run(pair.own)
        theirs = facts_of_run(pair.reference)
        for name, value in own.items():
            if value != theirs.get(name):
                found[f"{name} {value} (reference: {theirs.get(name)})"] = None
    return list(found)
