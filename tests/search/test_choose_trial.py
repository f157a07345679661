"""Which trial is chosen: by hand, and among all trials that Mai et al. published.

mai_trials.csv.gz: every trial of OSU-MLB/ViT_PEFT_Vision at cea7e21,
tune_output/default_vtab/processed_vtab (no licence file; facts alone): lr, weight decay (`wd`) and
the options of the method (`other`, as JSON), `val_top1` after the last epoch in percent of the 200
images of val200, and `chosen`, 1 for the settings of their final run.
"""

import csv
import gzip
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from san.score import Score
from san.search.selection import Choice, Trial, choose_trial

MAI = Path(__file__).with_name("mai_trials.csv.gz")


def trial(*correct: int | None, **values: Any) -> Trial:
    """A trial of a score out of 200 for each seed."""
    scores = [None if number is None else Score(10, number, 200) for number in correct]
    return Trial(values or {"lr": 0.01}, scores)


def choose(*trials: Trial) -> Choice:
    choice = choose_trial(trials)
    assert choice is not None
    return choice


def test_the_best_is_chosen() -> None:
    trials = [trial(120, lr=0.1), trial(150, lr=0.2), trial(149, lr=0.3), trial(90, lr=0.4)]
    choice = choose(*trials)
    assert choice == Choice(trials[1], 4, 0, Fraction(149, 200), 0, ())


def test_of_equal_ones_the_smallest_learning_rate_is_taken_then_the_smallest_decay() -> None:
    for order in (1, -1):
        choice = choose(
            *[
                trial(150, lr=0.2, weight_decay=0.0),
                trial(150, lr=0.1, weight_decay=0.2),
                trial(150, lr=0.1, weight_decay=0.1),
                trial(140, lr=0.0, weight_decay=0.0),
            ][::order]
        )
        assert choice.trial.values == {"lr": 0.1, "weight_decay": 0.1}
        assert (choice.ties, choice.runner_up) == (2, Fraction(140, 200))


def test_of_those_that_differ_in_neither_the_first_is_taken() -> None:
    trials = [trial(150, lr=0.1, rank=8), trial(150, lr=0.1, rank=4)]
    for order in (1, -1):
        assert choose(*trials[::order]).trial is trials[::order][0]


def test_a_setting_that_is_not_searched_breaks_no_tie() -> None:
    first = trial(150, weight_decay=0.2)
    assert choose(first, trial(150, weight_decay=0.3)).trial is first
    assert choose(trial(150, weight_decay=0.3), first).trial is first


def test_several_seeds_count_by_their_exact_mean() -> None:
    """In floats these three means are equal."""
    tiny = 2**60
    close = [Score(1, 2**59 + more, tiny) for more in (0, 1, 0)]
    trials = [Trial({"lr": lr}, [score, score]) for lr, score in enumerate(close)]
    assert len({each.correct / each.total for each in close}) == 1
    choice = choose(*trials)
    assert choice.trial is trials[1]
    assert choice.ties == 0
    assert choice.trial.accuracy == Fraction(2**59 + 1, tiny)


def test_the_mean_is_over_seeds_of_whatever_size() -> None:
    mean = Trial({}, [Score(1, 1, 3), Score(1, 1, 7)]).accuracy
    assert mean == (Fraction(1, 3) + Fraction(1, 7)) / 2
    choice = choose(trial(150, 100, lr=1), trial(126, 125, lr=2), trial(0, 199, lr=3))
    assert choice.trial.values == {"lr": 2}


def test_a_trial_with_a_failed_seed_has_no_score_and_is_counted() -> None:
    choice = choose(trial(200, None, lr=1), trial(10, 10, lr=2), trial(None, None, lr=3))
    assert choice.trial.values == {"lr": 2}
    assert (choice.trials, choice.failed, choice.ties, choice.runner_up) == (3, 2, 0, None)


def test_nothing_is_chosen_where_all_failed() -> None:
    assert choose_trial([trial(None), trial(1, None)]) is None
    assert choose_trial([]) is None


def test_no_right_answer_is_a_score() -> None:
    assert choose(trial(0, lr=1), trial(None, lr=0)).trial.values == {"lr": 1}


EDGES: list[tuple[str, Sequence[Any], int, bool]] = [
    ("lr", [0.1, 0.2, 0.3], 0, True),
    ("lr", [0.1, 0.2, 0.3], 1, False),
    ("lr", [0.1, 0.2, 0.3], 2, True),
    ("lr", [0.3, 0.1, 0.2], 0, True),  # in whatever order
    ("lr", [0.1, 0.2], 0, False),  # two values are all edge
    ("lr", [0.1, 0.2, 0.1, 0.2], 0, False),
    ("method.train_norms", [True, False], 0, False),
    ("method.placement", ["a", "b", "c"], 0, False),
    ("method.targets", [["q"], ["v"], ["q", "v"]], 0, False),
    ("method.alpha", [None, 4, 8, 16], 0, False),
    ("method.alpha", [None, 4, 8, 16], 3, True),
]


@pytest.mark.parametrize(("key", "values", "best", "is_at_edge"), EDGES)
def test_the_edge_of_what_was_tried_is_said(
    key: str, values: Sequence[Any], best: int, is_at_edge: bool
) -> None:
    trials = []
    for i, value in enumerate(values):
        trials.append(trial(150 if i == best else 100, **{key: value, "momentum": 0.9}))
    assert choose(*trials).at_edge == ((key,) if is_at_edge else ())


def test_a_failed_trial_was_tried_as_well() -> None:
    """A rate beyond the chosen one that diverges is no reason to search beyond."""
    trials = [trial(100, lr=0.1), trial(150, lr=0.2), trial(None, lr=0.3)]
    assert choose(*trials).at_edge == ()


@pytest.fixture(scope="module")
def mai() -> Mapping[tuple[str, str], list[tuple[Trial, bool]]]:
    """By task and method: every trial, and whether they chose its settings."""
    cells: dict[tuple[str, str], list[tuple[Trial, bool]]] = {}
    with gzip.open(MAI, "rt", encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            correct = 2 * Fraction(line["val_top1"])
            assert correct.denominator == 1  # percent of 200 images
            values = {
                "lr": float(line["lr"]),
                "weight_decay": float(line["wd"]),
                "other": line["other"],
            }
            made = trial(int(correct), **values)
            cell = (line["task"], line["method"])
            cells.setdefault(cell, []).append((made, line["chosen"] == "1"))
    return cells


def test_the_trials_of_mai_et_al_are_whole(
    mai: Mapping[tuple[str, str], list[tuple[Trial, bool]]],
) -> None:
    assert len(mai) == 304
    assert len({task for task, _ in mai}) == 19
    assert len({method for _, method in mai}) == 16
    assert sum(map(len, mai.values())) == 9804
    for task, _ in mai:
        assert sum(len(trials) for (each, _), trials in mai.items() if each == task) == 516
    assert all(sum(is_theirs for _, is_theirs in trials) == 1 for trials in mai.values())


def test_we_choose_as_mai_et_al_did_wherever_val200_decides(
    mai: Mapping[tuple[str, str], list[tuple[Trial, bool]]],
) -> None:
    tied = {}
    same = 0
    for cell, trials in mai.items():
        (theirs,) = [each for each, is_theirs in trials if is_theirs]
        choice = choose(*[each for each, _ in trials])
        best = max(each.scores[0].correct for each, _ in trials if each.scores[0] is not None)
        accuracy = Fraction(best, 200)
        # Both are among the best.
        assert choice.trial.accuracy == theirs.accuracy == accuracy
        count = sum(each.accuracy == accuracy for each, _ in trials)
        assert choice.ties == count - 1
        if count > 1:
            tied[cell] = (count, len(trials))
        else:
            assert choice.trial is theirs, cell
            same += 1
    assert same == 304 - 83
    assert len(tied) == 83
    assert max(tied.values()) == (32, 64)
    assert tied["oxford_flowers102", "Adapter-Houlsby"] == (32, 64)


def test_of_tied_trials_of_mai_et_al_none_has_a_lower_rate_than_ours(
    mai: Mapping[tuple[str, str], list[tuple[Trial, bool]]],
) -> None:
    for trials in mai.values():
        ours = choose(*[each for each, _ in trials]).trial
        for each, _ in trials:
            if each.accuracy == ours.accuracy:
                order = (each.values["lr"], each.values["weight_decay"])
                assert order >= (ours.values["lr"], ours.values["weight_decay"])
