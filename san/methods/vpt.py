"""VPT: trained tokens among the patches (Jia et al., ECCV 2022).

    [cls, prompts, patches] enters the first block; deep: each later block gets prompts of its own
                                                    in the same places

As KMnP/vpt at 4410440: prompts have no position embedding; initial values uniform within
+-sqrt(6 / (3 * patch^2 + channels)). `position` append puts them behind the patches, as NOAH does.
In Swin they join every window's attention (`san.layers.prompted_windows`). Trainable on ViT-B/16
without the head, 5 prompts: 3,840 shallow, 46,080 deep; on Swin-B 640 and 60,160.

It does not start at the pre-trained function, and cannot be merged: the tokens are extra input.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from san.backbones import Site, branches, family
from san.errors import UnsupportedModelError
from san.layers.prompted_windows import prompt_windows
from san.schema import DropoutRate, PositiveInt

_BY_PLACE = ("forward_intermediates", "get_intermediate_layers")
PRESETS = {"vpt_shallow": {"deep": False}, "vpt_deep": {}}


def incompatibility(family: str, options: Mapping[str, Any]) -> str | None:
    """Refuse families without attention, or with one that knows tokens by their place."""
    reasons = {
        "ConvNeXt": "it has no attention that tokens among the patches could take part in",
        "Eva": "its rotary positions take the n-th token for the n-th patch",
    }
    return reasons.get(family)


@dataclass(frozen=True)
class PromptConfig:
    """Settings of all prompts of a model. bound: of their uniform draw. like: type and device."""

    num_prompts: int
    bound: float
    dropout: float
    like: Tensor


class Prompts(nn.Module):
    """Trained tokens `(1, num_prompts, channels)`, drawn uniformly within +-bound."""

    def __init__(self, config: PromptConfig, channels: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(config.like.new_empty(1, config.num_prompts, channels))
        nn.init.uniform_(self.tokens, -config.bound, config.bound)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, batch_size: int) -> Tensor:
        """Return the tokens once for each image: `(batch_size, num_prompts, channels)`."""
        tokens = self.tokens.expand(batch_size, -1, -1)
        dropped: Tensor = self.dropout(tokens)  # after expanding: each image drops its own
        return dropped


class SequencePrompts(Prompts):
    """Prompts of a ViT's block, among its other tokens.

    before: the number of tokens that stay ahead of the prompts, None to append them. replace:
    whether they take the place of the prompts of the block before.
    """

    def __init__(
        self, config: PromptConfig, channels: int, before: int | None, replace: bool
    ) -> None:
        super().__init__(config, channels)
        self.before = before
        self.replace = replace

    def pre_block(self, block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward pre-hook of a block: insert the prompts into its input `(B, T, channels)`."""
        x: Tensor = inputs[0]
        prompts: Tensor = self(len(x))
        replaced = prompts.shape[1] if self.replace else 0
        start = x.shape[1] - replaced if self.before is None else self.before
        with_prompts = torch.cat([x[:, :start], prompts, x[:, start + replaced :]], dim=1)
        return (with_prompts, *inputs[1:])


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    num_prompts: PositiveInt = 5,
    deep: bool = True,
    position: Literal["prepend", "append"] = "prepend",
    dropout: DropoutRate = 0.0,
) -> Iterable[str]:
    """Insert prompts before the first block and, if `deep`, new ones before each later block.

    num_prompts: the paper tunes 1 to 200 a task. position: `prepend` puts them before the patches,
    behind the class token (VPT), `append` behind the patches (NOAH); in Swin the order means
    nothing.
    """
    for name in _BY_PLACE:
        if hasattr(model, name):
            setattr(model, name, _refuse_maps)
    embedding: Any = model.get_submodule(sites[0].name)
    patch_size = math.prod(embedding.kernel_size)
    bound = math.sqrt(6 / (sites[0].inputs * patch_size + sites[0].channels))
    config = PromptConfig(num_prompts, bound, dropout, embedding.weight)
    channels = {branch.block: branch.channels for branch in branches(model)}
    blocks = list(channels)
    prompted = blocks if deep else blocks[:1]
    if family(model) == "Swin":
        prompts = {name: Prompts(config, channels[name]) for name in prompted}
        prompt_windows(model, blocks, prompts)
        return []
    vit: Any = model
    before = None if position == "append" else vit.num_prefix_tokens
    for name in prompted:
        own = SequencePrompts(config, channels[name], before, replace=name != blocks[0])
        block = model.get_submodule(name)
        block.add_module("prompts", own)
        block.register_forward_pre_hook(own.pre_block)
    return []


def _refuse_maps(*args: object, **options: object) -> None:
    """Stand in for functions that take the n-th token for the n-th place."""
    raise UnsupportedModelError(
        "With prompts among its tokens this model has no maps of features by place: "
        "forward_intermediates and the like would scramble them. Use forward_features."
    )
