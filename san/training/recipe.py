"""How a run trains: its hyper-parameters, learning rate and optimiser."""

import math
from dataclasses import dataclass, fields

import torch
from torch import nn

from san.errors import choose

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a run. Epochs are passes over the training split; lr and weight decay are the peak values.

    warmup_epochs: of linear rise, from one step's share of the peak; then cosine to zero. weight_decay: on tensors of
    two or more axes, as timm does. momentum: of sgd; beta1 of adamw is 0.9, beta2 0.999. smoothing: of the labels.
    """

    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    weight_decay: float
    momentum: float
    warmup_epochs: int
    smoothing: float
    precision: str

    def __post_init__(self) -> None:
        """Check types and ranges; a whole number is as good a float."""
        choose(self.optimizer, OPTIMIZERS, "optimizer")
        choose(self.precision, PRECISIONS, "precision")
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = {int: (int,), float: (int, float), str: (str,)}[field.type]  # type: ignore[index]
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise ValueError(f"{field.name} came as {value!r}; allowed: {field.type.__name__}.")  # type: ignore[union-attr]
        rules = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "lr": (0 < self.lr < math.inf, "a positive number"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "momentum": (0 <= self.momentum < 1, "0 to below 1"),
            "warmup_epochs": (self.warmup_epochs >= 0, "0 or more"),
            "smoothing": (0 <= self.smoothing < 1, "0 to below 1"),
        }
        for name, (holds, allowed) in rules.items():
            if not holds:
                raise ValueError(
                    f"{name} came as {getattr(self, name)}; allowed: {allowed}. Give {name}=VALUE."
                )
        for field in fields(self):
            if field.type is float:
                object.__setattr__(self, field.name, float(getattr(self, field.name)))


def lr_at(step: int, steps: int, warmup: int, peak: float) -> float:
    """Learning rate of a step (from 0): linear rise over `warmup` steps to `peak`, then a half cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Optimise what trains; matrices decay, vectors do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.lr)
