"""What a run leaves behind: its record, beside it the answers, and the adapter where asked for.

In this order: answers, record, adapter; then the checkpoint goes. Whenever a run is cut off, it
either has its record and is done, or it goes on from its checkpoint and writes everything again.
"""

import contextlib
import logging
import traceback
from pathlib import Path

import msgspec
import numpy as np

from san.adapter.attach import Adapter
from san.adapter.usage import Usage
from san.answers import Answers, count_by_class
from san.counts import ParameterCounts
from san.errors import FileAccessError, NonFiniteLossError
from san.experiment import Experiment
from san.record import Record, Seconds, Status
from san.record_file import (
    answers_path,
    check_storable,
    find_completed,
    write_answers,
    write_record,
)
from san.runtime import distributed
from san.runtime.cost import Cost
from san.runtime.device import is_out_of_memory
from san.runtime.files import check_writable
from san.runtime.formatting import printable_line
from san.score import ClassScore, EpochEntry, Score
from san.trainer import FitResult
from san.training.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def check_outputs(experiment: Experiment, path: Path) -> None:
    """Raise SanError where what a run will write could not be written, or not be read again."""
    adapter = path.with_suffix(".safetensors")
    for output in (path, answers_path(path), adapter, path.with_suffix(".checkpoint")):
        check_writable(output)
    check_storable(_imagined_record(experiment))


def _imagined_record(experiment: Experiment) -> Record:
    """Return a record as the run will write it, with a score that is made up."""
    epochs = 0 if experiment.train is None else experiment.recipe.total_epochs
    total = len(experiment.evaluate)
    score = Score(epochs, 0, total)
    val = experiment.validation
    return experiment.record(
        Status.DONE,
        weights="",
        last=score,
        best=score,
        validation=None if val is None else Score(epochs, 0, len(val)),
        history=[EpochEntry(epochs, score=score)],
        classes=_score_classes(experiment, np.zeros(total, np.bool_)),
        params=ParameterCounts(0, 0, 0, 0, 0, 0.0),
        seconds=Seconds(),
    )


def completed_record(
    experiment: Experiment, adapter: Adapter, weights: str, fitted: FitResult, cost: Cost
) -> Record:
    """Return the record of a run that is done. weights: the hash of the pre-trained ones."""
    history = fitted.history
    assert history.answers is not None, "a run that is done has a score"
    seconds = Seconds(
        fit=fitted.fit_seconds,
        evaluate=cost.evaluate_seconds,
        step=fitted.step_seconds,
        build=cost.build_seconds,
    )
    return experiment.record(
        Status.DONE,
        weights,
        started=cost.started,
        last=history.curve[-1],
        best=history.best,
        validation=fitted.validation,
        history=history.entries,
        classes=_score_classes(experiment, history.answers),
        params=adapter.counts,
        seconds=seconds,
        device_hours=cost.device_seconds / 3600,
        peak_bytes=cost.peak_bytes,
        joules=cost.joules,
        adapter_bytes=adapter.saved_bytes,
    )


def write_result(result: Record, answers: Answers, path: Path) -> Record:
    """Write the record of a run that is done, after its answers; return it as it was written.

    The adapter of an earlier run goes first: it would stand beside a record that is not its own.
    Raises FileAccessError, which says the number, where the record cannot be written.
    """
    try:
        path.with_suffix(".safetensors").unlink(missing_ok=True)
        result = _keep_answers(result, answers, path)
        write_record(result, path)
    except (OSError, ValueError) as error:
        raise FileAccessError(
            f"{error} The run is done, with {result.accuracy:.2f} %; the same command goes on "
            "from its last checkpoint, where there is one, and writes the record."
        ) from error
    return result


def save_adapter(adapter: Adapter, experiment: Experiment, result: Record, path: Path) -> bool:
    """Save the adapter beside its record, on rank 0; a failure is a warning in the record.

    Returns whether it is saved; if not, the checkpoint must stay, so that nothing trains again.
    """
    if distributed.rank() != 0:
        return True
    try:
        adapter.save(path.with_suffix(".safetensors"), _usage_of(experiment))
    except Exception as error:  # whatever it is, the number is there
        noted = _with_warning(result, f"The adapter was not saved: {error}", path)
        with contextlib.suppress(OSError):  # the disk is full; the record stays as it is
            write_record(noted, path)
        return False
    return True


def _usage_of(experiment: Experiment) -> Usage:
    """Return what it takes to answer with the adapter alone."""
    backbone = experiment.backbone
    return Usage(
        classes=_class_names(experiment),
        timm_name=backbone.timm_name,
        image_size=experiment.image_size,
        resize=experiment.preprocess.resize,
        normalize=experiment.preprocess.normalize,
        kwargs=dict(backbone.kwargs),
        weights=backbone.weights,
        precision=experiment.recipe.precision,
    )


def record_failure(
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
    if find_completed(path) is not None:
        return
    trace = "".join(traceback.format_exception(error))
    # A trace may quote a file's name that is no Unicode, which no record can hold.
    trace = trace.encode(errors="backslashreplace").decode()
    failure = experiment.record(
        status,
        weights,
        started=checkpoint.meter.started,
        history=checkpoint.history.entries,
        error=trace,
    )
    try:
        answers_path(path).unlink(missing_ok=True)
        write_record(failure, path)
    except (OSError, ValueError) as unwritten:
        log.warning("Of this failure there is no record: %s", unwritten)


def _keep_answers(result: Record, answers: Answers, path: Path) -> Record:
    """Write the answers; return the record with their digest, or with a warning without them."""
    file = answers_path(path)
    try:
        digest = write_answers(answers, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)  # an earlier run's
        return _with_warning(result, f"The answers were not kept: {error}", path)
    return msgspec.structs.replace(result, answers=digest)


def _with_warning(result: Record, warning: str, path: Path) -> Record:
    """Log a warning; return the record with it."""
    log.warning("%s: %s", path, warning)
    return msgspec.structs.replace(result, warnings=[*result.warnings, warning])


def _score_classes(experiment: Experiment, answers: Answers) -> list[ClassScore]:
    """Return the result of each class."""
    return count_by_class(_class_names(experiment), experiment.evaluate.labels, answers)


def _class_names(experiment: Experiment) -> tuple[str, ...]:
    """Return the names of the classes as a record may hold them; folders may have any name."""
    return tuple(printable_line(name) for name in experiment.task.classes)
