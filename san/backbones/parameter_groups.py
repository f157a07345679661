"""What timm knows of a model's parameters for an optimizer: their layers, and which never decay."""

from typing import Any, cast

from timm.models import group_parameters
from torch import nn


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Return how many layers each parameter lies below the head, by name.

    The layers are those of timm's layer-wise decay of the learning rate: stem, blocks, head.
    Parameters that a method puts into a block are the block's; those that it puts nowhere in
    particular, such as prompts of a model, are the head's.
    """
    matcher = cast(Any, model).group_matcher(coarse=False)
    layers: dict[str, int] = group_parameters(model, matcher, reverse=True)
    last = max(layers.values())
    return {name: last - layer for name, layer in layers.items()}


def undecayed_parameters(model: nn.Module) -> set[str]:
    """Return the names that the model exempts from weight decay, such as `pos_embed`."""
    named = getattr(model, "no_weight_decay", None)
    return set() if named is None else set(named())
