"""Whether one row of a table is better than another: what its tasks allow one to say.

Tasks are the sample: an accuracy is one number for each, and no task counts for more than another.
All is computed from the numbers alone and in no order of theirs. What is drawn at random comes from
a fixed seed, and swapping the two rows mirrors it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy  # imports its parts when they are first used: scipy.stats takes half a second
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# A difference of accuracies, in points, below which two numbers were equal before they were rounded
# to floats.
_ROUNDING = 1e-9
PRACTICALLY_EQUAL = 0.5  # points within which a difference is of no practical interest
_DRAWS = 10_000
_SEED = 0
# Of the prior observation in the signed-rank posterior, as Benavoli et al. have it.
_PRIOR_STRENGTH = 0.5
# Up to so many differences Wilcoxon's test goes through all ways to sign them. Where two have one
# size scipy's does so, too, and takes a second.
_MOST_ENUMERATED = 13


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; NaN where there is none."""

    low: float
    high: float


@dataclass(frozen=True)
class Posterior:
    """Probabilities, with a sum of 1, that a row is better than another, about equal, or worse."""

    better: float
    practically_equal: float
    worse: float


@dataclass(frozen=True)
class RowDifference:
    """A row less its baseline over the same tasks, in points.

    interval: of the mean. p: two-sided, of one comparison alone (see `holm`). wins, ties, losses:
    tasks. Of a single task interval, p and posterior are those that its test images and seeds give.
    """

    tasks: int
    mean: float
    interval: Interval
    wins: int
    ties: int
    losses: int
    p: float
    posterior: Posterior


@dataclass(frozen=True)
class RankComparison:
    """Several rows over the same tasks.

    average_ranks: by row; 1 is the best, and rows that are equal on a task share its ranks.
    friedman_p: that ranks this far apart come of equal rows. critical_difference: of two average
    ranks, at 5 %. bars: rows by index, the best first, that cannot be told apart (maximal sets of
    two or more whose ranks lie within the critical difference).
    """

    average_ranks: tuple[float, ...]
    friedman_p: float
    critical_difference: float
    bars: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Optimism:
    """What choosing the epoch on the test split adds to an accuracy, in points, over all cells."""

    mean: float
    median: float
    percentile_90: float
    maximum: float


def compare_rows(
    accuracies: ArrayLike,
    baseline: ArrayLike,
    *,
    practically_equal: float = PRACTICALLY_EQUAL,
) -> RowDifference:
    """Compare a row with a baseline, paired over tasks.

    accuracies, baseline: in percent, (tasks,), of the same tasks in the same order, none missing.
    practically_equal: the largest difference, in points, that is of no practical interest.

    The interval is the bootstrap's over tasks, by percentiles; it is too narrow for few tasks
    (95 % are 93 % with 19 normal differences, 85 % with 6), and NaN for one. The p-value is of
    Wilcoxon's signed-rank test, which leaves out differences of 0. It is exact up to 13 others;
    beyond, scipy's: exact up to 50 of different sizes if none is 0, else a normal approximation.
    """
    differences = _sorted_differences(accuracies, baseline)
    return RowDifference(
        tasks=differences.size,
        mean=math.fsum(differences) / differences.size,
        interval=_bootstrap_interval(differences),
        wins=int(np.count_nonzero(differences > 0)),
        ties=int(np.count_nonzero(differences == 0)),
        losses=int(np.count_nonzero(differences < 0)),
        p=_wilcoxon_p(differences),
        posterior=_signed_rank_posterior(differences, practically_equal),
    )


def wilcoxon_p(accuracies: ArrayLike, baseline: ArrayLike) -> float:
    """Return the p-value of `compare_rows` alone, which takes a fraction of the time."""
    return _wilcoxon_p(_sorted_differences(accuracies, baseline))


def smallest_wilcoxon_p(tasks: int) -> float:
    """Return the p-value where one row is better on every one of so many tasks.

    No smaller one is possible: above 0.05 for five tasks or fewer.
    """
    return min(1.0, 2.0 ** (1 - tasks))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the order given.

    Of all that are below 5 % the chance that even one is false stays below 5 %, whatever they have
    to do with one another (Holm 1979, step-down).
    """
    order = np.argsort(p_values)
    ascending = np.asarray(p_values, dtype=np.float64)[order]
    comparisons_left = np.arange(len(ascending), 0, -1)
    adjusted = np.empty_like(ascending)
    adjusted[order] = np.maximum.accumulate(np.minimum(1, comparisons_left * ascending))
    return [float(p) for p in adjusted]


def compare_ranks(accuracies: ArrayLike) -> RankComparison:
    """Compare three or more rows by their ranks on each task (Demsar 2006).

    accuracies: in percent, (rows, tasks), none missing. Friedman's p is from the chi-squared
    distribution, which is rough below about ten tasks; Nemenyi's critical difference, from the
    studentized range, allows for all pairs of rows.
    """
    rounded = np.asarray(accuracies, dtype=np.float64).round(9)
    assert np.isfinite(rounded).all()
    rows, tasks = rounded.shape
    ranks = scipy.stats.rankdata(-rounded, axis=0).mean(axis=1)
    studentized = scipy.stats.studentized_range.ppf(0.95, rows, np.inf) / math.sqrt(2)
    critical_difference = float(studentized * math.sqrt(rows * (rows + 1) / (6 * tasks)))
    return RankComparison(
        average_ranks=tuple(ranks.tolist()),
        friedman_p=_friedman_p(rounded),
        critical_difference=critical_difference,
        bars=_bars(ranks, critical_difference),
    )


def optimism(best_on_test: ArrayLike, last: ArrayLike) -> Optimism:
    """Return how much the best epoch on the test split lies above the last one.

    Both: accuracies in percent of the same cells, (rows, tasks) or any other shape.
    """
    gains = np.asarray(best_on_test, dtype=np.float64) - np.asarray(last, dtype=np.float64)
    assert np.isfinite(gains).all()
    return Optimism(
        mean=float(gains.mean()),
        median=float(np.median(gains)),
        percentile_90=float(np.percentile(gains, 90)),
        maximum=float(gains.max()),
    )


def _sorted_differences(accuracies: ArrayLike, baseline: ArrayLike) -> Floats:
    ours = np.asarray(accuracies, dtype=np.float64)
    theirs = np.asarray(baseline, dtype=np.float64)
    assert ours.shape == theirs.shape == (ours.size,)
    differences = np.sort(ours - theirs)
    assert np.isfinite(differences).all()
    differences[np.abs(differences) < _ROUNDING] = 0
    return differences


def _bootstrap_interval(differences: Floats) -> Interval:
    if differences.size < 2:
        return Interval(math.nan, math.nan)
    means = _resampling_weights(differences.size) @ differences
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(low), float(high))


@cache
def _resampling_weights(tasks: int) -> Floats:
    """Return the share of each sorted difference in resamples of all, (draws, tasks)."""
    equal = np.full(tasks, 1 / tasks)
    counts = np.random.default_rng(_SEED).multinomial(tasks, equal, size=_DRAWS // 2)
    return _with_mirror_images(counts / tasks)


@cache
def _posterior_weights(tasks: int) -> Floats:
    """Return weights of the prior observation and each sorted difference, (draws, 1 + tasks)."""
    strengths = [_PRIOR_STRENGTH, *[1.0] * tasks]
    weights = np.random.default_rng(_SEED).dirichlet(strengths, size=_DRAWS // 2)
    mirrored = _with_mirror_images(weights[:, 1:])
    prior = np.tile(weights[:, :1], (2, 1))
    return np.hstack([prior, mirrored])


def _with_mirror_images(weights: Floats) -> Floats:
    """Return draws for sorted differences, and those that take their place when rows are swapped.

    A draw is as likely as its mirror image, so that half of each is as good a sample.
    """
    return np.vstack([weights, weights[:, ::-1]])


def _wilcoxon_p(differences: Floats) -> float:
    nonzero = differences[differences != 0]
    if nonzero.size > _MOST_ENUMERATED:
        return float(scipy.stats.wilcoxon(differences).pvalue)
    ranks = _average_ranks(np.abs(nonzero))
    rank_sum = np.sum(ranks * np.sign(nonzero))
    patterns = np.arange(2**nonzero.size)[:, None] >> np.arange(nonzero.size)
    signs = 1 - 2 * (patterns % 2)
    return float(np.mean(np.abs(signs @ ranks) >= abs(rank_sum)))


def _average_ranks(values: Floats) -> Floats:
    """Return ranks from 1; equal values share theirs. scipy.stats, which has it, loads slowly."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last_ranks = np.cumsum(counts)
    ranks: Floats = (last_ranks - (counts - 1) / 2)[places]
    return ranks


def _signed_rank_posterior(differences: Floats, practically_equal: float) -> Posterior:
    """Return the Bayesian signed-rank test (Benavoli et al., ICML 2014; JMLR 2017).

    Each draw weights the differences and a prior observation of 0 by a Dirichlet distribution, and
    asks on which side of the region of practical equivalence most of the weighted means of pairs
    lie.
    """
    weights = _posterior_weights(differences.size)
    observations = np.concatenate([[0.0], differences])
    pair_means = (observations[:, None] + observations[None, :]) / 2
    region = practically_equal + _ROUNDING
    above = _pair_weights(weights, pair_means > region)
    below = _pair_weights(weights, pair_means < -region)
    within = 1 - above - below
    better = (above > within) & (above > below)
    worse = (below > within) & (below > above)
    return Posterior(
        better=float(np.mean(better)),
        practically_equal=float(np.mean(~better & ~worse)),
        worse=float(np.mean(worse)),
    )


def _pair_weights(weights: Floats, pairs: NDArray[np.bool_]) -> Floats:
    """Return the weight of chosen pairs in each draw. weights: (draws, n), pairs: (n, n)."""
    weights_of_partners = weights @ pairs.astype(np.float64)
    weights_of_pairs: Floats = np.sum(weights_of_partners * weights, axis=1)
    return weights_of_pairs


def _friedman_p(accuracies: Floats) -> float:
    if (accuracies == accuracies[0]).all():
        return 1.0
    return float(scipy.stats.friedmanchisquare(*accuracies).pvalue)


def _bars(ranks: Floats, critical_difference: float) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(ranks, kind="stable")
    ends = np.searchsorted(ranks[order], ranks[order] + critical_difference)
    bars = []
    longest = 0
    for start, end in enumerate(ends.tolist()):
        if end > longest and end > start + 1:
            bars.append(tuple(order[start:end].tolist()))
            longest = end
    return tuple(bars)
