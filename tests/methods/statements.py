"""Facts that a method states about itself in its docstring, see `san.methods`."""

from san import methods

STARTS_ELSEWHERE = "does not start at the pre-trained function"
NOT_MERGED = "cannot be merged"
DENSE_GRADIENT = "takes the gradient of the dense weight"


def states(method: str, sentence: str) -> bool:
    """Whether the docstring of the method's module has the sentence."""
    text = methods.method_module(method).__doc__ or ""
    return sentence in " ".join(text.split())


def refuses_merge(method: str, family: str) -> bool:
    """Whether the docstring says that the method cannot be merged, at all or on this family."""
    if states(method, f"{NOT_MERGED} on a "):
        return states(method, f"{NOT_MERGED} on a {family}")
    return states(method, NOT_MERGED)
