"""Methods: one method, one file, one contract.

    def attach(model: nn.Module, sites: tuple[Site, ...], *, option: type = default) -> Iterable[str]

adds its modules to the stock model in place, leaves the names of the stock parameters as they are, and returns the
names of those stock parameters that shall train. What it added trains anyway, and so does the head. A method leaves the
model computing what it computed, or says so in its docstring. A layer that can be folded into a plain one has a
`merged()` that returns it, and a `settle(model)`, called afterwards, if other layers must do their part. An option
whose default is None takes a number or None. A module may also have

    PRESETS: Mapping[str, Mapping[str, Any]]    names under which it is offered, with other defaults for its options
    incompatibility(family: str, options) -> str | None     why it makes no sense on a family of backbones, or None

`import san.methods.<name>` is all the registration there is.
"""

import importlib
import inspect
import math
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from san.backbones import Site
from san.errors import choose


def discover_methods() -> dict[str, tuple[ModuleType, Mapping[str, Any]]]:
    """Return all methods by name: the module, and the defaults that its presets change."""
    found: dict[str, tuple[ModuleType, Mapping[str, Any]]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        presets = getattr(module, "PRESETS", {info.name: {}})
        found |= {name: (module, changed) for name, changed in presets.items()}
    return dict(sorted(found.items()))


def method_names() -> list[str]:
    """Return the names of all methods."""
    return list(discover_methods())


def method_module(method: str) -> ModuleType:
    """Return the module of a method; raise LookupError with the nearest names if there is none."""
    methods = discover_methods()
    return methods[choose(method, methods, "method")][0]


def default_options(method: str) -> dict[str, Any]:
    """Return the options of a method with their defaults; raise LookupError if there is no such method."""
    parameters = inspect.signature(method_module(method).attach).parameters
    own: dict[str, Any] = {
        k: p.default for k, p in parameters.items() if k not in ("model", "sites")
    }
    return own | dict(discover_methods()[method][1])


def check_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options as their types want them (1 as 1.0 for a float), if the method exists and takes those given.

    Raises LookupError (with the nearest names) or, where an option is not of its default's type, ValueError.
    """
    usual = default_options(method)
    kinds: dict[type, tuple[type, ...]] = {
        float: (int, float),
        tuple: (list, tuple),
        type(None): (int, float),
    }
    for name, value in options.items():
        default = usual[choose(name, usual, f"option of {method}")]
        allowed = (*kinds.get(type(default), (type(default),)), type(default))
        if not isinstance(value, allowed) or isinstance(value, bool) != isinstance(default, bool):
            kind = {type(None): "number or null", tuple: "list"}.get(
                type(default), type(default).__name__
            )
            raise ValueError(
                f"method.{name} came as {value!r}; {kind} is allowed (default {default!r})."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(
                f"method.{name} came as {value!r}; a finite number is allowed (default {default!r})."
            )
    numbers = {
        name for name, default in usual.items() if default is None or isinstance(default, float)
    }
    given: dict[str, Any] = {
        name: float(v) if name in numbers and v is not None else v for name, v in options.items()
    }
    return usual | {
        name: tuple(v) if isinstance(usual[name], tuple) else v for name, v in given.items()
    }


def check_compatible(method: str, options: Mapping[str, Any], family: str) -> None:
    """Raise ValueError with the reason if the method, with all its options, makes no sense on a family of backbones."""
    incompatibility = getattr(method_module(method), "incompatibility", None)
    reason = incompatibility(family, options) if incompatibility is not None else None
    if reason is not None:
        raise ValueError(f"'{method}' cannot be used on a {family}: {reason}.")


def norm_parameters(model: nn.Module, sites: tuple[Site, ...]) -> list[str]:
    """Return the names of the weights and biases of all norm sites."""
    norms = [f"{site.name}." for site in sites if site.kind == "norm"]
    return [name for name, _ in model.named_parameters() if name.startswith(tuple(norms))]
