"""What a table allows one to say: who leads, by how much, how sure, and what it does not show.

the leader, and by how much, with the bootstrap's interval over tasks
who can be told apart from it, and who cannot
how probable it is that it is better, about as good, or worse than the next one
average ranks, where there are three rows or more
full fine-tuning and linear probing beside it
what is known of seeds; that choosing among the rows of a method is choosing on the test
which rows take no part, and why
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from san.report.compare import PRACTICALLY_EQUAL, RankComparison, RowDifference, smallest_wilcoxon_p
from san.report.rows import Row
from san.report.standings import (
    LEVEL,
    Standing,
    Standings,
    compare_class,
    compared_columns,
    main_column,
)
from san.report.value import CellStatus, Flag
from san.runtime.formatting import count_of
from san.tasks import Suite

_LEVEL_POINTS = 0.005  # what rounds to less than a hundredth
_FEW_TASKS = 10  # with 6 a 95 % interval of the bootstrap holds 85 %, with 19 it holds 93 %


@dataclass(frozen=True)
class Verdict:
    """The comparison of rows of one class. title: of what. sentences: all of it in words."""

    title: str
    standings: Standings
    sentences: tuple[str, ...]


def make_verdict(
    suite: Suite,
    rows: Sequence[Row],
    title: str,
    reference: str | None = None,
    *,
    split: str = "test",
    is_brief: bool = False,
) -> Verdict:
    """Compare rows of one class over the tasks of a suite, and say what that shows.

    reference: as of `compare_class`. split: the one that runs were scored on. is_brief: say who
    leads and who cannot be told apart from it, and no more.
    """
    found = compare_class(suite, rows, reference)
    if found.reference is None:
        sentences = list(_nothing_sentences(suite, rows, found, reference))
    elif is_brief:
        sentences = list(_brief_sentences(suite, found))
    else:
        sentences = list(_sentences(suite, found))
        if split == "test":
            sentences += _variant_sentences(found)
        sentences += _excluded_sentences(suite, found.excluded)
    return Verdict(title, found, tuple(sentences))


def _nothing_sentences(
    suite: Suite, rows: Sequence[Row], found: Standings, reference: str | None
) -> Iterator[str]:
    """Say that no row can be called better, and why."""
    if not rows:
        return
    if reference is not None:
        yield f"{reference} is not complete or may not be compared, so no row is compared with it."
    else:
        yield "No ranked row is complete and may be compared, so none can be called better."
    yield from _excluded_sentences(suite, found.excluded)


def _sentences(suite: Suite, found: Standings) -> Iterator[str]:
    """Yield what the comparison says, the most important first."""
    reference = found.reference
    assert reference is not None
    others = found.others
    if found.ranked and found.ranked[0].row is reference:
        yield from _leader_sentences(suite, found.ranked[0], others)
    else:
        mean = reference.values[main_column(suite)].mean
        yield f"All rows are compared with {reference.name}, {mean:.2f} % ({_what(suite)})."
    yield from _difference_sentences(suite, reference, others)
    if others:
        yield _practical_sentence(suite, reference, others[0])
    if found.ranks is not None:
        yield _rank_sentence(found.ranks, found.ranked)
    for standing in found.baselines:
        if standing.comparison is not None:
            yield _baseline_sentence(reference, standing)
    yield from _seed_sentences(suite, found)
    if any(Flag.UNCOMMITTED_CODE in standing.row.flags for standing in found.ranked):
        yield "The code had uncommitted changes: no commit repeats these runs."


def _brief_sentences(suite: Suite, found: Standings) -> Iterator[str]:
    """Yield who leads, and which rows can and cannot be told apart from it."""
    others = found.others
    yield from _leader_sentences(suite, found.ranked[0], others)
    apart = [standing.row.name for standing in others if standing.is_told_apart]
    equal = [standing.row.name for standing in others if not standing.is_told_apart]
    tasks = count_of(len(compared_columns(suite)), "task")
    test = f"at 5 % over {tasks}, corrected for {len(others)} comparisons"
    if apart:
        yield f"Told apart from it {test}: {', '.join(apart)}."
    if equal:
        yield f"Cannot be told apart from it: {', '.join(equal)}."


def _leader_sentences(suite: Suite, leader: Standing, others: Sequence[Standing]) -> Iterator[str]:
    """Say who leads and by how much."""
    head = f"{leader.row.name} leads with {leader.mean:.2f} % ({_what(suite)})"
    if not others:
        yield f"{head}; no other row can be compared with it."
        return
    second = others[0]
    assert second.comparison is not None
    described = _describe(second.comparison, second.row)
    if abs(second.comparison.mean) < _LEVEL_POINTS:
        first = f"{leader.row.name} has {leader.mean:.2f} % ({_what(suite)})"
        yield f"No row leads: {first}, {described}."
        return
    yield f"{head}, {described}."


def _difference_sentences(
    suite: Suite, reference: Row, others: Sequence[Standing]
) -> Iterator[str]:
    """Say which rows can be told apart from the reference, and which cannot."""
    if not others:
        return
    tasks = len(compared_columns(suite))
    test = "Wilcoxon signed-rank over tasks" if tasks > 1 else "over test images and seeds"
    if len(others) > 1:
        test += f", Holm's correction for {len(others)} comparisons"
    apart = [standing for standing in others if standing.is_told_apart]
    equal = [standing for standing in others if not standing.is_told_apart]
    if apart:
        yield f"Told apart from {reference.name} at 5 % ({test}): {_with_p(apart)}."
    if equal:
        yield f"Cannot be told apart from {reference.name} at 5 % ({test}): {_with_p(equal)}."
    if tasks == 1:
        yield "One task: it says nothing of others."
        return
    if tasks < _FEW_TASKS:
        yield f"Bootstrap intervals are too narrow for {tasks} tasks; it is the test that decides."
    least = smallest_wilcoxon_p(tasks) * len(others)
    if least >= LEVEL:
        yield (
            f"With {tasks} tasks and {len(others)} comparisons no difference could be "
            f"shown: the smallest p there can be is {min(least, 1.0):.2g}."
        )


def _practical_sentence(suite: Suite, reference: Row, second: Standing) -> str:
    """Say how probable it is that the next row is better, equal or worse."""
    assert second.comparison is not None
    posterior = second.comparison.posterior
    points = f"{PRACTICALLY_EQUAL:g} points"
    where = "on a further task like these"
    test = "Bayesian signed-rank test"
    if len(compared_columns(suite)) == 1:
        where = "on all images like these"
        test = "posterior of Student's t"
    return (
        f"Probability that {reference.name} is better than {second.row.name} by more than {points} "
        f"{where}: {posterior.better:.0%}; worse by more: {posterior.worse:.0%}; within {points}: "
        f"{posterior.practically_equal:.0%} ({test})."
    )


def _rank_sentence(ranks: RankComparison, standings: Sequence[Standing]) -> str:
    """Say how the rows rank over tasks."""
    averages = zip(ranks.average_ranks, standings, strict=True)
    ordered = sorted(averages, key=lambda pair: pair[0])
    listed = ", ".join(f"{standing.row.name} {rank:.2f}" for rank, standing in ordered)
    return (
        f"Average ranks over tasks: {listed}; Friedman p {_p_text(ranks.friedman_p)}, critical "
        f"difference {ranks.critical_difference:.2f} (Nemenyi, 5 %)."
    )


def _baseline_sentence(reference: Row, standing: Standing) -> str:
    """Say how the reference compares with a baseline."""
    assert standing.comparison is not None
    comparison = standing.comparison
    text = _describe(comparison, standing.row)
    return (
        f"Beside the baselines: {reference.name} is {text}, p {_p_text(standing.p)} (corrected "
        "for their number)."
    )


def _seed_sentences(suite: Suite, found: Standings) -> Iterator[str]:
    """Say what is known of the spread over seeds."""
    ours = [standing.row for standing in found.ranked if standing.row.seeds is not None]
    if not ours:
        return
    column = main_column(suite)
    spreads = [row.values[column].std for row in ours]
    known = [spread for spread in spreads if not math.isnan(spread)]
    if not known and max(_most_seeds(row) for row in ours) > 1:
        yield "Seeds differ between tasks: how much these means vary between them is not known."
    elif not known:
        yield "One seed a cell: how much these means vary between seeds is not known."
    else:
        yield f"Between seeds the means vary by at most ±{max(known):.2f} (standard deviation)."


def _most_seeds(row: Row) -> int:
    return 0 if row.seeds is None else row.seeds.most


def _variant_sentences(found: Standings) -> Iterator[str]:
    """Warn of methods that have several rows: the better one was chosen by looking at the test."""
    rows: dict[str, list[str]] = {}
    for standing in found.ranked:
        if standing.row.key is not None:
            rows.setdefault(standing.row.key.method, []).append(standing.row.name)
    for method, names in rows.items():
        if len(names) > 1:
            yield (
                f"{method} has {len(names)} rows: choosing one of them by this table is choosing "
                "on the test split."
            )


def _excluded_sentences(suite: Suite, rows: Sequence[Row]) -> Iterator[str]:
    """Say which rows take no part, and why."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        by_reason.setdefault(_why_excluded(suite, row), []).append(row.name)
    for reason, names in by_reason.items():
        yield f"Not compared, {reason}: {', '.join(names)}."


def _why_excluded(suite: Suite, row: Row) -> str:
    """Return why a row takes no part: its flags, or the tasks that it lacks."""
    values = [row.values[column] for column in compared_columns(suite)]
    missing = sum(not value.exists for value in values)
    reasons = []
    if missing:
        reasons.append(f"{len(values) - missing} of {len(values)} tasks")
    if any(value.status not in (CellStatus.DONE, CellStatus.MISSING) for value in values):
        reasons.append("runs that failed")
    flags: set[Flag] = set()
    for value in values:
        if value.exists and not value.is_compared:
            flags |= value.flags | row.flags
    flags.discard(Flag.NEAR_CHANCE)  # a low number is compared like any other
    reasons += [f"{flag.mark} {flag.legend}" for flag in Flag if flag in flags]
    return "; ".join(reasons)


def _what(suite: Suite) -> str:
    """Return what the main column is: `mean of all tasks`, and how many."""
    columns = compared_columns(suite)
    return columns[0].label if len(columns) == 1 else f"{suite.means[0]}, {len(columns)}"


def _describe(comparison: RowDifference, other: Row) -> str:
    """Return a difference in words, with its interval and the tasks won."""
    side = "ahead of" if comparison.mean >= 0 else "behind"
    points = f"{abs(comparison.mean):.2f} points {side}"
    if abs(comparison.mean) < _LEVEL_POINTS:
        points = "level with"
    interval = comparison.interval
    between = f"{interval.low:+.2f} to {interval.high:+.2f}"
    if comparison.tasks == 1:
        return f"{points} {other.name} (95 % interval over test images and seeds {between})"
    wins = f"better on {comparison.wins} of {comparison.tasks} tasks"
    ties = f", equal on {comparison.ties}" if comparison.ties else ""
    return f"{points} {other.name} (95 % interval over tasks {between}; {wins}{ties})"


def _with_p(standings: Sequence[Standing]) -> str:
    return ", ".join(f"{each.row.name} (p {_p_text(each.p)})" for each in standings)


def _p_text(p: float) -> str:
    """Return a p-value with two digits that count."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"
