"""The families of backbones, by timm's classes and modules, and facts of a model: head, tag, input size."""

import difflib
from collections.abc import Mapping
from typing import Any, cast

import timm
from timm.models import ConvNeXt, SwinTransformer, VisionTransformer
from torch import nn

FAMILIES: dict[str, type[nn.Module]] = {
    "ViT": VisionTransformer,
    "Swin": SwinTransformer,
    "ConvNeXt": ConvNeXt,
}


MODULES = {
    "vision_transformer": "ViT",
    "vision_transformer_hybrid": "ViT",
    "deit": "ViT",
    "swin_transformer": "Swin",
    "convnext": "ConvNeXt",
}


def family(model: nn.Module) -> str:
    """Return `ViT`, `Swin` or `ConvNeXt`; raise TypeError for any other model."""
    for name, kind in FAMILIES.items():
        if isinstance(model, kind):
            return name
    raise TypeError(
        f"No sites are known for a {type(model).__name__}; allowed: timm's {supported_classes()}."
    )


def family_of_name(name: str) -> str:
    """Return the family of a timm model's name without building it; raise LookupError or TypeError as `family` does."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise LookupError(f"timm has no model called '{architecture}'.{hint}")
    module = timm.model_entrypoint(architecture).__module__.rpartition(".")[-1]
    if module not in MODULES:
        raise TypeError(
            f"No sites are known for a {architecture} (timm.models.{module}); allowed: timm's {supported_classes()}."
        )
    return MODULES[module]


def supported_classes() -> str:
    """Return the names of the classes that have sites."""
    return ", ".join(kind.__name__ for kind in FAMILIES.values())


def classifier_name(model: nn.Module) -> str:
    """Return the dotted name of the classifier, the only part that pre-trained weights do not fill."""
    head = cast(Any, model).get_classifier()
    if not isinstance(head, nn.Linear):
        found = f"The classifier of this {type(model).__name__} is a {type(head).__name__}"
        raise TypeError(
            f"{found}; one Linear is allowed: build it with num_classes, and without distillation."
        )
    return str(next(name for name, module in model.named_modules() if module is head))


def head_name(model: nn.Module) -> str:
    """Return the name of the head, which always trains: the classifier and, in ConvNeXt, the norm before it."""
    return classifier_name(model).partition(".")[0]


def backbone_tag(model: nn.Module) -> str:
    """Return timm's architecture and weights tag of a model, or its class where it was not made by name."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return (
        ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
        or type(model).__name__
    )


def input_size(model: nn.Module) -> int:
    """Return the side in pixels of the square images that a model takes."""
    if isinstance(model, ConvNeXt):  # takes any; this is what it was pre-trained on
        config = getattr(model, "default_cfg", None) or {"input_size": (3, 224, 224)}
        return int(config["input_size"][-1])
    return int(cast(Any, model).patch_embed.img_size[0])


def input_size_of_name(name: str, arguments: Mapping[str, Any]) -> int:
    """Return the same from a timm name and the arguments it is built with, without building it."""
    side = arguments.get("img_size")
    if side is None:
        config = timm.get_pretrained_cfg(name)
        return int(config.input_size[-1]) if config is not None else 224
    return int(side if isinstance(side, int) else side[0])
