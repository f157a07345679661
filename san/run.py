"""One run: skip if done, build, fit, evaluate, write one record."""

import contextlib
import logging
import threading
import time
import traceback
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from torch import nn

from san import record
from san.adapter import Adapter, attach, restore
from san.backbones import weights_hash
from san.counts import ParameterCounts
from san.errors import FileAccessError, InvalidValueError, NonFiniteLossError, Preempted
from san.experiment import Experiment, from_config
from san.record import Record, Seconds, Status
from san.run_options import RunOptions
from san.runtime import distributed, lease
from san.runtime.device import is_out_of_memory
from san.runtime.files import check_writable
from san.runtime.lease import HeldLease
from san.runtime.lease_holder import Sighting, find_holder
from san.runtime.signals import stop_on_signal
from san.runtime.wandb_logger import NoLogger, WandbLogger, open_logger
from san.score import Score
from san.settings import Base
from san.trainer import FitResult, train_and_evaluate
from san.training.checkpoint import Checkpoint

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
    known_mtime_ns = record.mtime_ns(path) if sweep is None else sweep.known_mtime_ns
    distributed.init_distributed(experiment.device)
    if (completed := _find_completed(experiment, options, path)) is not None:
        return completed
    _check_outputs(experiment, path)
    with stop_on_signal() as stop, _hold_lease(path, stop, sweep) as held:
        if not _from_rank_0(held is not None):
            if _from_rank_0(stop.is_set()):
                raise Preempted("Stopped while it waited for the process that holds the run.")
            _log_holder(experiment, lease.lease_path(path))
            return RunResult(RunOutcome.HELD_ELSEWHERE)
        # It may have been completed between the first look and the lease.
        if (completed := _find_completed(experiment, options, path)) is not None:
            return completed
        if _from_rank_0(record.mtime_ns(path) != known_mtime_ns):
            return RunResult(RunOutcome.TRIED_ELSEWHERE)
        return _execute(experiment, options, path, held, stop)


def _find_completed(experiment: Experiment, options: RunOptions, path: Path) -> RunResult | None:
    """Return the result of a run that is complete and need not be run again, else None."""
    found = None if options.force else record.find_completed(path, options.save_adapter)
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


def _check_outputs(experiment: Experiment, path: Path) -> None:
    """Raise SanError where what a run will write could not be written, or not be read again."""
    for output in (path, path.with_suffix(".safetensors"), path.with_suffix(".checkpoint")):
        check_writable(output)
    record.check_storable(_imagined_record(experiment))


def _imagined_record(experiment: Experiment) -> Record:
    """Return a record as the run will write it, with a score that is made up."""
    epochs = 0 if experiment.train is None else experiment.recipe.epochs
    score = Score(epochs, 0, len(experiment.evaluate))
    return experiment.record(
        Status.DONE,
        weights="",
        last=score,
        best=score,
        curve=[score],
        params=ParameterCounts(0, 0, 0, 0, 0, 0.0),
        seconds=Seconds(),
    )


def _execute(
    experiment: Experiment,
    options: RunOptions,
    path: Path,
    held: HeldLease | None,
    stop: threading.Event,
) -> RunResult:
    """Build, train and evaluate; write a record whether that succeeds or fails."""
    evaluated = len(experiment.evaluate)
    checkpoint = Checkpoint(path.with_suffix(".checkpoint"), experiment.identity, evaluated, stop)
    logger = _open_logger(experiment, options)
    weights = ""
    try:
        start = time.perf_counter()
        adapter, weights = _build(experiment)
        build_seconds = time.perf_counter() - start
        max_hours = options.max_hours
        fitted = train_and_evaluate(experiment, adapter, checkpoint, logger, held, max_hours)
        result = _completed_record(experiment, adapter, weights, fitted, build_seconds)
        if distributed.rank() == 0:
            _write_result(result, path)
    except (KeyboardInterrupt, Preempted):
        logger.finish({"status": "interrupted"}, failed=True)
        raise
    except Exception as error:
        peer_failed = distributed.is_peer_failure(error)
        if not peer_failed:
            _record_failure(experiment, path, weights, error, checkpoint)
        logger.finish({"status": "failed"}, failed=True)
        if peer_failed:
            raise Preempted("Another process of this run has died.") from error
        raise
    is_saved = not options.save_adapter or _save_adapter(adapter, result, path)
    if is_saved:
        checkpoint.remove()
    if options.log_adapter and path.with_suffix(".safetensors").is_file():
        logger.log_artifact(path.with_suffix(".safetensors"), experiment.identity)
    counts = msgspec.to_builtins(result.params)
    seconds = msgspec.to_builtins(result.seconds)
    logger.finish({"accuracy": result.accuracy, **counts, **seconds})
    message = "%s: %.2f %% in %.0f s: %s"
    log.info(message, experiment.display_name, result.accuracy, fitted.fit_seconds, path)
    return RunResult(RunOutcome.COMPLETED, result.score)


def _write_result(result: Record, path: Path) -> None:
    """Write the record of a run that is done; where that fails, the error says the number.

    The adapter of an earlier run goes first: it would stand beside a record that is not its own.
    """
    try:
        path.with_suffix(".safetensors").unlink(missing_ok=True)
        record.write_record(result, path)
    except (OSError, ValueError) as error:
        raise FileAccessError(
            f"{error} The run is done, with {result.accuracy:.2f} %; the same command goes on "
            "from its last checkpoint, where there is one, and writes the record."
        ) from error


def _save_adapter(adapter: Adapter, result: Record, path: Path) -> bool:
    """Save the adapter beside its record, on rank 0; a failure is a warning in the record.

    Returns whether it is saved; if not, the checkpoint must stay, so that nothing trains again.
    """
    if distributed.rank() != 0:
        return True
    try:
        adapter.save(path.with_suffix(".safetensors"))
    except Exception as error:  # whatever it is, the number is there
        warning = f"The adapter was not saved: {error}"
        log.warning("%s: %s", path, warning)
        noted = msgspec.structs.replace(result, warnings=[*result.warnings, warning])
        with contextlib.suppress(OSError):  # the disk is full; the record stays as it is
            record.write_record(noted, path)
        return False
    return True


def _completed_record(
    experiment: Experiment, adapter: Adapter, weights: str, fitted: FitResult, build_seconds: float
) -> Record:
    seconds = Seconds(
        fit=fitted.fit_seconds,
        evaluate=fitted.evaluate_seconds,
        step=fitted.step_seconds,
        build=build_seconds,
    )
    return experiment.record(
        Status.DONE,
        weights,
        last=fitted.curve[-1],
        best=fitted.best,
        curve=fitted.curve,
        params=adapter.counts,
        seconds=seconds,
        peak_bytes=fitted.cost.peak_bytes,
        joules=fitted.cost.joules,
    )


def _open_logger(experiment: Experiment, options: RunOptions) -> WandbLogger | NoLogger:
    """Open the logger of a run; only rank 0 logs."""
    return open_logger(
        options.logger if distributed.rank() == 0 else "none",
        options.results_dir,
        experiment.config,
        run_id=experiment.identity,
        group=experiment.suite.name,
        job_type=experiment.method,
    )


def _build(experiment: Experiment) -> tuple[Adapter, str]:
    """Return the backbone with the method attached, and the hash of the pre-trained weights."""
    torch.manual_seed(experiment.seed)
    pretrained = experiment.backbone.build(len(experiment.task.classes))
    model = pretrained.model
    weights = weights_hash(model)
    if experiment.adapter_path is None:
        adapter = attach(model, experiment.method, **experiment.options)
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
    adapter = restore(model, path)
    saved = (adapter.method, dict(adapter.options))
    wanted = (experiment.method, dict(experiment.options))
    if saved != wanted:
        raise InvalidValueError(
            f"{path} is {saved[0]} with {saved[1]}; this run says {wanted[0]} with {wanted[1]}. "
            "Give method=... as it was trained."
        )
    return adapter


def _record_failure(
    experiment: Experiment, path: Path, weights: str, error: Exception, checkpoint: Checkpoint
) -> None:
    """Write a record of why a run failed, unless a completed one is there.

    The checkpoint stays for another try, unless it would only lead to the same failure.
    """
    status = Status.OOM if is_out_of_memory(error) else Status.FAILED
    reason = str(error).partition("\n")[0]
    log.error("%s: %s (%s)", experiment.display_name, status, reason)
    if isinstance(error, NonFiniteLossError):
        checkpoint.remove()
    # Whichever rank knows the reason writes it.
    if record.find_completed(path) is not None:
        return
    trace = "".join(traceback.format_exception(error))
    # A trace may quote a file's name that is no Unicode, which no record can hold.
    trace = trace.encode(errors="backslashreplace").decode()
    failure = experiment.record(status, weights, error=trace)
    try:
        record.write_record(failure, path)
    except (OSError, ValueError) as unwritten:
        log.warning("Of this failure there is no record: %s", unwritten)
