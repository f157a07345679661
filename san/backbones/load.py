"""A backbone as a configuration names it: a timm model, its arguments and its weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import timm
import torch
from torch import nn

from san.backbones.families import (
    family_of_name,
    input_size_of_name,
    model_parameters,
    pretrained_config,
)
from san.backbones.pretrained import Pretrained, fill_from_npz, load_tensors
from san.backbones.weights import check_sha256, fetch_weights, file_sha256, find_weights
from san.errors import InvalidValueError, choose
from san.schema import PositiveInt, check_value, from_mapping

# What timm's models raise on values that they cannot work with.
_BUILD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_DROP_PATH = "drop_path_rate"
_DECIDED_ELSEWHERE = {
    "num_classes": "the task says how many classes there are",
    "in_chans": "images have three channels",
    "device": "device= is an option of the run",
    "dtype": "precision= is an option of the run",
}


@dataclass(frozen=True)
class Backbone:
    """A pre-trained model as a configuration names it; nothing is built or loaded before `build`.

    name: of the configuration. timm_name: an architecture of timm, perhaps with a weights tag.
    kwargs: of timm.create_model. weights, sha256: as in `build_backbone`. normalize: how its images
    are normalized; `timm` means as for the tag.
    """

    name: str
    timm_name: str
    kwargs: Mapping[str, Any]
    weights: str
    sha256: str | None
    normalize: str

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Backbone":
        """Return the backbone of a configuration.

        Raises UnknownNameError on an unknown key, InvalidValueError on a wrong or missing value.
        """
        return from_mapping(cls, config, "backbone")

    @property
    def family(self) -> str:
        """`ViT`, `Eva`, `Swin` or `ConvNeXt`; raises UnknownNameError or UnsupportedModelError."""
        return family_of_name(self.timm_name)

    @property
    def image_size(self) -> int:
        """The side in pixels of the square images that the model takes."""
        return input_size_of_name(self.timm_name, self.kwargs)

    @property
    def weights_key(self) -> str:
        """What identifies the weights before they are loaded.

        `timm:NAME` or `random:NAME`, or 16 hex digits of a file's sha256.
        """
        if self.weights in ("timm", "random"):
            return f"{self.weights}:{self.timm_name}"
        path = find_weights(self.weights)
        check_sha256(path, self.sha256)  # before there is a record of another file's run
        return file_sha256(path)[:16]

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and standard deviation per channel of the images the tag was trained on.

        Raises UnknownNameError on an unknown tag, InvalidValueError on a name without one.
        """
        config = pretrained_config(self.timm_name)
        if config is None:
            raise InvalidValueError(
                f"timm does not say how images for '{self.timm_name}' are normalized; "
                "name it with data.normalize=..."
            )
        return tuple(config.mean), tuple(config.std)

    def check_kwargs(self) -> None:
        """Raise UnknownNameError or InvalidValueError on arguments that no run can be made with."""
        if self.kwargs:
            _try_kwargs(self.timm_name, json.dumps(self.kwargs, sort_keys=True))

    def with_drop_path(self, rate: float | None) -> "Backbone":
        """Return the backbone with a rate of stochastic depth; None: as timm builds it.

        Raises InvalidValueError where `kwargs` have a rate, too.
        """
        if rate is None:
            return self
        if _DROP_PATH in self.kwargs:
            raise InvalidValueError(
                f"drop_path came as {rate}, and backbone.kwargs.{_DROP_PATH} as "
                f"{self.kwargs[_DROP_PATH]}; give one of them. ~backbone.kwargs.{_DROP_PATH} "
                "leaves that of the backbone out."
            )
        return replace(self, kwargs={**self.kwargs, _DROP_PATH: rate})

    def build(self, classes: int) -> Pretrained:
        """Build the model and load its weights, as `build_backbone` does."""
        return build_backbone(self.timm_name, classes, self.weights, self.sha256, self.kwargs)


def build_backbone(
    timm_name: str,
    classes: int,
    weights: str,
    sha256: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Pretrained:
    """Build a timm model with a fresh head of `classes` outputs and its weights everywhere else.

    weights: `timm` (those of the tag in `timm_name`, from timm's cache or the hub), a file
    (`.safetensors` or `.npz`), or `random`, which has to be asked for. A tag and a file with the
    same tensors give the same model. sha256: of that file, None if it is not to be checked.
    Raises WeightsError that says what to do if the weights cannot be had or are another model's,
    InvalidValueError if timm refuses the arguments.
    """
    options = {"num_classes": classes, **(kwargs or {})}
    if weights == "random":
        return Pretrained(_create_model(timm_name, options))
    if weights == "timm":
        path = fetch_weights(timm_name)
    else:
        path = find_weights(weights)
        check_sha256(path, sha256)
    if path.suffix == ".npz":
        return fill_from_npz(_create_model(timm_name, options), path)
    _create_model_on_meta(timm_name, options)  # wrong arguments are not blamed on the weights
    return load_tensors(timm_name, options, path)


@cache
def _try_kwargs(timm_name: str, kwargs: str) -> None:
    """Try arguments of a model (as JSON), on a device without memory.

    Raises UnknownNameError on one that the model does not have, InvalidValueError on one that is
    decided elsewhere, or with which no model is made that turns their images into logits.
    """
    options: dict[str, Any] = json.loads(kwargs)
    allowed = set(model_parameters(timm_name)) - _DECIDED_ELSEWHERE.keys()
    for key, value in options.items():
        if key in _DECIDED_ELSEWHERE:
            raise InvalidValueError(
                f"backbone.kwargs.{key} is not an option: {_DECIDED_ELSEWHERE[key]}."
            )
        choose(key, sorted(allowed), f"argument of {timm_name}")
        if value is None:
            raise InvalidValueError(
                f"backbone.kwargs.{key} came as null, which timm takes for nothing; allowed: a "
                "value, or leave it out."
            )
    _check_side(options.get("img_size"))
    size = input_size_of_name(timm_name, options)
    model = _create_model_on_meta(timm_name, {"num_classes": 2, **options})
    try:
        shape = tuple(model.eval()(torch.empty(1, 3, size, size, device="meta")).shape)
    except _BUILD_ERRORS as error:
        raise _not_built(timm_name, options, error) from error
    if shape != (1, 2):
        raise _not_built(timm_name, options, f"its output is {shape} and not one row of logits")


def _check_side(side: object) -> None:
    """Raise InvalidValueError unless images are squares of that side, or of the model's own."""
    checked = check_value(side, PositiveInt | list[PositiveInt] | None, "backbone.kwargs.img_size")
    if isinstance(checked, list) and len(set(checked)) != 1:
        raise InvalidValueError(
            f"backbone.kwargs.img_size came as {side}; allowed: one number, as images are square."
        )


def _not_built(timm_name: str, options: Mapping[str, Any], reason: object) -> InvalidValueError:
    said = str(reason) or type(reason).__name__
    return InvalidValueError(
        f"timm cannot build {timm_name} with {dict(options)}: {said}. Give other backbone.kwargs, "
        "or leave them out."
    )


def _create_model(timm_name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a timm model with random weights."""
    try:
        model: nn.Module = timm.create_model(timm_name, pretrained=False, **options)
    except _BUILD_ERRORS as error:
        raise _not_built(timm_name, options, error) from error
    return model


def _create_model_on_meta(timm_name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a timm model without memory, and without drawing random numbers."""
    with torch.device("meta"):
        return _create_model(timm_name, options)
