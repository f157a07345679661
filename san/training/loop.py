"""Train and evaluate: the controlled variable of every table, the same for all methods."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.answers import Answers
from san.backbones import persistent_buffers
from san.data.batches import Batches
from san.errors import NonFiniteLossError
from san.runtime import distributed
from san.score import Score
from san.training.checkpoint import Checkpoint, Position, Trained
from san.training.ema import WeightAverage
from san.training.history import Evaluation
from san.training.optimizer import make_optimizer
from san.training.recipe import Recipe
from san.training.schedule import Timeline

# Raise it when a change of the loop, a method or the preprocessing changes numbers by more than
# their rounding.
REVISION = 2


class Callbacks(Protocol):
    """Called by `fit` after each step and epoch."""

    def on_step_end(self, step: int, steps: int, loss: float, lr: float) -> None:
        """Take note of a step: steps done, steps in all, the loss, the learning rate."""

    def on_epoch_end(self, epoch: int, mean_loss: float, lr: float) -> None:
        """Take note of the epoch just done, from 1: its mean loss, the lr of its last step."""


def fit(
    model: nn.Module,
    batches: Batches,
    recipe: Recipe,
    trainable: Sequence[str],
    callbacks: Callbacks,
    checkpoint: Checkpoint | None = None,
    compiled: bool = False,
) -> float:
    """Train for `recipe.total_epochs` epochs; return the seconds spent in training steps.

    checkpoint: where training resumes from, if it was interrupted, and is saved.
    compiled: torch compiles the training steps; the model itself stays as it is.
    Where the weights are averaged, the callbacks of an epoch, and who comes after, see the average.
    Raises NonFiniteLossError with step and learning rate, RuntimeError where the parameters that
    receive gradients are not exactly `trainable`, Preempted where the checkpoint says to stop.
    """
    trained = _begin(model, recipe)
    generator = batches.generator
    assert generator is not None, "training batches are shuffled"
    timeline = Timeline(recipe.schedule, recipe.epochs, recipe.warmup_epochs, len(batches))
    position = _first_position(checkpoint, trained, batches, recipe)
    forward = _training_forward(model, compiled)
    for epoch in range(position.epoch, recipe.total_epochs + 1):
        model.train()
        shuffle_state = generator.get_state()  # a resumed epoch draws the same order again
        start = time.perf_counter() - position.seconds
        for images, labels in batches.iter_from(position.batch):
            step = (epoch - 1) * len(batches) + position.batch
            lr = _set_lr(trained.optimizer, timeline, step, recipe.lr)
            weight = batches.weight(position.batch)
            loss = _train_step(forward, trained.optimizer, images, labels, recipe, weight)
            if step == 0:
                check_gradients(model, trainable)
            _check_finite(loss, step, timeline.steps, lr)
            _take_step(trained, recipe.clip_grad)
            seconds = time.perf_counter() - start
            position = Position(epoch, position.batch + 1, position.losses + loss, seconds)
            callbacks.on_step_end(step + 1, timeline.steps, loss, lr)
            if checkpoint is not None:
                checkpoint.on_step_end(trained, shuffle_state, position)
        # A run that was interrupted here has no step of this epoch left.
        last_lr = timeline.lr(epoch * len(batches) - 1, recipe.lr)
        with trained.as_evaluated():
            callbacks.on_epoch_end(epoch, position.losses / len(batches), last_lr)
        position = Position(epoch + 1, seconds=position.seconds)
        if checkpoint is not None:
            checkpoint.on_epoch_end(trained, generator.get_state(), position)
    trained.finish()
    return position.seconds


def _begin(model: nn.Module, recipe: Recipe) -> Trained:
    """Return what trains, before the first step."""
    average = None if recipe.ema_decay is None else WeightAverage(model, recipe.ema_decay)
    return Trained(model, make_optimizer(model, recipe), average)


def _first_position(
    checkpoint: Checkpoint | None, trained: Trained, batches: Batches, recipe: Recipe
) -> Position:
    """Return where training begins: at the first step, unless a checkpoint says otherwise."""
    if checkpoint is None:
        return Position()
    assert batches.generator is not None
    return checkpoint.load(trained, batches.generator, recipe.total_epochs, len(batches))


def _training_forward(model: nn.Module, compiled: bool) -> Callable[[Tensor], Tensor]:
    """Return what computes the logits of a training step; evaluation asks the model itself."""
    wrapped = distributed.wrap_ddp(model)
    if not compiled:
        return wrapped
    # An epoch has batches of two sizes at most, so that shapes are taken as they are.
    compiled_model: Callable[[Tensor], Tensor] = torch.compile(wrapped, dynamic=False)
    return compiled_model


def _set_lr(optimizer: torch.optim.Optimizer, timeline: Timeline, step: int, peak: float) -> float:
    """Set the learning rate of each group for a step; return that of a group with this peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr_scale"] * timeline.lr(step, group["peak"])
    return timeline.lr(step, peak)


def _train_step(
    forward: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    weight: float = 1.0,
) -> float:
    """Compute the gradients of a batch; return the loss.

    weight: of these images in the mean over all ranks, which the returned loss is, too.
    """
    with autocast(images.device, recipe.precision):
        logits = forward(images).float()
        mean_loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        loss = weight * mean_loss
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    return distributed.all_reduce_sum(loss.detach()).item() / distributed.world_size()


def _take_step(trained: Trained, clip_grad: float | None) -> None:
    """Clip the gradients by their global norm, where that is wanted, and take the step."""
    if clip_grad is not None:
        torch.nn.utils.clip_grad_norm_(trained.parameters().values(), clip_grad)
    trained.optimizer.step()
    if distributed.world_size() > 1:
        # Each rank has seen images of its own; the next forward pass would do this too late.
        distributed.broadcast_from_rank_0(persistent_buffers(trained.model).values())
    if trained.average is not None:
        trained.average.update()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Autocast to bfloat16 for `bf16`; nothing for `fp32`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _check_finite(loss: float, step: int, steps: int, lr: float) -> None:
    """Raise NonFiniteLossError, before the step is taken, where the loss is not a number."""
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"The loss became {loss} at step {step + 1} of {steps} with lr {lr:.3g}. Lower lr."
        )


def check_gradients(model: nn.Module, trainable: Sequence[str]) -> None:
    """Raise RuntimeError unless exactly the parameters named `trainable` have a gradient."""
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    odd = sorted(with_gradient ^ set(trainable))
    if odd:
        names = ", ".join(odd[:5])
        raise RuntimeError(
            f"{len(odd)} parameters train that should not, or should and do not: {names}"
        )


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Batches,
    epoch: int,
    precision: str = "fp32",
    only_present_classes: bool = False,
) -> Evaluation:
    """Score every image of a split once, after an epoch; ranks share the images.

    only_present_classes: predict only classes that the split has (ImageNet-A's 200 of 1000).
    Raises NonFiniteLossError where the model gives no numbers.
    """
    model.eval()
    device = batches.device
    present = torch.from_numpy(np.unique(batches.split.labels)).to(device)
    own_answers = [torch.zeros(0, dtype=torch.bool, device=device)]
    loss = torch.zeros((), dtype=torch.double, device=device)
    for images, labels in batches:
        with autocast(device, precision):
            logits: Tensor = model(images).float()
        if only_present_classes:
            excluded = torch.full_like(logits, -torch.inf)
            logits = excluded.index_copy(1, present, logits[:, present])
        own_answers.append(logits.argmax(1) == labels)
        loss += F.cross_entropy(logits, labels, reduction="sum")
    answers = _gather_answers(torch.cat(own_answers), batches)
    loss = distributed.all_reduce_sum(loss)
    mean_loss = float(loss) / len(answers)
    if not math.isfinite(mean_loss):
        raise NonFiniteLossError(
            f"The loss of the evaluated split is {mean_loss}: the weights are broken. Lower lr."
        )
    return Evaluation(Score(epoch, int(answers.sum()), len(answers), mean_loss), answers)


def _gather_answers(own: Tensor, batches: Batches) -> Answers:
    """Return the answers of all ranks in the order of the split, bool `(N,)`.

    own: of this rank's images, in the order in which it took them.
    """
    answers = torch.zeros(len(batches.split), dtype=torch.uint8, device=own.device)
    answers[batches.stored_rows().to(own.device)] = own.byte()
    gathered: Answers = distributed.all_reduce_sum(answers).cpu().numpy().astype(np.bool_)
    return gathered
