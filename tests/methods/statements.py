"""Facts that a method states about itself in its docstring, see `san.methods`."""

import re
from importlib.util import find_spec

from san import methods

STARTS_ELSEWHERE = "does not start at the pre-trained function"
DENSE_GRADIENT = "takes the gradient of the dense weight"
_NOT_MERGED = re.compile(r"cannot be merged(?: on (\w+))?")
SPENDS_MORE = "may compute the gradient of a frozen weight"


def states(method: str, sentence: str) -> bool:
    """Whether the docstring of the method's module has the sentence."""
    return sentence in _text(method)


def merges(method: str, family: str) -> bool:
    """Whether the docstring does not say that the method cannot be merged, anywhere or there."""
    where = _NOT_MERGED.findall(_text(method))
    return "" not in where and family not in where


def is_installed(method: str) -> bool:
    """Whether the packages are there that a method needs beside the dependencies."""
    return all(find_spec(package) for package in methods.required_packages(method))


def installed_methods() -> list[str]:
    """The names of the methods that can be attached here."""
    return [method for method in methods.method_names() if is_installed(method)]


def _text(method: str) -> str:
    return " ".join((methods.method_module(method).__doc__ or "").split())
