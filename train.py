"""One run: compose -> build -> fit -> evaluate -> write one record.

python train.py method=san data=demo/digits seed=0
"""

import logging
import traceback
from dataclasses import asdict
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from san import backbones, border, record
from san.data.batches import Batches, Preprocess
from san.experiment import Experiment, from_config
from san.loop import evaluate, fit
from san.methods import Adapter, attach
from san.progress import Progress
from san.provenance import peak_bytes, start_meter
from san.record import Point
from san.tracker import NoTracker, Tracker, open_tracker

log = logging.getLogger("train")
border.register_tasks()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float:
    """Run what `cfg` says unless its record exists; return the accuracy in percent."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    run = from_config(config, border.variant())
    path = run.record_path()
    done = record.finished(path)
    if done is not None and not config["force"]:
        log.info("%s: %.2f %%, done already: %s (force=true runs it again)", run.title, done.accuracy, path)
        return done.accuracy
    record.check_writable(path)

    adapter, weights = build(run)
    tracker = open_tracker(config["logger"]["name"], config, run.identity(), run.suite.name, run.method)
    try:
        result = run.record("done", weights, **train(run, adapter, tracker))
    except Exception as error:
        status = "oom" if isinstance(error, torch.OutOfMemoryError) else "failed"
        if done is None:  # a forced run that fails does not take the place of one that did not
            record.write(run.record(status, weights, error=traceback.format_exc()), path)
        tracker.finish({"status": status}, failed=True)
        raise
    record.write(result, path)
    tracker.finish({"accuracy": result.accuracy, **result.params, **result.seconds})
    log.info("%s: %.2f %% in %.0f s: %s", run.title, result.accuracy, result.seconds["fit"], path)
    return result.accuracy


def build(run: Experiment) -> tuple[Adapter, str]:
    """Return the backbone with the method attached, on its device, and the hash of the pre-trained weights."""
    torch.manual_seed(run.seed)
    b = run.backbone
    model = backbones.build(b["timm"], len(run.task.classes), b["weights"], b["sha256"], b["arguments"])
    weights = backbones.weights_hash(model)
    adapter = attach(model, run.method, **run.options)
    model.to(run.device)
    counts = adapter.counts
    log.info("%s: %s + head train, %.2f %% of %s", run.title, f"{counts.method + counts.norm:,}", counts.percent, b["name"])
    return adapter, weights


def train(run: Experiment, adapter: Adapter, tracker: Tracker | NoTracker) -> dict[str, Any]:
    """Fit and evaluate; return the outcome's fields of the record."""
    model, recipe, every = adapter.model, run.recipe, run.protocol.every
    preprocess = Preprocess(backbones.input_size(model), **run.preprocess)
    order = torch.Generator().manual_seed(run.seed)
    training = Batches(run.train, recipe.batch_size, preprocess, run.device, order)
    held_out = Batches(run.evaluate, 256, preprocess, run.device)
    progress, curve = Progress(run.title), []

    def after_epoch(epoch: int, loss: float) -> None:
        values = {"train/loss": loss}
        if epoch == recipe.epochs or (every and epoch % every == 0):
            score = evaluate(model, held_out, recipe.precision)
            curve.append(Point(epoch, score.correct, score.total))
            values |= {"eval/accuracy": score.accuracy, "eval/loss": score.loss}
        tracker.log(values, epoch)

    start_meter(run.device)
    try:
        seconds = fit(model, training, recipe, adapter.trainable, progress.step, after_epoch)
    finally:
        progress.close()
    return {
        "last": curve[-1],
        "best": max(curve, key=lambda point: point.correct),
        "curve": curve,
        "params": asdict(adapter.counts),
        "seconds": {"fit": seconds, "step": seconds / (recipe.epochs * len(training))},
        "peak_bytes": peak_bytes(run.device),
    }


if __name__ == "__main__":
    border.run(main)
