"""Methods: one method, one file, one contract.

    def attach(model: nn.Module, sites: tuple[Site, ...], *, option: type = default) -> Iterable[str]

inserts its modules into the stock model in place and returns the names of the parameters that shall train. The head
always trains and is not named. A method leaves the model computing what it computed, or says so in its docstring. A
layer that can be folded into a plain one has a `merged()` that returns it. `import san.methods.<name>` is all the
registration there is.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from san.backbones import Site, head_name, sites
from san.tasks import lookup


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters. `method` is what trains besides norm layers and head; `percent` leaves out the head."""

    method: int
    norm: int
    head: int
    trainable: int
    total: int
    percent: float


@dataclass(frozen=True)
class Adapter:
    """A method attached to a model.

    trainable: the names of exactly the parameters that receive gradients; added: of those that the stock model lacks.
    """

    model: nn.Module
    method: str
    options: dict[str, Any]
    trainable: tuple[str, ...]
    added: frozenset[str]
    counts: Counts

    def merge(self) -> nn.Module:
        """Fold what was inserted into plain, frozen layers, in place: the same outputs, no extra modules.

        A second call changes nothing. Returns the model. Raises ValueError, before anything is changed, where the
        method holds parameters that no plain layer can take in.
        """
        for name in self.added & {name for name, _ in self.model.named_parameters()}:
            if not hasattr(self.model.get_submodule(name.rpartition(".")[0]), "merged"):
                raise ValueError(
                    f"'{self.method}' cannot be merged: {name} is part of no layer that a plain one equals."
                )
        for name, module in list(self.model.named_modules()):
            if hasattr(module, "merged"):
                plain = module.merged().train(module.training)
                self.model.set_submodule(name, plain.requires_grad_(False))
        return self.model


def names() -> list[str]:
    """Return the names of all methods."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def attach(model: nn.Module, method: str, **options: Any) -> Adapter:
    """Attach `method` to a stock timm model in place and freeze whatever it does not train.

    Raises LookupError on an unknown method or option (with the nearest names), ValueError on a model that has a method
    already or on an option out of range, TypeError on a model family without sites.
    """
    options = check_options(method, options)
    if hasattr(model, "adapted_by"):
        raise ValueError(f"This model has '{model.adapted_by}' attached already; build a fresh one for '{method}'.")
    found, before = sites(model), {name: p.numel() for name, p in model.named_parameters()}
    backbone_size = sum(before.values()) - head_size(model)
    wanted = set(method_function(method)(model, found, **options))
    model.train(model.training)  # what was inserted is in the model's mode
    model.adapted_by = method  # type: ignore[assignment]
    head = head_name(model) + "."
    parameters = dict(model.named_parameters())
    wanted |= {name for name in parameters if name.startswith(head)}
    missing = wanted - parameters.keys()
    if missing:
        raise ValueError(f"'{method}' names parameters that the model does not have: {', '.join(sorted(missing))}.")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in wanted)
    trainable = tuple(name for name in parameters if name in wanted)
    counts = count(model, found, trainable, backbone_size)
    return Adapter(model, method, options, trainable, frozenset(parameters.keys() - before.keys()), counts)


def check_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as their types want them (1 as 1.0 for a float), if the method exists and takes them.

    Raises LookupError (with the nearest names) or, where an option is not of its default's type, ValueError.
    """
    function = method_function(method)
    defaults = {k: p.default for k, p in inspect.signature(function).parameters.items() if k not in ("model", "sites")}
    for name, value in options.items():
        default = defaults[lookup(name, defaults, f"option of {method}")]
        kinds: dict[type, tuple[type, ...]] = {float: (int, float), tuple: (list, tuple)}
        allowed = kinds.get(type(default), (type(default),))
        if not isinstance(value, allowed) or isinstance(value, bool) != isinstance(default, bool):
            kind = type(default).__name__
            raise ValueError(f"method.{name} came as {value!r}; a {kind} is allowed (default {default!r}).")
    return {name: float(v) if isinstance(defaults[name], float) else v for name, v in options.items()}


def method_function(method: str) -> Callable[..., Iterable[str]]:
    """Return the `attach` of a method's module; raise LookupError with the nearest names if there is none."""
    module = importlib.import_module(f"{__name__}.{lookup(method, names(), 'method')}")
    function: Callable[..., Iterable[str]] = module.attach
    return function


def head_size(model: nn.Module) -> int:
    """Return the number of parameters of the classifier."""
    return sum(p.numel() for p in model.get_submodule(head_name(model)).parameters())


def norm_parameters(found: tuple[Site, ...]) -> set[str]:
    """Return the names of the weights and biases of all norm sites."""
    return {f"{site.name}.{part}" for site in found if site.kind == "norm" for part in ("weight", "bias")}


def count(model: nn.Module, found: tuple[Site, ...], trainable: tuple[str, ...], backbone_size: int) -> Counts:
    """Count what trains; `backbone_size` is the number of parameters before attaching, without the head."""
    size = {name: p.numel() for name, p in model.named_parameters()}
    norms = norm_parameters(found)
    head = head_size(model)
    norm = sum(size[name] for name in trainable if name in norms)
    everything = sum(size[name] for name in trainable)
    percent = 100 * (everything - head) / backbone_size
    return Counts(everything - norm - head, norm, head, everything, sum(size.values()), percent)
