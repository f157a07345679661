"""What `attach` and `restore` were called with, before it is used."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from san.backbones import family
from san.errors import InvalidValueError
from san.methods import check_compatible, check_options

_SHOWN = 60  # characters of a value; a model would fill screens


def check_arguments(
    call: str, model: object, name: str, second: object, kinds: type | tuple[type, ...]
) -> None:
    """Raise InvalidValueError unless `san.CALL(model, NAME)` has a model, then one of `kinds`."""
    right = f"san.{call}(model, {name})"
    check_argument(right, "model", model, nn.Module)
    check_argument(right, name, second, kinds)


def check_argument(right: str, name: str, value: object, kinds: type | tuple[type, ...]) -> None:
    """Raise InvalidValueError unless a value is of one of `kinds`. right: the right call."""
    if isinstance(value, kinds):
        return
    call = right.partition("(")[0]
    raise InvalidValueError(
        f"{call} came with {_describe(value)} in the place of the {name}; the right call is "
        f"{right}."
    )


def check_attachable(model: nn.Module, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a method; raise as `attach` does, before anything is changed."""
    check_arguments("attach", model, "method", method, str)
    on = family(model)
    checked = check_options(method, options, on)
    check_not_attached(model, method)
    check_compatible(method, checked, on)
    return checked


def check_not_attached(model: nn.Module, method: str) -> None:
    """Raise InvalidValueError if the model has a method attached."""
    attached = getattr(model, "adapted_by", None)
    if attached is not None:
        raise InvalidValueError(
            f"This model has '{attached.method}' attached already; call its detach() or disable(), "
            f"or build a fresh one for '{method}'."
        )


def _describe(value: object) -> str:
    """Return type and value of what came; of a model, the type alone."""
    kind = type(value).__name__
    return kind if isinstance(value, nn.Module) else f"{kind} {repr(value)[:_SHOWN]}"
