"""What the test images and the seeds of one task say: against other libraries, and by simulation.

The values of statsmodels 0.15.0 are written down here, so that the tests do not need it.
"""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from numpy.random import RandomState
from scipy import stats

from san.report.within_task import (
    CellDifference,
    CellRuns,
    Evidence,
    compare_cells,
    compare_on_one_task,
    mcnemar_p,
    wilson_interval,
)


def simulated(
    random: RandomState,
    *,
    seeds: int,
    images: int,
    better: float = 0,
    own: float = 0.6,
    guessing: float = 0.3,
    by_seed: float = 0,
) -> tuple[CellRuns, CellRuns]:
    """Two methods, right on about 80 % of the same images, of which some are hard for both.

    Standard deviations, where that of an image's difficulty for both is 1: own, of its difficulty
    for one method; guessing, of what a seed changes on one image; by_seed, on all of them.
    better: how much easier all images are for the first method.
    """
    for_both = random.randn(images)
    cells = []
    for ease in (better, 0):
        for_one = own * random.randn(images)
        anew = guessing * random.randn(seeds, images)
        difficulty = for_both + for_one + anew + by_seed * random.randn(seeds, 1)
        spread = math.sqrt(1 + own**2 + guessing**2 + by_seed**2)
        cells.append(with_answers(difficulty < ease + spread * NormalDist().inv_cdf(0.8)))
    return cells[0], cells[1]


def with_answers(answers: np.ndarray) -> CellRuns:
    return CellRuns(answers.sum(axis=1).tolist(), answers.shape[1], answers)


def counts_of(runs: CellRuns) -> CellRuns:
    """The same runs, of which the answers were not kept."""
    return CellRuns(runs.correct, runs.total)


def rejected(draws: int, *, answers: bool = True, **options: float) -> float:
    """How many of so many pairs of equal methods have a p-value below 0.05, as a share."""
    random = RandomState(3)
    found = 0
    for _ in range(draws):
        ours, other = simulated(random, **options)
        if not answers:
            ours = counts_of(ours)
        found += compare_cells(ours, other).p < 0.05
    return found / draws


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (0, 10, 0, 27.753279986289),
        (7, 10, 39.677814746115, 89.220873259370),
        (498, 711, 66.574783377792, 73.294196867167),
        (1880, 1880, 99.796083752021, 100),
        (19234, 26032, 73.348894428032, 74.416030011492),
    ],
)
def test_wilson_s_interval_is_that_of_statsmodels(
    correct: int,
    total: int,
    low: float,
    high: float,
) -> None:
    found = wilson_interval(correct, total)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    mirrored = wilson_interval(total - correct, total)
    assert (100 - mirrored.high, 100 - mirrored.low) == pytest.approx((low, high), abs=1e-9)


def test_wilson_s_interval_takes_a_mean_of_seeds_and_stays_within_bounds() -> None:
    low, mean, high = (wilson_interval(correct, 100) for correct in (70, 70.5, 71))
    assert low.low < mean.low < high.low
    assert low.high < mean.high < high.high
    for total in range(1, 200):
        assert 0 <= wilson_interval(0, total).low < 1e-9
        assert 100 >= wilson_interval(total, total).high > 100 - 1e-9


@pytest.mark.parametrize("total", [50, 250, 711, 6084])
def test_wilson_s_interval_covers_95_percent(total: int) -> None:
    """Computed from the binomial distribution, nothing is drawn."""
    counts = np.arange(total + 1)
    intervals = [wilson_interval(int(correct), total) for correct in counts]
    low = np.array([interval.low for interval in intervals])
    high = np.array([interval.high for interval in intervals])
    coverages = []
    for accuracy in np.linspace(5, 95, 91):
        holds = (low <= accuracy) & (accuracy <= high)
        coverages.append(stats.binom.pmf(counts, total, accuracy / 100)[holds].sum())
    assert np.mean(coverages) == pytest.approx(0.95, abs=0.005)
    assert min(coverages) > 0.92


def test_mcnemar_is_that_of_statsmodels() -> None:
    """mcnemar([[0, 16], [7, 0]], exact=True)."""
    ours = np.repeat([True, False, True, False], [16, 7, 30, 7])
    other = np.repeat([False, True, True, False], [16, 7, 30, 7])
    assert mcnemar_p(ours, other) == pytest.approx(0.0931396484375)
    assert mcnemar_p(other, ours) == pytest.approx(0.0931396484375)
    assert mcnemar_p(ours, ours) == 1


def test_one_seed_with_answers_is_tested_by_mcnemar() -> None:
    ours, other = simulated(RandomState(0), seeds=1, images=300)
    found = compare_cells(ours, other)
    assert found.evidence is Evidence.MCNEMAR
    assert found.p == mcnemar_p(ours.answers[0], other.answers[0])
    assert found.difference == pytest.approx(100 * (ours.correct[0] - other.correct[0]) / 300)


def test_the_standard_error_of_pairs_is_agresti_and_min_s() -> None:
    """Half an image is added to each field of the table of both methods' answers."""
    ours, other = simulated(RandomState(1), seeds=1, images=200)
    wins = np.count_nonzero(ours.answers & ~other.answers) + 0.5
    losses = np.count_nonzero(other.answers & ~ours.answers) + 0.5
    variance = (wins + losses - (wins - losses) ** 2 / 202) / 202**2
    assert compare_cells(ours, other).standard_error == pytest.approx(100 * math.sqrt(variance))


@pytest.mark.parametrize(
    ("correct", "of_other", "total", "standard_error"),
    [(498, 470, 711, 2.4679352824757), (20, 14, 20, 10.878055025693)],
)
def test_the_standard_error_of_counts_is_agresti_and_caffo_s(
    correct: int,
    of_other: int,
    total: int,
    standard_error: float,
) -> None:
    """Of statsmodels: the width of confint_proportions_2indep(..., method="agresti-caffo")."""
    found = compare_cells(CellRuns([correct], total), CellRuns([of_other], total))
    assert found.evidence is Evidence.COUNTS
    assert found.standard_error == pytest.approx(standard_error, rel=1e-9)
    z = found.difference / standard_error
    assert found.p == pytest.approx(2 * stats.t.sf(z, total + 1), rel=1e-6)


def test_of_endless_images_only_the_seeds_are_left() -> None:
    """That is Welch's test of accuracies."""
    total = 10**12
    ours = [0.801, 0.807, 0.795, 0.811]
    other = [0.781, 0.790, 0.797]
    found = compare_cells(
        CellRuns([round(share * total) for share in ours], total),
        CellRuns([round(share * total) for share in other], total),
    )
    assert found.p == pytest.approx(stats.ttest_ind(ours, other, equal_var=False).pvalue, rel=1e-4)


def test_a_single_seed_is_taken_to_vary_as_the_other_method_does() -> None:
    """That is Student's test, whose variance is of the seeds of one side alone."""
    total = 10**12
    ours = [0.801, 0.807, 0.795]
    found = compare_cells(
        CellRuns([round(share * total) for share in ours], total),
        CellRuns([round(0.781 * total)], total),
    )
    expected = stats.ttest_ind(ours, [0.781], equal_var=True).pvalue
    assert found.p == pytest.approx(expected, rel=1e-4)


def test_swapping_methods_and_the_order_of_images_and_seeds_change_nothing() -> None:
    random = RandomState(5)
    for seeds in (1, 3):
        ours, other = simulated(random, seeds=seeds, images=500, by_seed=0.1)
        found = compare_cells(ours, other)
        images = random.permutation(500)
        shuffled = [
            with_answers(random.permutation(cell.answers)[:, images]) for cell in (ours, other)
        ]
        same_as(compare_cells(*shuffled), found)
        back = compare_cells(other, ours)
        same_as(replace(back, difference=-back.difference), found)


def same_as(found: CellDifference, expected: CellDifference) -> None:
    assert found.evidence is expected.evidence
    assert found.difference == pytest.approx(expected.difference)
    assert found.standard_error == pytest.approx(expected.standard_error)
    assert found.freedom == pytest.approx(expected.freedom)
    assert found.p == pytest.approx(expected.p)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_on_one_task_interval_and_posterior_agree_with_p(seeds: int) -> None:
    """Of one distribution: p is 5 % just where the interval ends at 0, and 2 (1 - P(better))."""
    random = RandomState(9)
    told_apart = 0
    for better in np.linspace(0, 0.8, 40):
        ours, other = simulated(random, seeds=seeds, images=300, better=better, by_seed=0.2)
        found = compare_on_one_task(ours, other, practically_equal=0)
        within = compare_cells(ours, other)
        assert (found.p, found.mean) == (within.p, within.difference)
        is_apart = found.interval.low > 0 or found.interval.high < 0
        assert is_apart == (found.p < 0.05)
        told_apart += is_apart
        more = max(found.posterior.better, found.posterior.worse)
        assert found.p == pytest.approx(2 * (1 - more))
        assert found.posterior.better + found.posterior.worse == pytest.approx(1)
        back = compare_on_one_task(other, ours, practically_equal=0)
        assert back.interval.low == pytest.approx(-found.interval.high)
        assert (back.wins, back.losses) == (found.losses, found.wins)
    assert 0 < told_apart < 40


def test_equal_answers_are_never_told_apart() -> None:
    random = RandomState(6)
    for seeds in (1, 2, 5):
        for images in (1, 2, 300):
            cell, _ = simulated(random, seeds=seeds, images=images)
            for runs in (cell, counts_of(cell)):
                found = compare_cells(runs, runs)
                assert (found.difference, found.p) == (0, 1)
                assert found.standard_error > 0


def test_always_right_against_always_wrong_is_certain_with_enough_images_alone() -> None:
    """No variance is seen, and yet none is taken to be 0."""
    for kept in (True, False):
        p_values = []
        for images in (2, 20):
            cells = [with_answers(np.full((3, images), right)) for right in (True, False)]
            runs = cells if kept else [counts_of(cell) for cell in cells]
            p_values.append(compare_cells(*runs).p)
        assert p_values[0] > 0.01
        assert p_values[1] < 1e-6


def test_answers_to_the_same_images_say_more_than_counts() -> None:
    ours, other = simulated(RandomState(8), seeds=3, images=2000, better=0.2)
    paired = compare_cells(ours, other)
    counted = compare_cells(counts_of(ours), other)
    assert (paired.evidence, counted.evidence) == (Evidence.PAIRED_IMAGES, Evidence.COUNTS)
    assert paired.difference == counted.difference
    assert paired.standard_error < counted.standard_error
    assert paired.p < 0.001 < counted.p


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": 3, "images": 1000, "guessing": 0.05},
        {"seeds": 3, "images": 1000, "guessing": 0.05, "by_seed": 0.1},
        {"seeds": 5, "images": 200, "guessing": 0.05, "by_seed": 0.1},
        {"seeds": 3, "images": 100, "by_seed": 0.5},
    ],
)
def test_about_five_percent_of_equal_methods_differ_significantly(
    options: dict[str, float],
) -> None:
    """Three standard errors of a share of 0.05 in 600 draws are 0.027."""
    assert rejected(600, **options) == pytest.approx(0.05, abs=0.027)


@pytest.mark.parametrize(
    ("answers", "options"),
    [
        (True, {"seeds": 1, "images": 200}),
        (True, {"seeds": 3, "images": 1000, "guessing": 0.6}),
        (True, {"seeds": 3, "images": 20}),
        (False, {"seeds": 1, "images": 200}),
        (False, {"seeds": 3, "images": 500}),
        (False, {"seeds": 3, "images": 500, "by_seed": 0.3}),
    ],
)
def test_fewer_do_where_the_test_is_conservative(
    answers: bool,
    options: dict[str, float],
) -> None:
    assert rejected(400, answers=answers, **options) < 0.05 + 0.033


def test_seeds_that_matter_are_not_taken_for_a_difference() -> None:
    """Paired over images alone most of these pairs of equal methods would differ."""
    random = RandomState(9)
    by_images = 0
    for _ in range(100):
        ours, other = simulated(random, seeds=1, images=5000, by_seed=0.3)
        by_images += mcnemar_p(ours.answers[0], other.answers[0]) < 0.05
    assert by_images > 60
    assert rejected(200, seeds=3, images=5000, by_seed=0.3) < 0.05 + 0.047
