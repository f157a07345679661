"""The backbone that an adapter's file names, which may be anybody's: checked before it is built."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from san.backbones import Backbone, Pretrained, build_backbone
from san.backbones.weights import fetch_weights, find_weights
from san.errors import InvalidValueError

_MAX_BLOCKS = 200  # the deepest models of timm have 64; each takes 10 ms and memory without weights
_MAX_SIZES = 2**14  # of all other whole numbers together: pixels, widths, heads
# What timm's models raise on images of another size.
_SIZE_ERRORS = (AssertionError, RuntimeError, TypeError, ValueError)


def build_foreign(backbone: Backbone, classes: int, image_size: int) -> Pretrained:
    """Build a backbone as `Backbone.build` does, within bounds of time and memory.

    image_size: of its input, in pixels. Raises UnknownNameError, UnsupportedModelError or
    InvalidValueError on what is no architecture of timm, on arguments with which no run can be made
    or which ask for far more than the weights have, and on another image size than the model takes;
    WeightsError where the weights cannot be had.
    """
    _ = backbone.family
    _check_sizes(backbone.kwargs)
    backbone.check_kwargs()
    name = backbone.timm_name
    path = fetch_weights(name) if backbone.weights == "timm" else find_weights(backbone.weights)
    unfilled = _build_unfilled(backbone, classes)
    _check_image_size(unfilled, name, image_size)
    parameters = sum(parameter.numel() for parameter in unfilled.parameters())
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
    if blocks > _MAX_BLOCKS:
        raise InvalidValueError(
            f"backbone.kwargs asks for {blocks} blocks; at most {_MAX_BLOCKS} are allowed in a "
            "file."
        )
    if others > _MAX_SIZES:
        raise InvalidValueError(
            f"backbone.kwargs has sizes of {others} in all; at most {_MAX_SIZES} are allowed in a "
            "file."
        )


def _size_of(value: Any) -> int:
    """Return the sum of the whole numbers in a value; each is one at least, so that lists count."""
    entries = list(value) if isinstance(value, list | tuple) else [value]
    total = 0
    for entry in entries:
        if isinstance(entry, list | tuple | Mapping):
            raise InvalidValueError(
                "backbone.kwargs has values in values; lists of values are allowed."
            )
        total += max(1, abs(entry)) if isinstance(entry, int) else 1
    return total


def _build_unfilled(backbone: Backbone, classes: int) -> nn.Module:
    """Return the model without any memory for its weights."""
    with torch.device("meta"):
        return build_backbone(backbone.timm_name, classes, "random", kwargs=backbone.kwargs).model


def _check_image_size(unfilled: nn.Module, name: str, size: int) -> None:
    """Raise InvalidValueError unless a model takes images of that size."""
    try:
        unfilled.eval()(torch.empty(1, 3, size, size, device="meta"))
    except _SIZE_ERRORS as error:
        raise InvalidValueError(
            f"{name} takes no images of image_size {size}: {str(error) or type(error).__name__}."
        ) from error
