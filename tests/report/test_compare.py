"""What tasks say of rows: against published statistics, other libraries, and properties."""

import itertools
import math

import numpy as np
import pytest
from numpy.random import RandomState
from scipy import stats

from san.report.compare import (
    Interval,
    Posterior,
    RankComparison,
    RowDifference,
    compare_ranks,
    compare_rows,
    holm,
    optimism,
    smallest_wilcoxon_p,
)
from san.report.published import published_numbers
from san.tasks import load_suite

TASKS = tuple(load_suite("vtab").tasks)
VIT = "vit_b16_orig_in21k"
MAI = "{} (Mai et al., {})"
PEFT = (
    "Adapter-Houlsby",
    "Adapter-Pfeiffer",
    "AdaptFormer",
    "Bias",
    "Convpass",
    "DiffFit",
    "FacT-TK",
    "FacT-TT",
    "LayerNorm-tuning",
    "LoRA",
    "RepAdapter",
    "SSF",
    "VPT-Deep",
)


def published_row(method: str) -> list[float]:
    """The printed accuracies of a row; the first of a task counts."""
    printed = {}
    for number in published_numbers("vtab", VIT):
        if number.method == method:
            printed.setdefault(number.task, number.accuracy)
    return [printed[task] for task in TASKS]


def mai_scores(epoch: str) -> np.ndarray:
    """Accuracies of the 13 PEFT methods of Mai et al., (methods, tasks); epoch: last or best."""
    return np.array([published_row(MAI.format(method, epoch)) for method in PEFT])


LAST = mai_scores("last")
BEST = mai_scores("best")
CONVPASS = PEFT.index("Convpass")


def random_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of 2 to 30 tasks; of some seeds with many ties, and with many zeros among them."""
    random = RandomState(seed)
    tasks = random.randint(2, 31)
    decimals = seed % 3
    baseline = np.round(60 + 20 * random.rand(tasks), decimals)
    return np.round(baseline + 2 * random.randn(tasks) + 0.5, decimals), baseline


def random_table(seed: int) -> np.ndarray:
    """Three to eight rows of 2 to 30 tasks, some better than others, with ties for some seeds."""
    random = RandomState(seed)
    rows = random.randint(3, 9)
    tasks = random.randint(2, 31)
    means = 70 + 10 * random.randn(tasks) + 2 * random.randn(rows, 1)
    return np.round(means + 2 * random.randn(rows, tasks), seed % 3)


def swapped(difference: RowDifference) -> RowDifference:
    """What the comparison the other way round has to be."""
    return RowDifference(
        tasks=difference.tasks,
        mean=-difference.mean,
        interval=Interval(-difference.interval.high, -difference.interval.low),
        wins=difference.losses,
        ties=difference.ties,
        losses=difference.wins,
        p=difference.p,
        posterior=Posterior(
            difference.posterior.worse,
            difference.posterior.practically_equal,
            difference.posterior.better,
        ),
    )


# Mai et al.'s results: the figures that a script over their files printed.


def test_no_epoch_of_mai_et_al_is_better_on_test_than_the_best() -> None:
    methods = (*PEFT, "Full", "Linear", "VPT-Shallow")
    last = np.array([published_row(MAI.format(method, "last")) for method in methods])
    best = np.array([published_row(MAI.format(method, "best")) for method in methods])
    assert last.shape == best.shape == (16, 19)
    assert (best >= last).all()
    assert np.count_nonzero(best > last) > 250


@pytest.mark.parametrize(
    ("scores", "friedman", "ranks"),
    [
        (
            LAST,
            "1.1e-05",
            {
                "Convpass": "4.63",
                "Adapter-Houlsby": "4.95",
                "AdaptFormer": "5.53",
                "FacT-TT": "5.66",
                "FacT-TK": "5.87",
                "Adapter-Pfeiffer": "6.39",
                "RepAdapter": "6.79",
                "SSF": "7.34",
                "LoRA": "7.50",
                "DiffFit": "8.03",
                "Bias": "8.61",
                "LayerNorm-tuning": "9.84",
                "VPT-Deep": "9.87",
            },
        ),
        (
            BEST,
            "3.4e-06",
            {
                "Convpass": "4.18",
                "AdaptFormer": "5.00",
                "Adapter-Houlsby": "5.42",
                "Adapter-Pfeiffer": "5.76",
                "FacT-TT": "6.16",
                "FacT-TK": "6.26",
                "RepAdapter": "6.89",
                "LoRA": "7.24",
                "SSF": "7.47",
                "DiffFit": "8.24",
                "Bias": "8.71",
                "VPT-Deep": "9.58",
                "LayerNorm-tuning": "10.08",
            },
        ),
    ],
    ids=["last", "best"],
)
def test_ranks_of_mai_et_al(scores: np.ndarray, friedman: str, ranks: dict[str, str]) -> None:
    comparison = compare_ranks(scores)
    found = zip(PEFT, comparison.average_ranks, strict=True)
    assert {method: f"{rank:.2f}" for method, rank in found} == ranks
    assert f"{comparison.friedman_p:.2g}" == friedman
    assert f"{comparison.critical_difference:.2f}" == "4.19"
    not_with_the_leader = {PEFT[row] for row in set(range(13)).difference(comparison.bars[0])}
    assert PEFT[comparison.bars[0][0]] == "Convpass"
    assert not_with_the_leader == {
        method for method, rank in ranks.items() if float(rank) > float(ranks["Convpass"]) + 4.19
    }


@pytest.mark.parametrize(
    ("scores", "adjusted"),
    [
        (
            LAST,
            {
                "LayerNorm-tuning": "0.0243",
                "VPT-Deep": "0.0261",
                "Bias": "0.0945",
                "DiffFit": "0.1105",
                "SSF": "0.2314",
                "LoRA": "0.2314",
                "Adapter-Pfeiffer": "0.2674",
                "RepAdapter": "0.2674",
                "AdaptFormer": "0.6278",
                "FacT-TT": "0.8260",
                "Adapter-Houlsby": "0.8260",
                "FacT-TK": "0.8260",
            },
        ),
        (
            BEST,
            {
                "VPT-Deep": "0.0048",
                "LayerNorm-tuning": "0.0235",
                "Bias": "0.0392",
                "LoRA": "0.0758",
                "DiffFit": "0.1125",
                "SSF": "0.1609",
                "RepAdapter": "0.1609",
                "FacT-TT": "0.1730",
                "Adapter-Pfeiffer": "0.2408",
                "Adapter-Houlsby": "0.3663",
                "AdaptFormer": "0.3663",
                "FacT-TK": "0.3663",
            },
        ),
    ],
    ids=["last", "best"],
)
def test_which_methods_of_mai_et_al_differ_from_the_leader(
    scores: np.ndarray,
    adjusted: dict[str, str],
) -> None:
    others = [row for row in range(13) if row != CONVPASS]
    found = [compare_rows(scores[row], scores[CONVPASS]).p for row in others]
    names = [PEFT[row] for row in others]
    p_values = zip(names, holm(found), strict=True)
    assert {name: f"{p:.4f}" for name, p in p_values} == adjusted


def test_what_choosing_on_test_adds_in_mai_et_al() -> None:
    found = optimism(BEST, LAST)
    assert f"{found.mean:.2f}" == "0.66"
    assert f"{found.median:.2f}" == "0.28"
    assert f"{found.percentile_90:.2f}" == "1.54"
    assert f"{found.maximum:.2f}" == "10.81"
    by_task = {"diabetic_retinopathy": "4.09", "kitti": "1.59", "oxford_flowers102": "0.10"}
    for task, mean in by_task.items():
        column = TASKS.index(task)
        assert f"{optimism(BEST[:, column], LAST[:, column]).mean:.2f}" == mean


def test_vpt_against_full_as_the_paper_counts_and_tests_it() -> None:
    """VPT's test is one-sided: 1.2e-3 from its unrounded cells, 3.7e-3 from those it prints."""
    difference = compare_rows(published_row("VPT-Deep"), published_row("Full"))
    assert (difference.tasks, difference.wins, difference.losses) == (19, 16, 3)
    assert f"{difference.p / 2:.1e}" == "3.7e-03"


# Other libraries, on random data. Their values are written down here, so that the tests need none
# of them: scikit-posthocs 0.17.1, pingouin 0.7.0, baycomp 1.0.3, statsmodels 0.15.0.


def made_up_table() -> np.ndarray:
    """Five rows of twelve tasks."""
    random = RandomState(15)
    by_task = 70 + 10 * random.randn(12)
    by_row = np.array([[0], [1], [2], [4], [5]])
    return np.round(by_task + by_row + 2 * random.randn(5, 12), 1)


# fmt: off
# posthoc_nemenyi_friedman(made_up_table().T), and the maximal cliques of what is not below 0.05.
NEMENYI_P = np.array([
    [1.00000, 0.98576, 0.18160, 0.00278, 0.00706],
    [0.98576, 1.00000, 0.44743, 0.01667, 0.03644],
    [0.18160, 0.44743, 1.00000, 0.61463, 0.77313],
    [0.00278, 0.01667, 0.61463, 1.00000, 0.99902],
    [0.00706, 0.03644, 0.77313, 0.99902, 1.00000],
])
CLIQUES = [{0, 1, 2}, {2, 3, 4}]
TIED_TABLE = [
    [3, 4, 1, 2, 5, 2, 0, 4, 3],
    [5, 3, 5, 3, 1, 3, 3, 0, 4],
    [1, 3, 3, 4, 5, 1, 1, 2, 2],
    [3, 5, 3, 3, 0, 2, 1, 1, 4],
]
DIFFERENCES = np.array([
    2.1, -0.33, 1.07, 0.62, -1.81, 3.3, 0.04, -0.71, 1.46, 0.91,
    -0.12, 2.67, -2.2, 0.38, 1.19, 0.83, -0.94, 4.05, 0.27,
])
# fmt: on


def test_bars_join_what_scikit_posthocs_does_not_tell_apart() -> None:
    comparison = compare_ranks(made_up_table())
    assert [set(bar) for bar in comparison.bars] == CLIQUES[::-1]
    for one, other in itertools.combinations(range(5), 2):
        distance = abs(comparison.average_ranks[one] - comparison.average_ranks[other])
        is_apart = distance >= comparison.critical_difference
        assert is_apart == (NEMENYI_P[one, other] < 0.05)


def test_friedman_is_that_of_pingouin() -> None:
    assert compare_ranks(made_up_table()).friedman_p == pytest.approx(0.000271939513, rel=1e-6)
    assert compare_ranks(TIED_TABLE).friedman_p == pytest.approx(0.585158367219, rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "studentized"),
    [(3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102)],
)
def test_the_critical_difference_is_that_of_demsar_s_table(rows: int, studentized: float) -> None:
    """Demsar (2006), table 5a; with 4 rows and 14 tasks his example has 1.25."""
    table = RandomState(0).rand(rows, 14)
    expected = studentized * math.sqrt(rows * (rows + 1) / (6 * 14))
    found = compare_ranks(table).critical_difference
    assert found == pytest.approx(expected, rel=3e-4)
    if rows == 4:
        assert f"{found:.2f}" == "1.25"


@pytest.mark.parametrize(
    ("shift", "region", "worse", "equal", "better"),
    [
        (-1.203, 0.5, 0.8711, 0.0768, 0.0521),
        (-0.503, 0.5, 0.1922, 0.4200, 0.3878),
        (-0.203, 0.5, 0.0703, 0.2326, 0.6970),
        (0.001, 0.5, 0.0220, 0.1150, 0.8630),
        (0.307, 0.5, 0.0022, 0.0232, 0.9746),
        (0.307, 1.5, 0.0, 0.9571, 0.0429),
    ],
)
def test_the_posterior_is_that_of_baycomp(
    shift: float,
    region: float,
    worse: float,
    equal: float,
    better: float,
) -> None:
    """SignedRankTest.probs of 400,000 draws; ours has a standard error of at most 0.005."""
    difference = compare_rows(DIFFERENCES + shift, np.zeros(19), practically_equal=region)
    found = difference.posterior
    assert found.better == pytest.approx(better, abs=0.02)
    assert found.practically_equal == pytest.approx(equal, abs=0.02)
    assert found.worse == pytest.approx(worse, abs=0.02)


def test_holm_is_that_of_statsmodels() -> None:
    p_values = [0.1889, 0.6823, 0.0081, 0.0747, 0.8103, 0.0479, 0.0, 0.7283]
    adjusted = [0.7556, 1.0, 0.0567, 0.3735, 1.0, 0.2874, 0.0, 1.0]
    assert holm(p_values) == pytest.approx(adjusted)
    assert holm([0.04, 0.04, 0.03]) == pytest.approx([0.09, 0.09, 0.09])
    assert holm([0.3]) == [0.3]
    assert holm([]) == []


def test_the_interval_is_the_bootstrap_of_scipy() -> None:
    found = compare_rows(DIFFERENCES, np.zeros(19)).interval
    drawn = stats.bootstrap(
        (DIFFERENCES,),
        np.mean,
        n_resamples=50_000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    expected = drawn.confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.03)
    assert found.high == pytest.approx(expected.high, abs=0.03)


# Properties.


def test_few_differences_are_tested_exactly_with_ties_and_zeros() -> None:
    """As scipy's own way through all signs has it, which takes longer."""
    tied = 0
    for seed in range(60):
        random = RandomState(seed)
        differences = random.randint(-4, 6, size=random.randint(2, 8))
        if not differences.any():
            continue
        tied += len(set(np.abs(differences))) < differences.size
        found = compare_rows(differences, 0 * differences).p
        assert found == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert tied > 30


def test_no_test_says_more_than_its_tasks_can() -> None:
    for tasks in range(1, 41):
        zeros = np.zeros(tasks)
        for differences in (1 + np.arange(tasks), np.ones(tasks)):
            p = compare_rows(differences, zeros).p
            assert p >= smallest_wilcoxon_p(tasks) * (1 - 1e-9)
        if tasks <= 13 or tasks == 19:
            exact = compare_rows(1 + np.arange(tasks), zeros).p
            assert exact == pytest.approx(smallest_wilcoxon_p(tasks))
    assert smallest_wilcoxon_p(3) == 0.25
    assert smallest_wilcoxon_p(5) > 0.05 > smallest_wilcoxon_p(6)
    assert smallest_wilcoxon_p(0) == smallest_wilcoxon_p(1) == 1


def test_equal_on_most_tasks_and_better_on_five_is_no_difference() -> None:
    """A normal approximation has p = 0.043 here; the exact test of five cannot go below 0.0625."""
    differences = np.zeros(19)
    differences[:5] = [1, 2, 3, 4, 5]
    assert compare_rows(differences, np.zeros(19)).p == 0.0625


def test_the_order_of_tasks_changes_nothing() -> None:
    for seed in range(40):
        row, baseline = random_pair(seed)
        order = RandomState(seed).permutation(row.size)
        assert compare_rows(row[order], baseline[order]) == compare_rows(row, baseline)
        table = random_table(seed)
        columns = RandomState(seed).permutation(table.shape[1])
        found = compare_ranks(table[:, columns])
        assert found.friedman_p == pytest.approx(compare_ranks(table).friedman_p)
        assert found.average_ranks == pytest.approx(compare_ranks(table).average_ranks)
        assert found.bars == compare_ranks(table).bars


def test_the_order_of_rows_changes_nothing() -> None:
    for seed in range(40):
        table = random_table(seed)
        order = RandomState(seed).permutation(len(table))
        found = compare_ranks(table[order])
        expected = compare_ranks(table)
        assert found.friedman_p == pytest.approx(expected.friedman_p)
        assert found.average_ranks == pytest.approx(np.array(expected.average_ranks)[order])
        bars = [{int(order[row]) for row in bar} for bar in found.bars]
        assert bars == [set(bar) for bar in expected.bars]


def test_swapping_two_rows_mirrors_everything() -> None:
    for seed in range(40):
        row, baseline = random_pair(seed)
        forth = compare_rows(row, baseline)
        back = swapped(compare_rows(baseline, row))
        assert (back.wins, back.ties, back.losses) == (forth.wins, forth.ties, forth.losses)
        assert back.mean == forth.mean
        assert back.p == forth.p
        assert back.interval.low == pytest.approx(forth.interval.low, abs=1e-9)
        assert back.interval.high == pytest.approx(forth.interval.high, abs=1e-9)
        assert back.posterior.better == pytest.approx(forth.posterior.better, abs=2e-4)
        assert back.posterior.worse == pytest.approx(forth.posterior.worse, abs=2e-4)


@pytest.mark.parametrize("noise", [0, 1e-12])
def test_equal_rows_are_never_told_apart(noise: float) -> None:
    """Also where only the rounding of floats differs, always to the same side."""
    for seed in range(20):
        row, _ = random_pair(seed)
        difference = compare_rows(row + noise, row)
        assert difference.p == 1
        assert (difference.wins, difference.ties, difference.losses) == (0, row.size, 0)
        assert difference.mean == 0
        assert difference.interval == Interval(0, 0)
        assert difference.posterior == Posterior(0, 1, 0)
        table = random_table(seed)
        everything = compare_ranks([row, row + noise, row])
        assert everything.friedman_p == 1
        assert everything.average_ranks == (2, 2, 2)
        assert everything.bars == ((0, 1, 2),)
        twins = compare_ranks([*table, table[0] + noise])
        assert twins.average_ranks[0] == twins.average_ranks[-1]
        assert any({0, len(table)} <= set(bar) for bar in twins.bars)


def test_better_on_each_of_19_tasks_is_better() -> None:
    for seed in range(40):
        random = RandomState(seed)
        baseline = np.round(60 + 20 * random.rand(19), seed % 3)
        gains = np.round(0.8 + 2 * random.rand(19), 1)
        difference = compare_rows(baseline + gains, baseline)
        assert difference.wins == 19
        # Also among 69 comparisons of a table of 70 rows.
        assert holm([difference.p] + [1.0] * 68)[0] < 0.05
        assert difference.interval.low > 0
        assert difference.posterior.better > 0.99
        ranks = compare_ranks([baseline, baseline + gains, baseline - gains])
        assert ranks.average_ranks == (2, 1, 3)
        assert ranks.friedman_p < 1e-6
        assert ranks.bars == ()


def test_small_gains_everywhere_are_certain_and_of_no_practical_interest() -> None:
    gains = np.linspace(0.05, 0.2, 19)
    difference = compare_rows(70 + gains, np.full(19, 70.0))
    assert difference.p < 1e-4
    assert difference.posterior.practically_equal == 1
    narrow = compare_rows(70 + gains, np.full(19, 70.0), practically_equal=0)
    assert narrow.posterior.better > 0.99


def test_a_difference_of_the_stated_size_is_practically_equal() -> None:
    """Also where floats make a tenth of a point a little more than that."""
    baseline = np.array([70.1, 60.3, 81.7, 55.5, 91.2, 33.3])
    assert (baseline + 0.1 - baseline > 0.1).any()
    difference = compare_rows(baseline + 0.1, baseline, practically_equal=0.1)
    assert difference.posterior == Posterior(0, 1, 0)


def test_one_task_has_no_interval() -> None:
    difference = compare_rows([71.0], [70.0])
    assert math.isnan(difference.interval.low)
    assert math.isnan(difference.interval.high)
    assert difference.p == 1


def test_bars_are_the_maximal_sets_within_the_critical_difference() -> None:
    several = 0
    for seed in range(40):
        comparison = compare_ranks(random_table(seed))
        expected = maximal_sets(comparison)
        assert [frozenset(bar) for bar in comparison.bars] == expected
        several += len(expected) > 1
        for bar in comparison.bars:
            ranks = [comparison.average_ranks[row] for row in bar]
            assert ranks == sorted(ranks)
    assert several > 10


def maximal_sets(comparison: RankComparison) -> list[frozenset[int]]:
    """Of all sets of rows that lie close together those that no other one holds, the best first."""
    ranks = comparison.average_ranks
    close = []
    for size in range(2, len(ranks) + 1):
        for rows in itertools.combinations(range(len(ranks)), size):
            chosen = [ranks[row] for row in rows]
            if max(chosen) - min(chosen) < comparison.critical_difference:
                close.append(frozenset(rows))
    maximal = [rows for rows in close if not any(rows < other for other in close)]
    return sorted(maximal, key=lambda rows: min(ranks[row] for row in rows))


def test_five_percent_of_noise_is_significant() -> None:
    """Three standard errors of a share of 0.05 in 300 draws are 0.038."""
    random = RandomState(7)
    single, family, friedman, nemenyi = 0, 0, 0, 0
    for _ in range(300):
        table = 70 + random.randn(4, 19)
        p_values = [compare_rows(row, table[0]).p for row in table[1:]]
        single += p_values[0] < 0.05
        family += min(holm(p_values)) < 0.05
        ranks = compare_ranks(table)
        friedman += ranks.friedman_p < 0.05
        nemenyi += {0, 1, 2, 3} not in [set(bar) for bar in ranks.bars]
    for found in (single, friedman, nemenyi):
        assert found / 300 == pytest.approx(0.05, abs=0.038)
    assert 0 < family / 300 < 0.05 + 0.038
