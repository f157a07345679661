"""Training and evaluation of an experiment: batches, callbacks, history."""

import io
import logging
import time
from dataclasses import dataclass

import torch
from torch import nn

from san.adapter.attach import Adapter
from san.data.batches import Batches, Shard
from san.data.split import Split
from san.errors import TimeLimitError
from san.experiment import Experiment
from san.run_options import RunOptions
from san.runtime import distributed
from san.runtime.lease import HeldLease
from san.runtime.logger import Logger
from san.runtime.progress import Progress
from san.score import EpochEntry, Score
from san.training.checkpoint import Checkpoint
from san.training.frozen_features import FrozenFeatures
from san.training.history import Evaluation, History
from san.training.loop import evaluate, fit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """What training and evaluating came to.

    validation: the score on a val split that nothing was chosen on, where there is one.
    fit_seconds: in training steps; step_seconds: the mean of one.
    """

    history: History
    validation: Score | None
    fit_seconds: float
    step_seconds: float


def train_and_evaluate(
    experiment: Experiment,
    adapter: Adapter,
    checkpoint: Checkpoint,
    logger: Logger,
    options: RunOptions,
    held: HeldLease | None = None,
) -> FitResult:
    """Fit and evaluate; only evaluate where a saved adapter is tested.

    held: the lease in which rank 0 reports the progress.
    """
    model = adapter.model.to(experiment.device)
    callbacks = _RunCallbacks(experiment, model, checkpoint, logger, held, options.max_hours)
    fit_seconds = step_seconds = 0.0
    try:
        if experiment.train is None:
            callbacks.on_evaluation_alone()
        else:
            batches = _training_batches(experiment, experiment.train)
            fit_seconds = _fit(experiment, adapter, batches, callbacks, checkpoint, options.compile)
            step_seconds = fit_seconds / (experiment.recipe.total_epochs * len(batches))
    finally:
        callbacks.progress.close()
        callbacks.log_new_epochs()
    validation = None
    if experiment.validation is not None:
        val = _evaluation_batches(experiment, experiment.validation)
        validation = callbacks.evaluate(experiment.recipe.total_epochs, model, val).score
    return FitResult(checkpoint.history, validation, fit_seconds, step_seconds)


def _fit(
    experiment: Experiment,
    adapter: Adapter,
    batches: Batches,
    callbacks: "_RunCallbacks",
    checkpoint: Checkpoint,
    compiled: bool,
) -> float:
    """Train, on the features of frozen layers where these can be cached; return the seconds.

    compiled: torch compiles the training steps, but for those on cached features.
    """
    start = time.perf_counter()
    recipe = experiment.recipe
    features = FrozenFeatures(adapter.model, adapter.trainable, recipe.precision, checkpoint.stop)
    model, batches = features.cached(batches)
    if experiment.protocol.eval_every > 0:
        callbacks.evaluated = features.cached(callbacks.evaluated[1])
    checkpoint.meter.build_seconds += time.perf_counter() - start
    distributed.seed_rank(experiment.seed)
    if compiled and model is not adapter.model:
        log.info("compile=true: not done, as steps on cached features are over sooner.")
        compiled = False
    return fit(model, batches, recipe, adapter.trainable, callbacks, checkpoint, compiled)


class _RunCallbacks:
    """What happens at the end of a step and of an epoch (`loop.Callbacks`)."""

    def __init__(
        self,
        experiment: Experiment,
        model: nn.Module,
        checkpoint: Checkpoint,
        logger: Logger,
        held: HeldLease | None,
        max_hours: float | None,
    ) -> None:
        self.experiment = experiment
        self.history = checkpoint.history
        self.meter = checkpoint.meter
        self.logger = logger
        self.logged = 0  # epochs of the history
        self.held = held
        self.max_hours = max_hours
        self.evaluated = (model, _evaluation_batches(experiment, experiment.evaluate))
        stream = None if distributed.rank() == 0 else io.StringIO()  # other ranks are silent
        self.progress = Progress(experiment.display_name, stream)
        self.start = time.monotonic()

    def on_step_end(self, step: int, steps: int, loss: float, lr: float) -> None:
        """Show the progress; raise TimeLimitError after `max_hours`."""
        self.progress.step(step, steps, loss, lr)
        self.log_new_epochs()
        if self.max_hours is None:
            return
        if time.monotonic() - self.start > 3600 * self.max_hours:
            raise TimeLimitError(
                f"{step} of {steps} steps are done after {self.max_hours} hours, "
                "which is max_hours."
            )

    def on_epoch_end(self, epoch: int, mean_loss: float, lr: float) -> None:
        """Report the epoch, and evaluate if that is due."""
        epochs = self.experiment.recipe.total_epochs
        every = self.experiment.protocol.eval_every
        if self.held is not None:
            self.held.report(epoch, epochs)
        evaluation = None
        if epoch == epochs or (every > 0 and epoch % every == 0):
            evaluation = self.evaluate(epoch, *self.evaluated)
        self.history.add(epoch, mean_loss, lr, evaluation)
        self.log_new_epochs()

    def on_evaluation_alone(self) -> None:
        """Evaluate a saved adapter."""
        evaluation = self.evaluate(0, *self.evaluated)
        self.history.add(0, evaluation=evaluation)

    def log_new_epochs(self) -> None:
        """Log what the history has gained; also the epochs that a checkpoint has brought back."""
        for entry in self.history.entries[self.logged :]:
            self.logger.log(_metrics(entry), entry.epoch)
        self.logged = len(self.history.entries)

    def evaluate(self, epoch: int, model: nn.Module, batches: Batches) -> Evaluation:
        """Score a split once: what the batches give, by the model that reads it."""
        start = time.perf_counter()
        only_present = self.experiment.task.test_classes is not None
        precision = self.experiment.recipe.precision
        evaluation = evaluate(model, batches, epoch, precision, only_present)
        self.meter.evaluate_seconds += time.perf_counter() - start
        return evaluation


def _metrics(entry: EpochEntry) -> dict[str, float]:
    """Return what is logged of an epoch, by the names of the curves."""
    metrics = {}
    if entry.train_loss is not None:
        metrics["train/loss"] = entry.train_loss
    if entry.score is not None:
        assert entry.score.loss is not None
        metrics["eval/accuracy"] = entry.score.accuracy
        metrics["eval/loss"] = entry.score.loss
    return metrics


def _training_batches(experiment: Experiment, split: Split) -> Batches:
    generator = torch.Generator().manual_seed(experiment.seed)
    return Batches.for_training(
        split=split,
        batch_size=experiment.recipe.batch_size,
        preprocess=experiment.preprocess,
        image_size=experiment.image_size,
        device=experiment.device,
        generator=generator,
        augment=experiment.augment,
        classes=len(experiment.task.classes),
        num_workers=experiment.num_workers,
        shard=_shard(),
        drop_last=experiment.recipe.drop_last,
    )


def _evaluation_batches(experiment: Experiment, split: Split) -> Batches:
    return Batches.for_evaluation(
        split=split,
        batch_size=experiment.recipe.eval_batch_size,
        preprocess=experiment.preprocess,
        image_size=experiment.image_size,
        device=experiment.device,
        shard=_shard(),
    )


def _shard() -> Shard:
    return Shard(distributed.rank(), distributed.world_size())
