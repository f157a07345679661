"""Facts that a method states about itself in its docstring, see `san.methods`."""

from importlib.util import find_spec

from san import methods

STARTS_ELSEWHERE = "does not start at the pre-trained function"
NOT_MERGED = "cannot be merged"
SPENDS_MORE = "may compute the gradient of a frozen weight"


def states(method: str, sentence: str) -> bool:
    """Whether the docstring of the method's module has the sentence."""
    text = methods.method_module(method).__doc__ or ""
    return sentence in " ".join(text.split())


def is_installed(method: str) -> bool:
    """Whether the packages are there that a method needs beside the dependencies."""
    return all(find_spec(package) for package in methods.required_packages(method))


def installed_methods() -> list[str]:
    """The names of the methods that can be attached here."""
    return [method for method in methods.method_names() if is_installed(method)]
