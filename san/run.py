"""One run: skip if done -> build -> fit -> evaluate -> write one record."""

import contextlib
import io
import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from san import backbones, record
from san.adapter import Adapter, attach, restore
from san.data.batches import Batches
from san.errors import NonFiniteLossError, Preempted
from san.experiment import Experiment, from_config
from san.record import Point
from san.runtime import distributed, lease
from san.runtime.device import Meter
from san.runtime.progress import Progress
from san.runtime.signals import stop_on_signal
from san.runtime.wandb_logger import NoLogger, WandbLogger, open_logger
from san.training.checkpoint import Checkpoint
from san.training.loop import evaluate, fit

log = logging.getLogger(__name__)
Step = Callable[[int, int, float, float], None]


def run(config: dict[str, Any], overrides: Sequence[str], seen: int | None = None) -> float | None:
    """Run what a resolved configuration says unless its record exists; return the accuracy in percent.

    seen: the stamp of the record that led to this call (None: it is looked up now). Another one under the claim is what
    another process has come to meanwhile, and is not tried again: None is returned, as where one is running it.
    A run that fails leaves a record that says so and raises what it died of; one that is interrupted leaves none, and
    goes on from where it last saved itself when it is run again.
    """
    experiment = from_config(config, overrides)
    path = experiment.record_path()
    seen = record.mtime_ns(path) if seen is None else seen
    distributed.init_distributed(experiment.device)
    if (accuracy := distributed.all_gather_object(find_accuracy(experiment))[0]) is not None:
        return accuracy
    record.check_writable(path)
    with stop_on_signal() as stop, hold_lease(path, stop) as report:
        if not distributed.all_gather_object(report is not None)[0]:
            log.info(
                "%s: another process is running it (%s)", experiment.title, lease.lease_path(path)
            )
            return None
        accuracy = distributed.all_gather_object(find_accuracy(experiment))[
            0
        ]  # between the first look and the claim
        if accuracy is not None or distributed.all_gather_object(record.mtime_ns(path) != seen)[0]:
            return accuracy
        return execute(experiment, report or (lambda epoch, epochs: None), stop)


def hold_lease(
    path: Path, stop: threading.Event
) -> AbstractContextManager[Callable[[int, int], None] | None]:
    """Hold the claim of a run on rank 0; whoever loses it is to stop."""
    return (
        lease.hold(lease.lease_path(path), stop.set)
        if distributed.rank() == 0
        else contextlib.nullcontext()
    )


def find_accuracy(experiment: Experiment) -> float | None:
    """Return the accuracy of a run that is done and need not be done again, else None."""
    path, config = experiment.record_path(), experiment.config
    done = record.find_completed(path, config["save_adapter"])
    if done is None or config["force"]:
        return None
    log.info(
        "%s: %.2f %%, done already: %s (force=true runs it again)",
        experiment.title,
        done.accuracy,
        path,
    )
    return done.accuracy


def execute(
    experiment: Experiment, report: Callable[[int, int], None], stop: threading.Event
) -> float:
    """Build, train, evaluate and write the record, whatever comes of it."""
    path, config = experiment.record_path(), experiment.config
    logger = config["logger"]["name"] if distributed.rank() == 0 else "none"
    tracker = open_logger(
        logger, config, experiment.identity, experiment.suite.name, experiment.method
    )
    checkpoint, weights = Checkpoint(path.with_suffix(".checkpoint"), stop), ""
    try:
        begin = time.perf_counter()
        adapter, weights = build(experiment)
        built = time.perf_counter() - begin
        outcome = train(experiment, adapter, tracker, checkpoint, report)
        outcome["seconds"]["build"] = built
        result = experiment.record("done", weights, **outcome)
        if distributed.rank() == 0:
            if config["save_adapter"]:
                adapter.save(path.with_suffix(".safetensors"))
            record.write_record(result, path)
    except (KeyboardInterrupt, Preempted):
        tracker.finish({"status": "interrupted"}, failed=True)
        raise
    except Exception as error:
        if not distributed.is_peer_failure(error):
            record_failure(experiment, weights, error, checkpoint)
        tracker.finish({"status": "failed"}, failed=True)
        if distributed.is_peer_failure(error):
            raise Preempted("another process of the run has died") from error
        raise
    checkpoint.remove()
    if config["logger"]["artifact"] and config["save_adapter"]:
        tracker.keep(path.with_suffix(".safetensors"), experiment.identity)
    tracker.finish({"accuracy": result.accuracy, **result.params, **result.seconds})
    log.info(
        "%s: %.2f %% in %.0f s: %s", experiment.title, result.accuracy, result.seconds["fit"], path
    )
    return result.accuracy


def record_failure(
    experiment: Experiment, weights: str, error: Exception, checkpoint: Checkpoint
) -> None:
    """Record why a run has failed. What it had saved stays, for another try, unless it would only lead there again."""
    status = "oom" if isinstance(error, torch.OutOfMemoryError) else "failed"
    log.error(
        "%s: %s (%s)", experiment.title, status, str(error).partition("\n")[0]
    )  # the rest of a sweep goes on
    if isinstance(error, NonFiniteLossError):
        checkpoint.remove()
    path = experiment.record_path()
    # A run that fails does not take the place of one that did not.
    if record.find_completed(path) is None:  # whichever rank it is that knows why
        record.write_record(experiment.record(status, weights, error=traceback.format_exc()), path)


def build(experiment: Experiment) -> tuple[Adapter, str]:
    """Return the backbone with the method attached, and the hash of the pre-trained weights."""
    torch.manual_seed(experiment.seed)
    b = experiment.backbone
    model = backbones.build_backbone(
        b["timm"], len(experiment.task.classes), b["weights"], b["sha256"], b["arguments"]
    )
    weights = backbones.weights_hash(model)
    if experiment.restore is None:
        adapter = attach(model, experiment.method, **experiment.options)
    else:
        adapter = restore(model, experiment.restore)
        if adapter.method != experiment.method or dict(adapter.options) != dict(experiment.options):
            raise ValueError(
                f"{experiment.restore} is {adapter.method} with {dict(adapter.options)}; this run says "
                f"{experiment.method} with {dict(experiment.options)}. Give method=... as it was trained."
            )
    counts = adapter.counts
    log.info(
        "%s: %s + head train, %.2f %% of %s",
        experiment.title,
        f"{counts.method + counts.norm:,}",
        counts.percent,
        b["name"],
    )
    return adapter, weights


def with_time_limit(hours: float | None, after_step: Step) -> Step:
    """Return what is called after a step, and raises TimeoutError after so many hours (None: never)."""
    begin = time.monotonic()

    def checked(done: int, steps: int, loss: float, lr: float) -> None:
        """Look at the clock after the step."""
        after_step(done, steps, loss, lr)
        if hours is not None and time.monotonic() - begin > 3600 * hours:
            raise TimeoutError(
                f"{done} of {steps} steps are done after {hours} hours, which is max_hours."
            )

    return checked


def make_evaluator(
    experiment: Experiment, model: nn.Module, curve: list[Point], seconds: dict[str, float]
) -> Callable[[int], dict[str, float]]:
    """Return what evaluates the model after an epoch, adds to the curve and the seconds, and returns what is logged."""
    shared = experiment.preprocess, experiment.side, experiment.device
    held_out = Batches(
        experiment.evaluate, 256, *shared, share=(distributed.rank(), distributed.world_size())
    )
    restrict = experiment.task.test_classes is not None

    def score(epoch: int) -> dict[str, float]:
        """Score the evaluated split once."""
        begin = time.perf_counter()
        found = evaluate(model, held_out, experiment.recipe.precision, restrict)
        seconds["evaluate"] += time.perf_counter() - begin
        curve.append(Point(epoch, found.correct, found.total))
        return {"eval/accuracy": found.accuracy, "eval/loss": found.loss}

    return score


def train(
    experiment: Experiment,
    adapter: Adapter,
    tracker: WandbLogger | NoLogger,
    checkpoint: Checkpoint,
    report: Callable[[int, int], None],
) -> dict[str, Any]:
    """Fit and evaluate; return the outcome's fields of the record."""
    model, recipe, every = (
        adapter.model.to(experiment.device),
        experiment.recipe,
        experiment.protocol.every,
    )
    progress, curve = (
        Progress(experiment.title, None if distributed.rank() == 0 else io.StringIO()),
        checkpoint.curve,
    )
    seconds = {"fit": 0.0, "evaluate": 0.0, "step": 0.0}
    score = make_evaluator(experiment, model, curve, seconds)

    def after_epoch(epoch: int, loss: float) -> None:
        """Say how far the run is, and evaluate where it is due."""
        report(epoch, recipe.epochs)
        due = epoch == recipe.epochs or (every > 0 and epoch % every == 0)
        tracker.log({"train/loss": loss, **(score(epoch) if due else {})}, epoch)

    meter, resumed = Meter(experiment.device), checkpoint.path.exists()
    try:
        if experiment.train is None:
            tracker.log(score(0), 0)
        else:
            order = torch.Generator().manual_seed(experiment.seed)
            mixing = experiment.augment, len(experiment.task.classes), experiment.workers
            shared = experiment.preprocess, experiment.side, experiment.device, order
            share = distributed.rank(), distributed.world_size()
            training = Batches(experiment.train, recipe.batch_size, *shared, *mixing, share)
            distributed.seed_rank(experiment.seed)
            step = with_time_limit(experiment.config["max_hours"], progress.step)
            fitted = fit(model, training, recipe, adapter.trainable, step, after_epoch, checkpoint)
            seconds |= {"fit": fitted, "step": fitted / (recipe.epochs * len(training))}
    finally:
        progress.close()
    return {
        "last": curve[-1],
        "best": max(curve, key=lambda point: point.correct),
        "curve": curve,
        "params": asdict(adapter.counts),
        "seconds": seconds,
        **(
            meter.read() | ({"joules": None} if resumed else {})
        ),  # what an interrupted run spent is not known
    }
