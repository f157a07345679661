"""Methods: one method, one file, one contract.

    def attach(
        model: nn.Module, sites: tuple[Site, ...], *, option: Type = default
    ) -> Iterable[str]

adds its modules to the stock model in place, leaves the names of the stock parameters as they are,
and returns the names of those stock parameters that train. The parameters that it added train
anyway, and so does the head; persistent buffers that it added are saved with them.

An option is a keyword whose annotation is its rule (`PositiveInt`, `Literal["a", "b"]`,
`float | None`, see `san.schema`): values are checked before `attach` is called. In the messages,
on the command line and in `configs/method/` its name is `method.<option>`.

The docstring of the module states three facts, and tests check them. At the start (with
`init_std=0` where it has that option) the model computes the pre-trained function, or the docstring
says "does not start at the pre-trained function". All layers that it adds are `Mergeable`
(`san.layers.mergeable`), or the docstring says "cannot be merged"; where that is so on one family
of backbones alone, "cannot be merged on ConvNeXt". No gradient of a frozen weight is computed, or
the docstring says "takes the gradient of the dense weight", or of others' code that it "may compute
the gradient of a frozen weight".

A module may also have

    PRESETS: Mapping[str, Mapping[str, Any]]    names of the methods in it, with the options in
                                                which each differs from the defaults of `attach`
    FAMILY_DEFAULTS: Mapping[str, Mapping[str, Any]]    by family of backbones, the options whose
                                                        defaults are others there
    incompatibility(family: str, options) -> str | None     why it makes no sense on a family of
                                                            backbones, or None
    REQUIRES: str                               the package that it needs and that is no dependency:
                                                imported by `attach`, its version is recorded

A file `san/methods/<name>.py` is all the registration there is. An option that a method gets after
it has been run is added to `san.renamed_keys.ADDED_OPTIONS`, so that those runs are found again.
"""

import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from san import installation
from san.backbones import Site
from san.errors import InvalidValueError, MissingPackageError, choose
from san.renamed_keys import current_options
from san.schema import check_value


@dataclass(frozen=True)
class Method:
    """A method by name. preset: the options in which it differs from the defaults of its module."""

    module: ModuleType
    preset: Mapping[str, Any]


def discover_methods() -> dict[str, Method]:
    """Return all methods by name, sorted."""
    return dict(_discover(tuple(__path__)))


@cache
def _discover(folders: tuple[str, ...]) -> dict[str, Method]:
    """Import the modules in these folders, once: a sweep asks for every run."""
    methods: dict[str, Method] = {}
    for info in pkgutil.iter_modules(folders):
        module = importlib.import_module(f"{__name__}.{info.name}")
        presets: Mapping[str, Mapping[str, Any]] = getattr(module, "PRESETS", {info.name: {}})
        for name, preset in presets.items():
            methods[name] = Method(module, preset)
    return dict(sorted(methods.items()))


def method_names() -> list[str]:
    """Return the names of all methods."""
    return list(discover_methods())


def method_module(method: str) -> ModuleType:
    """Return the module of a method; raise UnknownNameError if there is no such method."""
    return _find_method(method).module


def default_options(method: str, family: str | None = None) -> dict[str, Any]:
    """Return the options of a method with their defaults; raise UnknownNameError as above.

    family: of the backbone; without it, the defaults of most.
    """
    found = _find_method(method)
    parameters = inspect.signature(found.module.attach).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return options | dict(found.preset) | family_defaults(method, family)


def family_defaults(method: str, family: str | None) -> dict[str, Any]:
    """Return the options of a method whose defaults are others on a family than on most."""
    by_family = getattr(method_module(method), "FAMILY_DEFAULTS", {})
    return dict(by_family.get(family, {}))


def describe_methods() -> str:
    """Return each method with what its module says it is, and its options with their defaults."""
    lines = ["Methods, with their options and defaults (`A or B`: what is allowed):", ""]
    for name, method in discover_methods().items():
        title = (method.module.__doc__ or "").partition("\n")[0]
        annotations = get_type_hints(method.module.attach, include_extras=True)
        options = []
        for option, default in default_options(name).items():
            options.append(f"{option}={_describe_default(default, annotations[option])}")
        text = ", ".join(options) or "no options"
        lines.append(f"{name}: {title}")
        lines += textwrap.wrap(text, 92, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([*lines, "", "What they mean: help('san.methods.lora') and so on."])


def check_options(
    method: str, options: Mapping[str, Any], family: str | None = None, warn: bool = True
) -> dict[str, Any]:
    """Return all options of a method, those given as their annotations want them (1 as 1.0).

    family: of the backbone, as in `default_options`. Options in old words are understood; warn:
    whether to say so in the log. Raises UnknownNameError
    on a method, option or choice that does not exist (with the nearest names), InvalidValueError on
    a value that is not allowed.
    """
    defaults = default_options(method, family)
    annotations = get_type_hints(method_module(method).attach, include_extras=True)
    checked = {}
    for name, value in _current_names(method, options, defaults, warn).items():
        choose(name, defaults, f"option of {method}")
        checked[name] = check_value(value, annotations[name], f"method.{name}")
    return defaults | checked


def check_compatible(method: str, options: Mapping[str, Any], family: str) -> None:
    """Raise InvalidValueError if the method, with these options, makes no sense on a family.

    options: all of them, as `check_options` returns them. The message gives the method's reason.
    Raises MissingPackageError where a package that the method needs is not installed.
    """
    for package in required_packages(method):
        if find_spec(package) is None:
            way_out = installation.install_command(package)
            raise MissingPackageError(f"'{method}' needs {package}: {way_out}")
    incompatibility = getattr(method_module(method), "incompatibility", None)
    if incompatibility is None:
        return
    reason = incompatibility(family, options)
    if reason is not None:
        raise InvalidValueError(f"'{method}' cannot be used on a {family}: {reason}.")


def required_packages(method: str) -> list[str]:
    """Return the packages that a method needs and that are no dependencies."""
    package = getattr(method_module(method), "REQUIRES", None)
    return [] if package is None else [package]


def norm_parameters(model: nn.Module, sites: tuple[Site, ...]) -> list[str]:
    """Return the names of the weights and biases of all norm sites."""
    norms = tuple(f"{site.name}." for site in sites if site.kind == "norm")
    return [name for name, _ in model.named_parameters() if name.startswith(norms)]


def _describe_default(default: Any, annotation: Any) -> str:
    """Return a default, and what else a choice of texts allows."""
    if get_origin(annotation) is not Literal:
        return repr(default)
    others = [repr(choice) for choice in get_args(annotation) if choice != default]
    return " or ".join([repr(default), *others])


def _find_method(method: str) -> Method:
    methods = discover_methods()
    return methods[choose(method, methods, "method")]


def _current_names(
    method: str, options: Mapping[str, Any], known: Collection[str], warn: bool
) -> dict[str, Any]:
    """Return options in current words. A word that the method itself uses is not an old one."""
    current = {name: value for name, value in options.items() if name in known}
    others = {name: value for name, value in options.items() if name not in known}
    renamed = current_options(method, others, warn)
    for name in renamed.keys() & current.keys():
        raise InvalidValueError(f"method.{name} came by its old name, too; give one of them.")
    return current | renamed
