"""Which trial of a method on a task is chosen: the best on the val split, after the last epoch.

A trial's score is the mean over its seeds. Among equal ones the smallest learning rate is taken,
then the smallest weight decay, then the first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from san.score import Score

_TIE_BREAKERS = ("lr", "weight_decay")


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and how they scored: a score for each seed.

    scores: None in place of a seed whose run failed.
    """

    values: Mapping[str, Any]
    scores: Sequence[Score | None]

    @property
    def accuracy(self) -> Fraction | None:
        """The mean over seeds of the share of right answers, exactly; None if one failed."""
        shares = []
        for score in self.scores:
            if score is None:
                return None
            shares.append(Fraction(score.correct, score.total))
        return sum(shares, Fraction(0)) / len(shares)


@dataclass(frozen=True)
class Choice:
    """The chosen trial.

    ties: how many other trials have its accuracy. runner_up: the next lower accuracy, as a share;
    None if there is none. failed: how many trials have no score. at_edge: the settings whose chosen
    value is the lowest or highest that was tried, so that a better one may lie beyond.
    """

    trial: Trial
    trials: int
    ties: int
    runner_up: Fraction | None
    failed: int
    at_edge: tuple[str, ...]


def choose_trial(trials: Sequence[Trial]) -> Choice | None:
    """Return the choice among all trials of a method on a task; None if all failed."""
    scored = [(trial, trial.accuracy) for trial in trials]
    accuracies = [accuracy for _, accuracy in scored if accuracy is not None]
    if not accuracies:
        return None
    best = max(accuracies)
    tied = [trial for trial, accuracy in scored if accuracy == best]
    chosen = min(tied, key=_order_among_equals)
    lower = [accuracy for accuracy in accuracies if accuracy < best]
    return Choice(
        trial=chosen,
        trials=len(trials),
        ties=len(tied) - 1,
        runner_up=max(lower, default=None),
        failed=len(trials) - len(accuracies),
        at_edge=tuple(key for key in chosen.values if _is_at_edge(key, chosen, trials)),
    )


def _order_among_equals(trial: Trial) -> list[float]:
    """Return what orders trials of equal accuracy; `min` takes the first of several."""
    return [float(trial.values.get(key, math.inf)) for key in _TIE_BREAKERS]


def _is_at_edge(key: str, chosen: Trial, trials: Sequence[Trial]) -> bool:
    """Return whether a number is the lowest or highest of those tried, of three or more."""
    tried = [trial.values[key] for trial in trials]
    numbers = [value for value in tried if isinstance(value, int | float)]
    if len({*numbers}) < 3:
        return False
    return chosen.values[key] in (min(numbers), max(numbers))
