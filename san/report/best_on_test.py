"""How much it adds to an accuracy to choose the epoch on the test split."""

from collections.abc import Iterator, Sequence

from san.record import Record, Status
from san.report.compare import Optimism, optimism
from san.report.published import PublishedRow
from san.report.published_index import published_index, without_remark
from san.runtime.formatting import count_of

_Gain = tuple[float, float]  # the best epoch on the test split, and the last one, in percent


def optimism_notes(runs: Sequence[Record], published: Sequence[PublishedRow]) -> Iterator[str]:
    """Yield what choosing on test added, in our runs and in published rows that have both."""
    own = _own_gains(runs)
    if own:
        yield _sentence("runs here whose epoch was chosen so", own)
    printed = _published_gains(published)
    if printed:
        yield _sentence("published rows of the same runs", printed)


def _own_gains(runs: Sequence[Record]) -> list[_Gain]:
    """Return the best and the last accuracy of the runs whose epoch was chosen on test."""
    gains = []
    for r in runs:
        is_chosen = r.selected_on == "test" and r.status == Status.DONE
        if is_chosen and r.best is not None and r.last is not None:
            gains.append((r.best.accuracy, r.last.accuracy))
    return gains


def _published_gains(rows: Sequence[PublishedRow]) -> list[_Gain]:
    """Return the accuracies of rows of one method at the best and at the last epoch, by task."""
    by_name = {}
    for row in rows:
        by_name[_family_and_method(row)] = row
    gains = []
    for best in rows:
        family, method = _family_and_method(best)
        last = by_name.get((_family_of_last_epoch(family), method))
        if last is None:
            continue
        for task, accuracy in best.accuracies.items():
            if task in last.accuracies:
                gains.append((accuracy, last.accuracies[task]))
    return gains


def _family_and_method(row: PublishedRow) -> tuple[str | None, str]:
    return row.family, without_remark(row.method)


def _family_of_last_epoch(family: str | None) -> str | None:
    """Return the family that has the same runs at their last epoch; None where there is none."""
    if family is None:
        return None
    found = published_index().families.get(family)
    if found is None or not found.same_runs_as:
        return None
    return found.same_runs_as


def _sentence(where: str, gains: Sequence[_Gain]) -> str:
    found: Optimism = optimism(*zip(*gains, strict=True))
    results = count_of(len(gains), "result")
    return (
        f"Choosing the epoch on the test split added {found.mean:.2f} points on average to "
        f"{results} of {where} (median {found.median:.2f}, a tenth by more than "
        f"{found.percentile_90:.2f}, at most {found.maximum:.2f})."
    )
