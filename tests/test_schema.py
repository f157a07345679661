"""Values are checked against annotations, in one way, with messages that name value and rule."""

from dataclasses import dataclass
from typing import Literal

import pytest

from san.errors import InvalidValueError, UnknownNameError
from san.schema import (
    DropoutRate,
    PositiveInt,
    Probability,
    check_fields,
    check_value,
    from_mapping,
)


@dataclass(frozen=True)
class Settings:
    size: PositiveInt
    rate: DropoutRate = 0.0
    kind: Literal["plain", "fancy"] = "plain"
    names: tuple[str, ...] = ()
    limit: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, "settings.")


def test_values_become_what_their_annotation_says() -> None:
    made = Settings(3, 0, names=["a", "b"], limit=2)
    assert made == Settings(3, 0.0, "plain", ("a", "b"), 2.0)
    assert type(made.rate) is type(made.limit) is float
    assert type(made.names) is tuple


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "settings.size came as 0; allowed: `int` >= 1."),
        ({"size": True}, "settings.size came as True; allowed: `int`."),
        ({"size": 2.5}, "settings.size came as 2.5; allowed: `int`."),
        ({"rate": 1.0}, "settings.rate came as 1.0; allowed: `float` < 1.0."),
        ({"rate": float("nan")}, "settings.rate came as nan"),
        ({"limit": float("inf")}, "settings.limit came as inf; allowed: a finite number."),
        ({"limit": "soon"}, "settings.limit came as 'soon'; allowed: `float | null`."),
        ({"names": [1]}, "settings.names came as [1]; allowed: `str`."),
        ({"kind": 3}, "settings.kind came as 3"),
    ],
)
def test_what_is_not_allowed_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError) as refused:
        Settings(**{"size": 1} | changes)
    assert str(refused.value).startswith(message)


def test_an_unknown_choice_has_its_nearest() -> None:
    message = r"Unknown settings.kind 'plan'. Did you mean plain\? Allowed: plain, fancy."
    with pytest.raises(UnknownNameError, match=message):
        Settings(1, kind="plan")


def test_rows_are_read_key_by_key() -> None:
    assert from_mapping(Settings, {"size": 2, "names": ["a"]}, "row") == Settings(2, names=("a",))
    with pytest.raises(UnknownNameError, match="Unknown key of row 'sise'. Did you mean size"):
        from_mapping(Settings, {"sise": 2}, "row")
    with pytest.raises(InvalidValueError, match="row has no `size`; it is required."):
        from_mapping(Settings, {"rate": 0.5}, "row")


def test_bounds_are_part_of_a_probability() -> None:
    assert check_value(1, Probability, "p") == 1.0
    with pytest.raises(InvalidValueError, match="p came as 1.1"):
        check_value(1.1, Probability, "p")
