"""The backbone that an adapter's file names, which may be anybody's: checked before it is built."""

from collections.abc import Mapping
from typing import Any

import torch

from san.backbones import Backbone, Pretrained, build_backbone
from san.backbones.weights import fetch_weights, find_weights
from san.errors import InvalidValueError

MAX_BLOCKS = 200  # the deepest models of timm have 64; each takes 10 ms and memory without weights
MAX_SIZES = 2**14  # of all other whole numbers together: pixels, widths, heads


def build_foreign(backbone: Backbone, classes: int) -> Pretrained:
    """Build a backbone as `Backbone.build` does, within bounds of time and memory.

    Raises UnknownNameError, UnsupportedModelError or InvalidValueError on what is no architecture
    of timm, and on arguments with which no run can be made or which ask for far more than the
    weights have; WeightsError where the weights cannot be had.
    """
    _ = backbone.family
    _check_sizes(backbone.kwargs)
    backbone.check_kwargs()
    from_timm = backbone.weights == "timm"
    name = backbone.timm_name
    path = fetch_weights(name) if from_timm else find_weights(backbone.weights)
    parameters = _count_parameters(backbone, classes)
    # They have two or four bytes each; what is resized, such as positions, has leave to grow.
    if parameters > path.stat().st_size:
        raise InvalidValueError(
            f"With backbone.kwargs {dict(backbone.kwargs)} and {classes} classes, {name} has "
            f"{parameters:,} parameters; {path} has {path.stat().st_size:,} bytes in all."
        )
    return backbone.build(classes)


def _check_sizes(kwargs: Mapping[str, Any]) -> None:
    """Raise InvalidValueError on numbers with which a model cannot even be tried."""
    blocks = 0
    others = 0
    for name, value in kwargs.items():
        if name in ("depth", "depths"):
            blocks += _size_of(value)
        else:
            others += _size_of(value)
    if blocks > MAX_BLOCKS:
        raise InvalidValueError(
            f"backbone.kwargs asks for {blocks} blocks; at most {MAX_BLOCKS} are allowed in a file."
        )
    if others > MAX_SIZES:
        raise InvalidValueError(
            f"backbone.kwargs has sizes of {others} in all; at most {MAX_SIZES} are allowed in a "
            "file."
        )


def _size_of(value: Any) -> int:
    """Return the sum of the whole numbers in a value; each is one at least, so that lists count."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return sum(_size_of(each) for each in value)
    return max(1, abs(value)) if isinstance(value, int) else 1


def _count_parameters(backbone: Backbone, classes: int) -> int:
    """Return how many parameters the model would have, without any memory for them."""
    with torch.device("meta"):
        unfilled = build_backbone(backbone.timm_name, classes, "random", None, backbone.kwargs)
    return sum(parameter.numel() for parameter in unfilled.model.parameters())
