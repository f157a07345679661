"""Whether two methods differ on one task: what its test images and seeds allow one to say.

Test images are taken to be independent draws of all images that the task is about.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
import scipy  # imports its parts when they are first used: scipy.stats takes half a second
from numpy.typing import NDArray

from san.answers import Answers
from san.report.compare import PRACTICALLY_EQUAL, Interval, Posterior, RowDifference

Floats = NDArray[np.float64]

Z = NormalDist().inv_cdf(0.975)  # two-sided, 95 %
# Images that are added to those of a test split, half of which say one thing and half the other, so
# that no variance is 0 (Agresti and Caffo 2000; for pairs Agresti and Min 2005).
_ADDED_IMAGES = 2


class Evidence(StrEnum):
    """What a comparison on one task rests on."""

    MCNEMAR = "mcnemar"  # one run of each, answers to the same images
    PAIRED_IMAGES = "paired_images"  # several runs, answers to the same images
    COUNTS = "counts"  # right answers of each run


@dataclass(frozen=True, eq=False)
class CellRuns:
    """The runs of one method on one task.

    correct: right answers of each seed, not whole where an accuracy was printed. total: test
    images. answers: whether each was right, (seeds, images), images in one order for all methods;
    None where that was not kept.
    """

    correct: Sequence[float]
    total: int
    answers: Answers | None = None

    @property
    def shares(self) -> Floats:
        """The share of right answers, (seeds,)."""
        return np.asarray(self.correct) / self.total


@dataclass(frozen=True)
class CellDifference:
    """The accuracy of a method less that of another on one task, both means of seeds, in points.

    freedom: degrees of freedom of the standard error. p: two-sided, of one comparison alone (see
    `holm`).
    """

    difference: float
    standard_error: float
    freedom: float
    p: float
    evidence: Evidence


@dataclass(frozen=True)
class _Variance:
    """A part of the variance of a difference. freedom: the degrees of it in the estimate."""

    value: float
    freedom: int


def wilson_interval(correct: float, total: int) -> Interval:
    """Return the 95 % interval of an accuracy, in percent (Wilson 1927).

    correct: right answers to `total` images; of several seeds their mean. The interval says what
    other test images may change, not what other seeds may.
    """
    assert 0 <= correct <= total
    share = correct / total
    shrinkage = 1 + Z**2 / total
    center = (share + Z**2 / (2 * total)) / shrinkage
    variance = share * (1 - share) / total + (Z / (2 * total)) ** 2
    half_width = Z * math.sqrt(variance) / shrinkage
    low = max(0.0, center - half_width)
    high = min(1.0, center + half_width)
    return Interval(100 * low, 100 * high)


def mcnemar_p(ours: Answers, other: Answers) -> float:
    """Return the two-sided p-value of McNemar's exact test of two models: 1 if they always agree.

    Both: whether an answer is right, (images,), of the same images in the same order.
    """
    assert ours.shape == other.shape == (ours.size,)
    wins = int(np.count_nonzero(ours & ~other))
    losses = int(np.count_nonzero(other & ~ours))
    if wins == losses:
        return 1.0
    # Both tails of a fair coin are alike, so that a p-value is twice the smaller one.
    smaller_tail = float(scipy.special.bdtr(min(wins, losses), wins + losses, 0.5))
    return min(1.0, 2 * smaller_tail)


def compare_cells(ours: CellRuns, other: CellRuns) -> CellDifference:
    """Compare two methods on one task by the best evidence that both have.

    One seed of each, with answers: McNemar's exact test of these two models. That another seed may
    turn it is beyond one seed, here as with counts.

    Otherwise Student's distribution with Welch's degrees of freedom, and the sum of two variances:

    - Of images. With answers, that of the per-image difference of the means over seeds. With counts
      alone, the binomial ones of both, as if each had seen images of its own: conservative, since
      methods tend to be right on the same images, and very much so for methods that are alike.
    - Of seeds, which are taken to be independent between the two. A method of one seed is taken to
      vary as the other does. What seeds change by guessing anew on each image is counted twice,
      which is conservative, too.

    In simulations at most 5 % of equal methods have p < 0.05; up to 9 % where seeds matter more
    than images and only one method varies over its three, or the other has a single one.
    """
    assert ours.total == other.total
    evidence = _best_evidence(ours, other)
    difference = float(ours.shares.mean() - other.shares.mean())
    parts = [_image_variance(ours, other), *_seed_variances(ours, other)]
    variance = sum(part.value for part in parts)
    freedom = variance**2 / sum(part.value**2 / part.freedom for part in parts)
    if evidence is Evidence.MCNEMAR:
        p = mcnemar_p(_answers(ours)[0], _answers(other)[0])
    else:
        p = 2 * float(scipy.special.stdtr(freedom, -abs(difference) / math.sqrt(variance)))
    return CellDifference(100 * difference, 100 * math.sqrt(variance), freedom, p, evidence)


def compare_on_one_task(
    ours: CellRuns, other: CellRuns, practically_equal: float = PRACTICALLY_EQUAL
) -> RowDifference:
    """Compare two rows of a table of one task, as `compare_rows` does over several.

    The interval and the posterior (of a flat prior) are of Student's distribution, with the
    standard error and the degrees of freedom of `compare_cells`; p is its. No interval leaves what
    an accuracy can do.
    """
    found = compare_cells(ours, other)
    difference = found.difference
    error = found.standard_error
    half_width = error * float(scipy.special.stdtrit(found.freedom, 0.975))
    larger = float(scipy.special.stdtr(found.freedom, (difference - practically_equal) / error))
    smaller = float(scipy.special.stdtr(found.freedom, (-practically_equal - difference) / error))
    return RowDifference(
        tasks=1,
        mean=difference,
        interval=Interval(
            low=max(-100.0, difference - half_width),
            high=min(100.0, difference + half_width),
        ),
        wins=int(difference > 0),
        ties=int(difference == 0),
        losses=int(difference < 0),
        p=found.p,
        posterior=Posterior(larger, 1 - larger - smaller, smaller),
    )


def _best_evidence(ours: CellRuns, other: CellRuns) -> Evidence:
    if ours.answers is None or other.answers is None:
        return Evidence.COUNTS
    if len(ours.correct) == len(other.correct) == 1:
        return Evidence.MCNEMAR
    return Evidence.PAIRED_IMAGES


def _answers(runs: CellRuns) -> Answers:
    assert runs.answers is not None
    assert runs.answers.shape == (len(runs.correct), runs.total)
    return runs.answers


def _image_variance(ours: CellRuns, other: CellRuns) -> _Variance:
    """Return what other test images would change."""
    if _best_evidence(ours, other) is Evidence.COUNTS:
        value = _binomial_variance(ours) + _binomial_variance(other)
    else:
        value = _paired_variance(_answers(ours).mean(axis=0) - _answers(other).mean(axis=0))
    return _Variance(value, ours.total + _ADDED_IMAGES - 1)


def _binomial_variance(runs: CellRuns) -> float:
    images = runs.total + _ADDED_IMAGES
    share = (float(np.mean(runs.correct)) + _ADDED_IMAGES / 2) / images
    return share * (1 - share) / images


def _paired_variance(differences: Floats) -> float:
    """Return the variance of the mean of per-image differences, (images,), each within -1 and 1."""
    images = differences.size + _ADDED_IMAGES
    # Of the added images one half is a tie, a quarter a win and a quarter a loss.
    mean_square = (float(np.sum(differences**2)) + _ADDED_IMAGES / 2) / images
    mean = float(np.sum(differences)) / images
    return (mean_square - mean**2) / images


def _seed_variances(ours: CellRuns, other: CellRuns) -> list[_Variance]:
    """Return what other seeds would change, estimated where there are several."""
    several = [runs for runs in (ours, other) if len(runs.correct) > 1]
    weights = [1 / len(runs.correct) for runs in several]
    if len(several) == 1:
        weights = [1 / len(ours.correct) + 1 / len(other.correct)]
    variances = []
    for runs, weight in zip(several, weights, strict=True):
        value = weight * float(np.var(runs.shares, ddof=1))
        variances.append(_Variance(value, len(runs.correct) - 1))
    return variances
