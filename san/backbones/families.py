"""The supported families of timm models, and facts of a model: head, tag, input size."""

import inspect
from collections.abc import Mapping
from typing import Any, cast

import timm
from timm.models import ConvNeXt, Eva, SwinTransformer, VisionTransformer
from torch import nn

from san.errors import UnknownNameError, UnsupportedModelError, suggest

_CLASSES: Mapping[str, type[nn.Module]] = {
    "ViT": VisionTransformer,
    "Eva": Eva,  # ViTs with rotary positions, among them DINOv3
    "Swin": SwinTransformer,
    "ConvNeXt": ConvNeXt,
}

# By the module of timm.models that defines a model, which is known before the model is built.
_FAMILY_OF_MODULE: Mapping[str, str] = {
    "vision_transformer": "ViT",
    "vision_transformer_hybrid": "ViT",
    "deit": "ViT",
    "eva": "Eva",
    "swin_transformer": "Swin",
    "convnext": "ConvNeXt",
}

_DEFAULT_IMAGE_SIZE = 224  # of ImageNet, where timm does not say


def family(model: nn.Module) -> str:
    """Return `ViT`, `Eva`, `Swin` or `ConvNeXt`; raise UnsupportedModelError for any other."""
    for name, kind in _CLASSES.items():
        if isinstance(model, kind):
            return name
    hint = ""
    for name, module in model.named_modules():
        if isinstance(module, tuple(_CLASSES.values())):
            hint = (
                f" It has one inside: san.attach(model.{name}, ...), and train the rest yourself."
            )
            break
    raise UnsupportedModelError(_unsupported(type(model).__name__) + hint)


def family_of_name(name: str) -> str:
    """Return the family of a timm model by its name, without building it.

    Raises UnknownNameError if timm does not have it, UnsupportedModelError as `family` does.
    """
    architecture = name.partition(".")[0]  # what follows is the tag of the weights
    if not timm.is_model(architecture):
        hint = suggest(architecture, timm.list_models())
        raise UnknownNameError(f"timm has no model called '{architecture}'.{hint}")
    entrypoint = timm.model_entrypoint(architecture)
    module = entrypoint.__module__.rpartition(".")[-1]
    if module not in _FAMILY_OF_MODULE:
        raise UnsupportedModelError(_unsupported(f"{architecture} (timm.models.{module})"))
    return _FAMILY_OF_MODULE[module]


def _unsupported(model: str) -> str:
    """Return the error for a model of no supported family."""
    allowed = ", ".join(kind.__name__ for kind in _CLASSES.values())
    return f"No sites are known for a {model}; allowed: timm's {allowed}."


def classifier_name(model: nn.Module) -> str:
    """Return the dotted name of the classifier, the only part without pre-trained weights.

    In a model without a head (`num_classes=0`) an Identity stands there. Raises
    UnsupportedModelError on any other than a Linear or that.
    """
    classifier = cast(Any, model).get_classifier()
    if not isinstance(classifier, nn.Linear | nn.Identity):
        raise UnsupportedModelError(
            f"The classifier of this {type(model).__name__} is a {type(classifier).__name__}; "
            "one Linear is allowed, or none (num_classes=0): build it without distillation."
        )
    names = (name for name, module in model.named_modules() if module is classifier)
    return str(next(names))


def head_name(model: nn.Module) -> str:
    """Return the name of the head, which always trains.

    It is the classifier and, in ConvNeXt, the norm before it.
    """
    return classifier_name(model).partition(".")[0]


def backbone_tag(model: nn.Module) -> str:
    """Return `architecture.tag` as timm names it, or the class of a model not made by name."""
    config = getattr(model, "pretrained_cfg", None) or {}
    parts = (config.get("architecture"), config.get("tag"))
    return ".".join(part for part in parts if part) or type(model).__name__


def input_size(model: nn.Module) -> int:
    """Return the side in pixels of the square images that a model takes."""
    if isinstance(model, ConvNeXt):
        # It takes any size; this is what it was pre-trained on.
        config = getattr(model, "default_cfg", None)
        return int(config["input_size"][-1]) if config else _DEFAULT_IMAGE_SIZE
    return int(cast(Any, model).patch_embed.img_size[0])


def input_size_of_name(name: str, kwargs: Mapping[str, Any]) -> int:
    """Return the same from a timm name and the arguments of timm.create_model."""
    size = kwargs.get("img_size")
    if size is not None:
        # timm takes one side, or height and width.
        return int(size if isinstance(size, int) else size[0])
    config = pretrained_config(name)
    return int(config.input_size[-1]) if config is not None else _DEFAULT_IMAGE_SIZE


def model_parameters(name: str) -> list[str]:
    """Return the names of the arguments that a timm model takes, by its name."""
    signature = inspect.signature(_CLASSES[family_of_name(name)])
    return list(signature.parameters)


def pretrained_config(name: str) -> Any | None:
    """Return what timm knows of a weights tag (input_size, mean, std), None if the name has no tag.

    Raises UnknownNameError on a tag that does not exist.
    """
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        hint = suggest(name, timm.list_pretrained())
        raise UnknownNameError(f"timm has no pre-trained weights called '{name}'.{hint}") from error
