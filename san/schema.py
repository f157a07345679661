"""Values checked against annotations: how settings, rows of benchmarks and options are validated.

msgspec does the checking; here its errors become ours, which name the value, the rule and the
nearest known key.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from san.errors import InvalidValueError, choose

T = TypeVar("T")
PositiveInt = Annotated[int, Meta(ge=1)]
NonNegativeInt = Annotated[int, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0, le=1)]
DropoutRate = Annotated[float, Meta(ge=0, lt=1)]
# A line that a terminal prints as it is; Python's $ alone would let a last newline pass.
Line = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*(?!\n)$")]


def check_value(value: Any, annotation: Any, name: str) -> Any:
    """Return a value as its annotation wants it (1 as 1.0 for a float, a list as a tuple).

    name: what the user calls it, for the message. Raises UnknownNameError where the annotation is a
    Literal of texts that does not have it, else InvalidValueError.
    """
    if dataclasses.is_dataclass(annotation) and isinstance(value, cast(type, annotation)):
        return value  # it has checked itself
    if get_origin(annotation) is Literal and isinstance(value, str):
        return choose(value, [str(each) for each in get_args(annotation)], name)
    try:
        checked = msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        rule = str(error).removeprefix("Expected ").partition(", got")[0]
        raise InvalidValueError(f"{name} came as {value!r}; allowed: {rule}.") from None
    if isinstance(checked, float) and not math.isfinite(checked):
        raise InvalidValueError(f"{name} came as {value!r}; allowed: a finite number.")
    return checked


def check_fields(settings: Any, prefix: str = "") -> None:
    """Check and convert every field of a frozen dataclass, in its `__post_init__`.

    prefix: what stands before a field's name in the user's settings, such as `augment.`.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        checked = check_value(value, hints[field.name], prefix + field.name)
        object.__setattr__(settings, field.name, checked)


def from_mapping(kind: type[T], row: Mapping[str, Any], where: str) -> T:
    """Return a dataclass from a row of a file, every value checked by its annotation.

    where: what the row is, for messages. Raises UnknownNameError on a key that the dataclass does
    not have (with the nearest), InvalidValueError on a missing key or a value that is not allowed.
    """
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for key, value in row.items():
        choose(key, hints, f"key of {where}")
        values[key] = check_value(value, hints[key], f"{where}: {key}")
    for name in _required_fields(kind):
        if name not in row:
            raise InvalidValueError(f"{where} has no `{name}`; it is required.")
    return kind(**values)


def _required_fields(kind: Any) -> list[str]:
    """Return the names of a dataclass's fields that have no default."""
    required = []
    for field in dataclasses.fields(kind):
        has_default = field.default is not dataclasses.MISSING
        has_factory = field.default_factory is not dataclasses.MISSING
        if not has_default and not has_factory:
            required.append(field.name)
    return required
