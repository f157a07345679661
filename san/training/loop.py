"""Train and evaluate: the controlled variable of every table, the same for all methods."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.data.batches import Batches
from san.errors import NonFiniteLossError
from san.runtime import distributed
from san.tasks import lookup
from san.training.checkpoint import Checkpoint, Position

REVISION = 2  # raise it when a change of the loop, a method or the preprocessing changes numbers
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
        lookup(self.optimizer, OPTIMIZERS, "optimizer")
        lookup(self.precision, PRECISIONS, "precision")
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
                raise ValueError(f"{name} came as {getattr(self, name)}; allowed: {allowed}. Give {name}=VALUE.")
        for field in fields(self):
            if field.type is float:
                object.__setattr__(self, field.name, float(getattr(self, field.name)))


@dataclass(frozen=True)
class Score:
    """Right answers among all images of a split, and the mean cross-entropy in nats."""

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct / self.total


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


def mixed(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Autocast to bfloat16, or nothing for fp32."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")


def fit(
    model: nn.Module,
    batches: Batches,
    recipe: Recipe,
    trainable: Sequence[str],
    after_step: Callable[[int, int, float, float], None],
    after_epoch: Callable[[int, float], None],
    checkpoint: Checkpoint | None = None,
) -> float:
    """Train for `recipe.epochs` epochs; return the seconds spent in training steps.

    after_step gets (steps done, steps in all, loss, lr); after_epoch gets (the epoch just done, from 1; its mean loss).
    checkpoint: where training goes on from, if it has been begun, and saves itself.
    Raises NonFiniteLossError with step and learning rate, RuntimeError where the parameters that receive gradients are
    not exactly `trainable`, Preempted where the checkpoint is told to stop.
    """
    optimizer = make_optimizer(model, recipe)
    steps, warmup = recipe.epochs * len(batches), recipe.warmup_epochs * len(batches)
    at = checkpoint.load(model, optimizer, batches.order) if checkpoint else Position()
    forward = distributed.spread(model)
    for epoch in range(at.epoch, recipe.epochs + 1):
        model.train()
        begin, before, order = time.perf_counter(), at.seconds, batches.order.get_state()
        for images, labels in batches.after(at.batch):
            step = (epoch - 1) * len(batches) + at.batch
            lr = lr_at(step, steps, warmup, recipe.lr)
            value = train_step(forward, optimizer, images, labels, lr, recipe, batches.weight(at.batch))
            if step == 0:
                check_gradients(model, trainable)
            if not math.isfinite(value):
                raise NonFiniteLossError(
                    f"The loss became {value} at step {step + 1} of {steps} with lr {lr:.3g}. Lower lr."
                )
            optimizer.step()
            at = Position(epoch, at.batch + 1, at.losses + value, before + time.perf_counter() - begin)
            after_step(step + 1, steps, value, lr)
            if checkpoint is not None:
                checkpoint.after_step(model, optimizer, order, at)
        after_epoch(epoch, at.losses / len(batches))
        at = Position(epoch + 1, seconds=at.seconds)
        if checkpoint is not None:
            checkpoint.after_epoch(model, optimizer, batches.order.get_state(), at)
    return at.seconds


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    lr: float,
    recipe: Recipe,
    weight: float = 1.0,
) -> float:
    """Compute the gradients of a batch, leave them to the optimiser at learning rate `lr`; return the loss.

    weight: of these images in the mean over all ranks, which the returned loss is, too.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    with mixed(images.device, recipe.precision):
        loss = weight * F.cross_entropy(model(images).float(), labels, label_smoothing=recipe.smoothing)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    return distributed.total(loss.detach()).item() / distributed.count()


def check_gradients(model: nn.Module, trainable: Sequence[str]) -> None:
    """Raise RuntimeError unless exactly the parameters named `trainable` have a gradient."""
    have = {name for name, p in model.named_parameters() if p.grad is not None}
    if have != set(trainable):
        odd = sorted(have ^ set(trainable))
        raise RuntimeError(f"{len(odd)} parameters train that should not, or should and do not: {', '.join(odd[:5])}")


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Batches, precision: str = "fp32", restrict: bool = False) -> Score:
    """Score every image of a split once; raise NonFiniteLossError where the model gives no numbers.

    restrict: predict only classes that the split has (ImageNet-A's 200 of ImageNet's 1000).
    """
    model.eval()
    classes = torch.from_numpy(np.unique(batches.split.labels)).to(batches.device)
    correct = torch.zeros((), dtype=torch.long, device=batches.device)
    loss = torch.zeros((), dtype=torch.double, device=batches.device)
    for images, labels in batches:
        with mixed(batches.device, precision):
            logits: Tensor = model(images).float()
        if restrict:
            logits = torch.full_like(logits, -torch.inf).index_copy(1, classes, logits[:, classes])
        correct += (logits.argmax(1) == labels).sum()
        loss += F.cross_entropy(logits, labels, reduction="sum")
    correct, loss = distributed.total(correct), distributed.total(loss)
    mean = float(loss) / len(batches.split)
    if not math.isfinite(mean):
        raise NonFiniteLossError(f"The loss of the evaluated split is {mean}: the weights are broken. Lower lr.")
    return Score(int(correct), len(batches.split), mean)
