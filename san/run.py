"""One run: skip if done -> build -> fit -> evaluate -> write one record."""

import logging
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from san import backbones, record
from san.adapter import Adapter, attach, restore
from san.data.batches import Batches
from san.experiment import Experiment, from_config
from san.loop import evaluate, fit
from san.progress import Progress
from san.provenance import Meter
from san.record import Point
from san.tracker import NoTracker, Tracker, open_tracker

log = logging.getLogger(__name__)


def run(config: dict[str, Any], overrides: Sequence[str]) -> float:
    """Run what a resolved configuration says unless its record exists; return the accuracy in percent.

    A run that fails leaves a record that says so and raises what it died of; one that is interrupted leaves none.
    """
    experiment = from_config(config, overrides)
    path = experiment.record_path()
    adapter_path = path.with_suffix(".safetensors") if config["save_adapter"] else None
    done = record.finished(path)
    if done is not None and not config["force"] and (adapter_path is None or adapter_path.exists()):
        log.info("%s: %.2f %%, done already: %s (force=true runs it again)", experiment.title, done.accuracy, path)
        return done.accuracy
    record.check_writable(path)

    adapter, weights = build(experiment)
    tracker = open_tracker(
        config["logger"]["name"], config, experiment.identity, experiment.suite.name, experiment.method
    )
    try:
        result = experiment.record("done", weights, **train(experiment, adapter, tracker))
    except KeyboardInterrupt:
        tracker.finish({"status": "interrupted"}, failed=True)
        raise
    except Exception as error:
        status = "oom" if isinstance(error, torch.OutOfMemoryError) else "failed"
        if record.finished(path) is None:  # a run that fails does not take the place of one that did not
            record.write(experiment.record(status, weights, error=traceback.format_exc()), path)
        tracker.finish({"status": status}, failed=True)
        log.error("%s: %s (%s)", experiment.title, status, str(error).partition("\n")[0])  # the rest of a sweep goes on
        raise
    record.write(result, path)
    tracker.finish({"accuracy": result.accuracy, **result.params, **result.seconds})
    log.info("%s: %.2f %% in %.0f s: %s", experiment.title, result.accuracy, result.seconds["fit"], path)
    if adapter_path is not None:
        adapter.save(adapter_path)
    return result.accuracy


def build(experiment: Experiment) -> tuple[Adapter, str]:
    """Return the backbone with the method attached, and the hash of the pre-trained weights."""
    torch.manual_seed(experiment.seed)
    b = experiment.backbone
    model = backbones.build(b["timm"], len(experiment.task.classes), b["weights"], b["sha256"], b["arguments"])
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


def train(experiment: Experiment, adapter: Adapter, tracker: Tracker | NoTracker) -> dict[str, Any]:
    """Fit and evaluate; return the outcome's fields of the record."""
    model, recipe, every = adapter.model.to(experiment.device), experiment.recipe, experiment.protocol.every
    shared = experiment.preprocess, experiment.side, experiment.device
    held_out = Batches(experiment.evaluate, 256, *shared)
    restrict = "restrict" in experiment.task.facts
    progress, curve = Progress(experiment.title), []

    def score(epoch: int) -> dict[str, float]:
        found = evaluate(model, held_out, recipe.precision, restrict)
        curve.append(Point(epoch, found.correct, found.total))
        return {"eval/accuracy": found.accuracy, "eval/loss": found.loss}

    def after_epoch(epoch: int, loss: float) -> None:
        due = epoch == recipe.epochs or (every > 0 and epoch % every == 0)
        tracker.log({"train/loss": loss, **(score(epoch) if due else {})}, epoch)

    meter = Meter(experiment.device)
    seconds = {"fit": 0.0, "step": 0.0}
    try:
        if experiment.train is None:
            tracker.log(score(0), 0)
        else:
            order = torch.Generator().manual_seed(experiment.seed)
            mixing = experiment.augment, len(experiment.task.classes), experiment.config["workers"]
            training = Batches(experiment.train, recipe.batch_size, *shared, order, *mixing)
            fitted = fit(model, training, recipe, adapter.trainable, progress.step, after_epoch)
            seconds = {"fit": fitted, "step": fitted / (recipe.epochs * len(training))}
    finally:
        progress.close()
    return {
        "last": curve[-1],
        "best": max(curve, key=lambda point: point.correct),
        "curve": curve,
        "params": asdict(adapter.counts),
        "seconds": seconds,
        **meter.read(),
    }
