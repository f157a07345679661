"""How a value is written."""

import math

import pytest

from san.report.value import (
    MISSING,
    CellStatus,
    CountRange,
    Flag,
    NumberFormat,
    TrainableCounts,
    Value,
    marks,
    to_text,
)

ON_TEST = frozenset({Flag.CHOSEN_ON_TEST})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(80.104), "80.10"),
        (Value(80.1, 0.123, 3), "80.10 ± 0.12 (3)"),
        (Value(80.1, 0.123, 3, flags=ON_TEST), "80.10 ± 0.12 (3)†"),
        (Value(80.1, 0.123, 2, CellStatus.FAILED), "80.10 ± 0.12 (2) (failed)"),
        (Value(80.1, n=1, flags=ON_TEST), "80.10†"),
        (Value(flags=ON_TEST), MISSING),
        (Value(status=CellStatus.MISSING), MISSING),
        (Value(status=CellStatus.OOM, flags=ON_TEST), "OOM"),
        (Value(69.0, number_format=NumberFormat.ONE_DECIMAL), "69.0"),
        (Value(3.1, number_format=NumberFormat.SIGNED), "+3.10"),
        (Value(-3.1, flags=ON_TEST, number_format=NumberFormat.SIGNED), "-3.10†"),
        (Value(-0.001, number_format=NumberFormat.SIGNED), "0.00"),
        (Value(0.001, number_format=NumberFormat.SIGNED), "0.00"),
        (Value(-0.01, number_format=NumberFormat.SIGNED), "-0.01"),
        (Value(0.0), "0.00"),
    ],
)
def test_a_value_is_written(value: Value, text: str) -> None:
    assert to_text(value) == text


def test_marks_have_the_order_of_the_legend_and_each_flag_has_one_of_its_own() -> None:
    assert marks({Flag.OTHER_SEEDS, Flag.CHOSEN_ON_TEST, Flag.CONFLICT}) == "†‡‖"
    assert sorted(marks(list(Flag))) == sorted("†§≠◇¶‡‖∅◦*?")
    assert len({flag.legend for flag in Flag}) == len(Flag) == 11


def test_counts_are_written_as_they_are_known() -> None:
    assert TrainableCounts(1217670, 100).texts() == ["1,217,670", "100"]
    assert TrainableCounts(294912.0, math.nan, in_millions=True).texts() == ["0.295 M", MISSING]
    assert [CountRange(3, 3).text(), CountRange(0, 3).text()] == ["3", "0 to 3"]
