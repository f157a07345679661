"""How a run trains: its hyper-parameters, learning rate and optimizer."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import nn

from san.schema import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
)

BelowOne = Annotated[float, Meta(ge=0, lt=1)]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a run. lr is the peak value.

    epochs: passes over the training split. warmup_epochs: of linear rise, from one step's share of
    the peak; then cosine to zero. weight_decay: on tensors of two or more axes, as timm does.
    momentum: of sgd; beta1 of adamw is 0.9, beta2 0.999.
    """

    epochs: PositiveInt
    batch_size: PositiveInt
    optimizer: Literal["adamw", "sgd"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat
    momentum: BelowOne
    warmup_epochs: NonNegativeInt
    label_smoothing: BelowOne
    precision: Literal["fp32", "bf16"]

    def __post_init__(self) -> None:
        check_fields(self)


def lr_at(step: int, steps: int, warmup: int, peak: float) -> float:
    """Learning rate of a step (from 0).

    Linear rise over `warmup` steps to `peak`, then a half cosine to zero.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Optimize the trainable parameters; matrices decay, vectors do not."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    vectors = [p for p in trainable if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.lr)
