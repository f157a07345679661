"""The record of a run: its fields, and what must agree among them. Tables are made of nothing else.

`san.record_file` reads and writes it. The JSON Schema is `record.schema.json` beside this file;
`python -m san.record` writes it.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from san.counts import ParameterCounts
from san.runtime.environment import CodeState, DeviceInfo
from san.runtime.timestamps import check_timestamp
from san.schema import Line
from san.score import ClassScore, EpochEntry, Score, check_history, check_scores, scores_of
from san.tasks import known_split_sizes
from san.training.schedule import trained_epochs

SCHEMA: Literal[2] = 2
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")
_Count = Annotated[int, Meta(ge=0, lt=2**53)]
_NonNegative = Annotated[float, Meta(ge=0)]
_DIGEST = r"^[0-9a-f]{16}(?!\n)$"
_BACKBONE_NAME = r"^[\w.-]+(?!\n)$"  # result files are named by it
# A line that is a part of a path, as well; Python's $ alone would let a last newline pass.
_Name = Annotated[str, Meta(pattern=r"^(?!\.\.?$)[^/\x00-\x1f\x7f]+(?!\n)$")]


class Status(StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    OOM = "oom"


class Seconds(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a run's parts took; None where it is not known.

    fit: in training steps.
    evaluate: all evaluations.
    step: the mean of a training step.
    build: backbone, weights, method, and the outputs of frozen layers that are cached.
    Of an interrupted run: of all of its processes, but for what they did after they last saved.
    """

    fit: _NonNegative | None = None
    evaluate: _NonNegative | None = None
    step: _NonNegative | None = None
    build: _NonNegative | None = None


class DataSource(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The data a run read; None where an old record does not say.

    train, evaluate: fingerprints of the splits.
    source: where the images come from, in words; kind: which kind of source that is.
    forced: what was wrong with the data, where the user trained on it nevertheless.
    """

    train: str | None = None
    evaluate: str | None = None
    source: str | None = None
    kind: str | None = None
    forced: str | None = None


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. What is None is not known, as much is in records of schema 1.

    id: a hash of everything that may change the number; equal ids mean the same experiment.
    variant: the settings that depart from the recipe, in words; a row of a table shares them.
    selected_on: where the epoch was chosen (`last` or a split).
    evaluated_on: the split behind `last`, `best`, `history`, `classes` and `answers`.
    config: the resolved configuration, in the words of schema 1 (`san.renamed_keys`).
    started, created: when the first process began and the record was made (ISO 8601, with offset).
    host: where the last process ran.
    validation: after the last epoch, on a val split that was neither trained on nor evaluated.
    history: an entry for each epoch; of schema 1, for each that was evaluated.
    classes: of the score that counts, in label order.
    answers: digest of the file beside the record, right or wrong for every image (`record_file`).
    device_hours: wall time times devices, from before the model was built, over all processes.
    peak_bytes: the most memory of any of the run's processes while it ran: allocated on its GPU,
        or resident on a CPU (of schema 1: since that process began).
    joules: of all devices and processes. adapter_bytes: of the tensors of a saved adapter.
    warnings: what failed after the number was there.
    """

    id: _Name
    suite: _Name
    task: _Name
    method: _Name
    backbone: Annotated[str, Meta(pattern=_BACKBONE_NAME)]
    protocol: Line
    variant: Line
    seed: Annotated[int, Meta(ge=0)]
    selected_on: Line
    evaluated_on: Line
    status: Status
    config: dict[str, Any]
    weights: Line
    data: DataSource
    code: CodeState
    versions: dict[str, str]
    device: DeviceInfo
    created: str
    started: str | None = None
    host: Line | None = None
    last: Score | None = None
    best: Score | None = None
    validation: Score | None = None
    history: list[EpochEntry] = []
    classes: list[ClassScore] | None = None
    answers: Annotated[str, Meta(pattern=_DIGEST)] | None = None
    params: ParameterCounts | None = None
    seconds: Seconds | None = None
    device_hours: _NonNegative | None = None
    peak_bytes: _Count | None = None
    joules: _NonNegative | None = None
    adapter_bytes: _Count | None = None
    error: str | None = None
    warnings: list[str] = []
    schema: Literal[2] = SCHEMA

    def __post_init__(self) -> None:
        if self.status != Status.DONE:
            return
        if self.last is None or self.best is None:
            raise ValueError("a run that is done must have a last and a best score.")
        if self.params is None or self.seconds is None:
            raise ValueError("a run that is done must have counted its parameters and seconds.")

    @property
    def curve(self) -> list[Score]:
        """The scores by epoch."""
        return scores_of(self.history)

    @property
    def score(self) -> Score | None:
        """The score that counts under the run's protocol."""
        return self.last if self.selected_on == "last" else self.best

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent of a run that is done."""
        if self.score is None:
            raise ValueError(f"run {self.id} is {self.status}: it has no accuracy.")
        return self.score.accuracy


def hash_identity(facts: Mapping[str, Any]) -> str:
    """Return 12 hex digits that name a run by its content: a sha256 of canonical JSON."""
    canonical = json.dumps(
        facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def check_consistent(record: Record) -> None:
    """Raise ValueError where what a record says cannot be true."""
    for time in (record.created, record.started):
        if time is not None:
            check_timestamp(time)
    check_history(record.history)
    if record.last is None or record.best is None:
        return
    if record.selected_on not in ("last", record.evaluated_on):
        raise ValueError(f"it was scored on {record.evaluated_on}, not on {record.selected_on}.")
    check_scores(record.history, record.last, record.best)
    _check_total(record, record.evaluated_on, record.last.total)
    _check_config(record, record.last.epoch)
    _check_validation(record, record.last.epoch)
    _check_classes(record)


def _check_total(record: Record, split: str, total: int) -> None:
    """Raise ValueError where a run was not scored on all images of a split.

    Data that the user forced may have another number, and so may suites that are not ours.
    """
    allowed = known_split_sizes(record.suite, record.task, split)
    if record.data.forced or allowed is None or total in allowed:
        return
    sizes = " or ".join(map(str, sorted(allowed))) or "none"
    raise ValueError(
        f"it was scored on {total} images of '{split}'; {record.suite}/{record.task} has {sizes}."
    )


def _check_validation(record: Record, last_epoch: int) -> None:
    """Raise ValueError where the score on val is one that no run takes."""
    score = record.validation
    if score is None:
        return
    splits = record.config.get("protocol", {})
    used = f"{splits.get('train')}+{record.evaluated_on}".split("+")
    if "val" in used or score.epoch != last_epoch:
        raise ValueError(f"it says {score} of 'val', after epoch {last_epoch} on {used}.")
    _check_total(record, "val", score.total)


def _check_classes(record: Record) -> None:
    """Raise ValueError unless the results of the classes add up to the score that counts."""
    score = record.score
    if record.classes is None or score is None:
        return
    correct = sum(each.correct for each in record.classes)
    total = sum(each.total for each in record.classes)
    if (correct, total) != (score.correct, score.total):
        raise ValueError(
            f"its classes have {correct} of {total} right; its score is {score.correct} of "
            f"{score.total}."
        )


def _check_config(record: Record, last_epoch: int) -> None:
    """Raise ValueError where the configuration of a run that is done is another run's.

    One that was made by hand may lack keys; what is there must agree.
    """
    config = record.config
    for group in ("data", "method", "augment", "backbone", "protocol", "schedule"):
        if not isinstance(config.get(group, {}), dict):
            raise ValueError(f"config.{group} is {config[group]!r}, no group of settings.")
    # A run that tests a saved adapter does not train, and any other does.
    trains = not config.get("restore")
    if trains and last_epoch < 1:
        raise ValueError("it was scored before it was trained, and tests no saved adapter.")
    told = {
        "epochs": (last_epoch, trained_epochs(config) if trains else 0),
        "seed": (record.seed, config.get("seed")),
        "suite": (record.suite, config.get("data", {}).get("suite")),
        "task": (record.task, config.get("data", {}).get("task")),
        "method": (record.method, config.get("method", {}).get("name")),
    }
    for name, (of_record, of_config) in told.items():
        if of_config is not None and of_config != of_record:
            raise ValueError(f"its {name} is {of_record}; its configuration says {of_config!r}.")


def json_schema() -> str:
    """Return the JSON Schema of a record, as text."""
    return json.dumps(msgspec.json.schema(Record), indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json_schema(), "utf-8")
