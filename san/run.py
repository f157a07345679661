"""One run: skip if done, build, fit, evaluate, write one record."""

import contextlib
import logging
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from torch import nn

from san import record_file
from san.adapter.attach import Adapter, attach_for_good
from san.adapter.restore import restore
from san.backbones import weights_hash
from san.chance import near_chance
from san.config_keys import recipe_gap
from san.errors import InvalidValueError, Preempted
from san.experiment import Experiment, from_config
from san.record import Record, Status
from san.record_file import curves_path
from san.run_options import RunOptions
from san.run_outputs import (
    check_outputs,
    completed_record,
    record_failure,
    save_adapter,
    write_result,
)
from san.runtime import distributed, lease
from san.runtime.cost import Meter
from san.runtime.csv_logger import CsvLogger
from san.runtime.deterministic import set_deterministic
from san.runtime.lease import HeldLease
from san.runtime.lease_holder import Sighting, find_holder
from san.runtime.logger import Logger
from san.runtime.signals import stop_on_signal
from san.runtime.wandb_logger import open_wandb
from san.score import Score
from san.settings import Base
from san.trainer import train_and_evaluate
from san.training.checkpoint import Checkpoint
from san.training.head import init_classifier
from san.training.history import History

T = TypeVar("T")
log = logging.getLogger(__name__)


class RunOutcome(StrEnum):
    """How a call of `run` ended."""

    COMPLETED = "completed"
    ALREADY_COMPLETE = "already complete"
    HELD_ELSEWHERE = "held elsewhere"  # another process is running it
    TRIED_ELSEWHERE = "tried elsewhere"  # its record changed since the sweep began


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run, and the score that counts, where there is one."""

    outcome: RunOutcome
    score: Score | None = None


@dataclass(frozen=True)
class SweepView:
    """What the sweep that asks for a run knows of it.

    known_mtime_ns: of its record. If that has changed since, another process has finished or failed
    the run, and it is not tried again. dead_lease: which the sweep has watched for long enough.
    """

    known_mtime_ns: int
    dead_lease: Sighting | None = None


def run(
    config: dict[str, Any],
    base: Base | None = None,
    sweep: SweepView | None = None,
) -> RunResult:
    """Run what a resolved configuration says, unless its record exists.

    base: what the configuration is compared with; None: it is the default itself.
    sweep: what is known of the run (None: looked up now). A run without a sweep watches a lease of
    another host until it is known whether its process lives, which takes minutes where it is dead.
    A run that fails leaves a record of it and raises; an interrupted one leaves a checkpoint, from
    which the next call resumes.
    """
    experiment = from_config(config, base)
    options = RunOptions.from_config(config)
    path = experiment.record_path(options.results_dir)
    set_deterministic(options.deterministic)
    known_mtime_ns = record_file.mtime_ns(path) if sweep is None else sweep.known_mtime_ns
    distributed.init_distributed(experiment.device)
    if (completed := _find_completed(experiment, options, path)) is not None:
        return completed
    check_outputs(experiment, path)
    gap = recipe_gap(config)
    if gap is not None and distributed.rank() == 0:
        log.warning(gap)
    with stop_on_signal() as stop, _hold_lease(path, stop, sweep) as held:
        if not _from_rank_0(held is not None):
            if _from_rank_0(stop.is_set()):
                raise Preempted("Stopped while it waited for the process that holds the run.")
            _log_holder(experiment, lease.lease_path(path))
            return RunResult(RunOutcome.HELD_ELSEWHERE)
        # It may have been completed between the first look and the lease.
        if (completed := _find_completed(experiment, options, path)) is not None:
            return completed
        if _from_rank_0(record_file.mtime_ns(path) != known_mtime_ns):
            return RunResult(RunOutcome.TRIED_ELSEWHERE)
        return _execute(experiment, options, path, held, stop)


def _find_completed(experiment: Experiment, options: RunOptions, path: Path) -> RunResult | None:
    """Return the result of a run that is complete and need not be run again, else None."""
    found = None if options.force else record_file.find_completed(path, options.save_adapter)
    score = _from_rank_0(found.score if found else None)
    if score is None:
        return None
    message = "%s: %.2f %%, already complete: %s (force=true runs it again)"
    log.info(message, experiment.display_name, score.accuracy, path)
    return RunResult(RunOutcome.ALREADY_COMPLETE, score)


def _from_rank_0(value: T) -> T:
    """Return what rank 0 has: all ranks of a run must decide alike."""
    return distributed.all_gather_object(value)[0]


def _hold_lease(
    path: Path, stop: threading.Event, sweep: SweepView | None
) -> AbstractContextManager[HeldLease | None]:
    """Hold the lease of a run on rank 0; a run that loses it stops."""
    if distributed.rank() != 0:
        return contextlib.nullcontext()
    file = lease.lease_path(path)
    if sweep is None:
        return lease.hold(file, stop.set, stop=stop)
    return lease.hold(file, stop.set, dead=sweep.dead_lease)


def _log_holder(experiment: Experiment, file: Path) -> None:
    """Say who is running a run, and what a person can do."""
    holder = find_holder(file)
    if holder is None:
        log.info("%s: another process was running it a moment ago", experiment.display_name)
    else:
        name = experiment.display_name
        log.info("%s: %s is running it; %s", name, holder.name, holder.way_out)


def _execute(
    experiment: Experiment,
    options: RunOptions,
    path: Path,
    held: HeldLease | None,
    stop: threading.Event,
) -> RunResult:
    """Build, train and evaluate; write a record whether that succeeds or fails."""
    checkpoint = _new_checkpoint(experiment, path, stop)
    logger = _open_logger(experiment, options, path)
    weights = ""
    try:
        start = time.perf_counter()
        adapter, weights = _build(experiment)
        checkpoint.meter.build_seconds = time.perf_counter() - start
        fitted = train_and_evaluate(experiment, adapter, checkpoint, logger, options, held)
        cost = checkpoint.meter.read()
        result = completed_record(experiment, adapter, weights, fitted, cost)
        if distributed.rank() == 0:
            assert fitted.history.answers is not None
            result = write_result(result, fitted.history.answers, path)
    except (KeyboardInterrupt, Preempted):
        logger.finish({"status": "interrupted"}, failed=True)
        raise
    except Exception as error:
        peer_failed = distributed.is_peer_failure(error)
        if not peer_failed:
            record_failure(experiment, path, weights, error, checkpoint)
        logger.finish({"status": "failed"}, failed=True)
        if peer_failed:
            raise Preempted("Another process of this run has died.") from error
        raise
    is_saved = not options.save_adapter or save_adapter(adapter, experiment, result, path)
    if is_saved:
        checkpoint.remove()
    saved = path.with_suffix(".safetensors")
    if options.log_adapter and saved.is_file():
        logger.keep_adapter(saved)
    logger.finish(_summary(result))
    message = "%s: %.2f %% in %.0f s: %s"
    log.info(message, experiment.display_name, result.accuracy, fitted.fit_seconds, path)
    _warn_near_chance(experiment, result)
    return RunResult(RunOutcome.COMPLETED, result.score)


def _warn_near_chance(experiment: Experiment, result: Record) -> None:
    """Say once where a model has learned nothing that shows in its result."""
    alarm = near_chance(result.classes)
    if alarm is not None and distributed.rank() == 0:
        log.warning("%s: %s", experiment.display_name, alarm)


def _new_checkpoint(experiment: Experiment, path: Path, stop: threading.Event) -> Checkpoint:
    """Return where a run is saved; what it costs is measured from now on."""
    counts_best = experiment.protocol.selected_on != "last"
    history = History(len(experiment.evaluate), counts_best)
    meter = Meter(experiment.device)
    file = path.with_suffix(".checkpoint")
    return Checkpoint(file, experiment.identity, history, meter, stop)


def _open_logger(experiment: Experiment, options: RunOptions, path: Path) -> Logger:
    """Open the logger of a run; only rank 0 logs. path: of the record.

    The curves of an earlier run go first: they would stand beside a record that is not their own.
    """
    if distributed.rank() != 0:
        return Logger()
    if options.logger == "csv":
        return CsvLogger(curves_path(path))
    with contextlib.suppress(OSError):
        curves_path(path).unlink(missing_ok=True)
    if options.logger == "none":
        return Logger()
    suite = experiment.suite.name
    method = experiment.method
    backbone = experiment.backbone.name
    recipe = experiment.config["recipe"]["name"]
    return open_wandb(
        options.results_dir,
        run_id=experiment.identity,
        name=experiment.name_in_suite,
        group=suite,
        job_type=method,
        config=experiment.config,
        tags=(suite, experiment.task.name, method, backbone, experiment.protocol.name, recipe),
        project=options.wandb_project,
    )


def _summary(result: Record) -> dict[str, object]:
    """Return what a logger shows of a run that is done; names of groups keep the rest apart."""
    summary: dict[str, object] = {"status": Status.DONE.value, "accuracy": result.accuracy}
    for group, values in (("params", result.params), ("seconds", result.seconds)):
        for name, value in msgspec.to_builtins(values).items():
            summary[f"{group}/{name}"] = value
    return summary


def _build(experiment: Experiment) -> tuple[Adapter, str]:
    """Return the backbone with the method attached, and the hash of the pre-trained weights."""
    torch.manual_seed(experiment.seed)
    recipe = experiment.recipe
    backbone = experiment.backbone.with_drop_path(recipe.drop_path)
    pretrained = backbone.build(len(experiment.task.classes))
    model = pretrained.model
    weights = weights_hash(model)
    init_classifier(model, recipe.head_init)
    if experiment.adapter_path is None:
        adapter = attach_for_good(model, experiment.method, **experiment.options)
    else:
        adapter = _restore(model, experiment, experiment.adapter_path)
    pretrained.check_trained(adapter.trainable, experiment.method)
    counts = adapter.counts
    log.info(
        "%s: %s + head train, %.2f %% of %s",
        experiment.display_name,
        f"{counts.method + counts.norm:,}",
        counts.percent,
        experiment.backbone.name,
    )
    return adapter, weights


def _restore(model: nn.Module, experiment: Experiment, path: Path) -> Adapter:
    """Attach a saved adapter; raise InvalidValueError where it is of another method or options."""
    adapter = restore(model, path, detachable=False)
    saved = (adapter.method, dict(adapter.options))
    wanted = (experiment.method, dict(experiment.options))
    if saved != wanted:
        raise InvalidValueError(
            f"{path} is {saved[0]} with {saved[1]}; this run says {wanted[0]} with {wanted[1]}. "
            "Give method=... as it was trained."
        )
    return adapter
