"""A model cut before the first part that trains: the outputs up to there never change.

No forward pass is written again. The features are what a module of the stock model is given; the
rest is the stock model with all before that module passed through, under the same names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.models import Eva, VisionTransformer
from torch import Tensor, nn

from san.backbones.families import head_name
from san.backbones.sites import branches


class _Reached(Exception):  # noqa: N818  (nothing is wrong)
    """Ends a forward pass where the frozen prefix does."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


@dataclass(frozen=True)
class FrozenPrefix:
    """The frozen beginning of a model, and a model of the rest.

    cut: the dotted name of the first module after it. rest: shares modules and parameters with the
    model, under the same names; it takes features in place of images.
    """

    model: nn.Module
    cut: str
    rest: nn.Module

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return what the rest needs of images `(B, 3, H, W)`: `(B, ...)`."""

        def stop(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            raise _Reached(inputs[0])

        hook = self.model.get_submodule(self.cut).register_forward_pre_hook(stop)
        try:
            self.model(images)
        except _Reached as reached:
            return reached.features
        finally:
            hook.remove()
        raise AssertionError(f"{self.cut} was not reached")


def frozen_prefix(model: nn.Module, trainable: Iterable[str]) -> FrozenPrefix | None:
    """Cut a model before the first of the parameters named `trainable`.

    None where they begin in the first block or before it, or where the rest of a model needs more
    than one tensor (in Eva the blocks also read rotary positions).
    """
    trainable = list(trainable)
    head = f"{head_name(model)}."
    if all(name.startswith(head) for name in trainable):
        return _cut_before_head(model)
    block = _first_block(model, trainable)
    if block is None or isinstance(model, Eva):
        return None
    rest = _without_before(model, block.split("."))
    if isinstance(model, VisionTransformer):
        cast(Any, rest)._pos_embed = _return_same
    return FrozenPrefix(model, block, rest)


def _cut_before_head(model: nn.Module) -> FrozenPrefix:
    """Cut a model after pooling."""
    rest = _shallow_copy(model)
    rest.forward_features = _return_same
    if isinstance(model, VisionTransformer | Eva):
        rest.pool = _return_same
        return FrozenPrefix(model, "fc_norm", rest)
    rest.head = _shallow_copy(rest.head)
    rest.head.global_pool = nn.Identity()
    names = [name for name, _ in rest.head.named_children()]
    after_pooling = names[names.index("global_pool") + 1]
    return FrozenPrefix(model, f"head.{after_pooling}", rest)


def _first_block(model: nn.Module, trainable: list[str]) -> str | None:
    """Return the block in which training begins, None if it is the first or there is none."""
    names = [name for name, _ in model.named_parameters()]
    first = min(names.index(name) for name in trainable)
    blocks = list(dict.fromkeys(branch.block for branch in branches(model)))
    for block in blocks[1:]:
        if names[first].startswith(f"{block}."):
            return block
    return None


def _without_before(module: nn.Module, path: list[str]) -> nn.Module:
    """Copy a module with its children before the one at `path` passed through."""
    copy = _shallow_copy(module)
    for name, child in module.named_children():
        if name == path[0]:
            if len(path) > 1:
                setattr(copy, name, _without_before(child, path[1:]))
            break
        setattr(copy, name, nn.Identity())
    return cast(nn.Module, copy)


def _shallow_copy(module: nn.Module) -> Any:
    """Return a module with the same children and parameters, whose children can be replaced."""
    copy = module.__new__(type(module))
    copy.__dict__ = module.__dict__.copy()
    copy._modules = copy._modules.copy()
    return copy


def _return_same(x: Tensor, *masks: Any, **named_masks: Any) -> Tensor:
    return x
