"""When a result says no more than that one class is the most frequent."""

import math

import pytest

from san.chance import near_chance
from san.score import ClassScore


def of_totals(correct: int, *totals: int) -> list[ClassScore]:
    """Classes of so many images; the first ones have all of their right answers."""
    classes = []
    left = correct
    for i, total in enumerate(totals):
        right = min(left, total)
        classes.append(ClassScore(str(i), right, total))
        left -= right
    return classes


def upper_tail(correct: int, total: int, share: float) -> float:
    """The probability of so many right answers or more, term by term."""
    terms = [
        math.comb(total, k) * share**k * (1 - share) ** (total - k)
        for k in range(correct, total + 1)
    ]
    return math.fsum(terms)


@pytest.mark.parametrize("totals", [(50, 50), (90, 10), (40, 30, 20, 7, 3, 0), (50,) * 5])
def test_the_test_is_the_exact_one_against_the_largest_class(totals: tuple[int, ...]) -> None:
    total = sum(totals)
    share = max(totals) / total
    expected = [upper_tail(correct, total, share) >= 0.05 for correct in range(total + 1)]
    found = [near_chance(of_totals(correct, *totals)) for correct in range(total + 1)]
    assert [alarm is not None for alarm in found] == expected
    assert 0 < sum(expected) < total + 1


def test_both_numbers_are_said() -> None:
    assert near_chance(of_totals(171, 168, *[104] * 8)) == (
        "17.10 % is not shown to be better than always answering the most frequent class (16.80 %)"
    )


def test_of_a_single_class_nothing_is_learned() -> None:
    assert near_chance(of_totals(50, 50, 0)) is not None


@pytest.mark.parametrize("classes", [None, [], of_totals(0, 0, 0)])
def test_without_class_totals_there_is_no_alarm(classes: list[ClassScore] | None) -> None:
    assert near_chance(classes) is None
