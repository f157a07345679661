"""Train and evaluate: the controlled variable of every table, the same for all methods."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.data.batches import Batches
from san.errors import NonFiniteLossError
from san.runtime import distributed
from san.training.checkpoint import Checkpoint, Position
from san.training.recipe import PRECISIONS, Recipe, lr_at, make_optimizer

REVISION = 2  # raise it when a change of the loop, a method or the preprocessing changes numbers


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


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
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
    forward = distributed.wrap_ddp(model)
    for epoch in range(at.epoch, recipe.epochs + 1):
        model.train()
        begin, before, order = time.perf_counter(), at.seconds, batches.order.get_state()
        for images, labels in batches.after(at.batch):
            step = (epoch - 1) * len(batches) + at.batch
            lr = lr_at(step, steps, warmup, recipe.lr)
            value = train_step(
                forward, optimizer, images, labels, lr, recipe, batches.weight(at.batch)
            )
            if step == 0:
                check_gradients(model, trainable)
            if not math.isfinite(value):
                raise NonFiniteLossError(
                    f"The loss became {value} at step {step + 1} of {steps} with lr {lr:.3g}. Lower lr."
                )
            optimizer.step()
            at = Position(
                epoch, at.batch + 1, at.losses + value, before + time.perf_counter() - begin
            )
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
    with autocast(images.device, recipe.precision):
        loss = weight * F.cross_entropy(
            model(images).float(), labels, label_smoothing=recipe.smoothing
        )
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    return distributed.all_reduce_sum(loss.detach()).item() / distributed.world_size()


def check_gradients(model: nn.Module, trainable: Sequence[str]) -> None:
    """Raise RuntimeError unless exactly the parameters named `trainable` have a gradient."""
    have = {name for name, p in model.named_parameters() if p.grad is not None}
    if have != set(trainable):
        odd = sorted(have ^ set(trainable))
        raise RuntimeError(
            f"{len(odd)} parameters train that should not, or should and do not: {', '.join(odd[:5])}"
        )


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Batches, precision: str = "fp32", restrict: bool = False
) -> Score:
    """Score every image of a split once; raise NonFiniteLossError where the model gives no numbers.

    restrict: predict only classes that the split has (ImageNet-A's 200 of ImageNet's 1000).
    """
    model.eval()
    classes = torch.from_numpy(np.unique(batches.split.labels)).to(batches.device)
    correct = torch.zeros((), dtype=torch.long, device=batches.device)
    loss = torch.zeros((), dtype=torch.double, device=batches.device)
    for images, labels in batches:
        with autocast(batches.device, precision):
            logits: Tensor = model(images).float()
        if restrict:
            logits = torch.full_like(logits, -torch.inf).index_copy(1, classes, logits[:, classes])
        correct += (logits.argmax(1) == labels).sum()
        loss += F.cross_entropy(logits, labels, reduction="sum")
    correct, loss = distributed.all_reduce_sum(correct), distributed.all_reduce_sum(loss)
    mean = float(loss) / len(batches.split)
    if not math.isfinite(mean):
        raise NonFiniteLossError(
            f"The loss of the evaluated split is {mean}: the weights are broken. Lower lr."
        )
    return Score(int(correct), len(batches.split), mean)
