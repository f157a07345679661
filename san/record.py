"""Records: one JSON file per run, written atomically. Tables are made from nothing else.

The JSON Schema is `record.schema.json` beside this file; `python -m san.record` writes it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from safetensors import SafetensorError, safe_open

from san.counts import ParameterCounts
from san.errors import InvalidValueError, RecordError
from san.runtime.environment import CodeState, DeviceInfo
from san.runtime.files import check_regular, parse_json, read_json, write_text
from san.score import Score, check_curve
from san.tasks import known_split_sizes

SCHEMA: Literal[1] = 1
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")
_MAX_BYTES = 2**24  # of a record: a score for each of 100,000 epochs takes a third of it
_NonNegative = Annotated[float, Meta(ge=0)]
_BACKBONE_NAME = r"^[\w.-]+(?!\n)$"  # result files are named by it
# A line that a terminal prints as it is; Python's $ alone would let a last newline pass.
_Line = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*(?!\n)$")]
# A part of a path, as well.
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
    build: backbone, weights, method.
    Of an interrupted run: all of `fit`, and the last process's share of the others.
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
    """One run.

    id: a hash of everything that may change the number; equal ids mean the same experiment.
    variant: the settings that depart from the recipe, in words; a row of a table shares them.
    selected_on: where the epoch was chosen (`last` or a split).
    evaluated_on: the split behind `last` and `best`.
    config: the resolved configuration, in the words of schema 1 (`san.renamed_keys`).
    peak_bytes: of the process, or on the GPU. It and joules are None where unknown.
    warnings: what failed after the number was there; the key is left out where nothing did.
    """

    id: _Name
    suite: _Name
    task: _Name
    method: _Name
    backbone: Annotated[str, Meta(pattern=_BACKBONE_NAME)]
    protocol: _Line
    variant: _Line
    seed: Annotated[int, Meta(ge=0)]
    selected_on: _Line
    evaluated_on: _Line
    status: Status
    config: dict[str, Any]
    weights: _Line
    data: DataSource
    code: CodeState
    versions: dict[str, str]
    device: DeviceInfo
    created: str
    last: Score | None = None
    best: Score | None = None
    curve: list[Score] = []
    params: ParameterCounts | None = None
    seconds: Seconds | None = None
    peak_bytes: Annotated[int, Meta(ge=0, lt=2**53)] | None = None
    joules: _NonNegative | None = None
    error: str | None = None
    warnings: list[str] = []
    schema: Literal[1] = SCHEMA

    def __post_init__(self) -> None:
        if self.status != Status.DONE:
            return
        if self.last is None or self.best is None:
            raise ValueError("a run that is done must have a last and a best score.")
        if self.params is None or self.seconds is None:
            raise ValueError("a run that is done must have counted its parameters and seconds.")

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


def record_path(records: Path, suite: str, method: str, task: str, seed: int, key: str) -> Path:
    """Return where a run's record lives. The name is for people.

    Nothing is ever read back out of it.
    """
    return records / suite / method / f"{task}-seed{seed}-{key}.json"


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically: readers see the old file or the complete new one.

    Raises ValueError where it could not be read again.
    """
    write_text(_to_json(record), path)


def _to_json(record: Record) -> str:
    """Return the content of a record's file; raise ValueError where it could not be read again."""
    builtins = msgspec.to_builtins(record)
    if not record.warnings:
        del builtins["warnings"]  # earlier versions do not know the key
    text = json.dumps(builtins, indent=1, allow_nan=False)
    _check_consistent(parse_json(text, Record))
    return text


def check_storable(record: Record) -> None:
    """Raise InvalidValueError unless a record could be read again; call it before training."""
    try:
        _to_json(record)
    except (ValueError, TypeError) as error:
        raise InvalidValueError(f"No record could hold this run: {error}") from error


def read_record(path: Path) -> Record:
    """Read one record.

    Raise RecordError that names the file where it is corrupt or of another schema.
    """
    try:
        raw: Any = read_json(path, limit=_MAX_BYTES)
        version = raw.get("schema") if isinstance(raw, dict) else None
        if version != SCHEMA or isinstance(version, bool):
            raise RecordError(
                f"{path} has schema {version}; {SCHEMA} is allowed. Delete it and run again."
            )
        for key in ("params", "seconds"):
            if raw.get(key) == {}:
                raw[key] = None  # of a failed run of earlier versions
        record = msgspec.convert(raw, Record)
        _check_consistent(record)
    except RecordError:
        raise
    # An OSError is a file that cannot be read, the others are content.
    except (OSError, msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise RecordError(_why_unreadable(path, error)) from error
    return record


def read_record_of_run(path: Path) -> Record:
    """Read the record of the run whose record belongs at `path`.

    Raise RecordError as `read_record` does, and where it is another run's.
    """
    record = read_record(path)
    if not path.stem.endswith(f"-{record.id}"):
        raise RecordError(
            f"{path} holds the record of another run, {record.method} {record.id}. Move it away."
        )
    return record


def _why_unreadable(path: Path, error: Exception) -> str:
    """Return why a file is no record, and what to do."""
    if isinstance(error.__cause__, PermissionError):
        return f"{path} may not be read by you. Ask its owner for `chmod a+r {path}`."
    reason = str(error).removeprefix(f"{path} ").rstrip(".")
    return f"{path} is not a readable record ({reason}). Delete it and run again."


def _check_consistent(record: Record) -> None:
    """Raise ValueError where what a record says of a run that is done cannot be true."""
    if record.last is None or record.best is None:
        return
    if record.selected_on not in ("last", record.evaluated_on):
        raise ValueError(f"it was scored on {record.evaluated_on}, not on {record.selected_on}.")
    check_curve(record.curve, record.last, record.best)
    _check_total(record, record.last.total)
    _check_config(record, record.last.epoch)


def _check_total(record: Record, total: int) -> None:
    """Raise ValueError where a run was not scored on all images of its split.

    Data that the user forced may have another number, and so may suites that are not ours.
    """
    allowed = known_split_sizes(record.suite, record.task, record.evaluated_on)
    if record.data.forced or allowed is None or total in allowed:
        return
    sizes = " or ".join(map(str, sorted(allowed))) or "none"
    raise ValueError(
        f"it was scored on {total} images of '{record.evaluated_on}'; "
        f"{record.suite}/{record.task} has {sizes}."
    )


def _check_config(record: Record, last_epoch: int) -> None:
    """Raise ValueError where the configuration of a run that is done is another run's.

    One that was made by hand may lack keys; what is there must agree.
    """
    config = record.config
    for group in ("data", "method", "augment", "backbone", "protocol"):
        if not isinstance(config.get(group, {}), dict):
            raise ValueError(f"config.{group} is {config[group]!r}, no group of settings.")
    # A run that tests a saved adapter does not train, and any other does.
    trains = not config.get("restore")
    if trains and last_epoch < 1:
        raise ValueError("it was scored before it was trained, and tests no saved adapter.")
    told = {
        "epochs": (last_epoch, config.get("epochs") if trains else 0),
        "seed": (record.seed, config.get("seed")),
        "suite": (record.suite, config.get("data", {}).get("suite")),
        "task": (record.task, config.get("data", {}).get("task")),
        "method": (record.method, config.get("method", {}).get("name")),
    }
    for name, (of_record, of_config) in told.items():
        if of_config is not None and of_config != of_record:
            raise ValueError(f"its {name} is {of_record}; its configuration says {of_config!r}.")


def read_records(folder: Path) -> tuple[list[Record], list[str]]:
    """Read every record below a folder, sorted by path.

    Also return one sentence per file that is not one, and per folder that cannot be read.
    """
    records: list[Record] = []
    problems: list[str] = []
    paths: list[Path] = []

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            problems.append(f"{error.filename} cannot be read ({error.strerror}).")

    walked: set[str] = set()
    # A suite's folder may be a link to a larger disk.
    for parent, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        if os.path.realpath(parent) in walked:
            folders.clear()  # a link leads back to where we were
            continue
        walked.add(os.path.realpath(parent))
        paths += [Path(parent, name) for name in names if name.endswith(".json")]
    for path in sorted(paths):
        try:
            records.append(read_record(path))
        except RecordError as error:
            problems.append(str(error))
    return records, problems


def mtime_ns(path: Path) -> int:
    """Return when a record was written, in nanoseconds of its file system's clock.

    0 where there is none.
    """
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def find_completed(path: Path, needs_adapter: bool = False) -> Record | None:
    """Return the record at `path` if that run is done, else None.

    A corrupt file, or another run's record, counts as not done.
    needs_adapter: the saved adapter has to be beside it, too.
    """
    try:
        record = read_record_of_run(path)
    except RecordError:
        return None
    if record.status != Status.DONE:
        return None
    if needs_adapter and not _is_safetensors(path.with_suffix(".safetensors")):
        return None
    return record


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is one of tensors; `san.restore` checks the rest."""
    try:
        check_regular(path)
        with safe_open(path, framework="numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def json_schema() -> str:
    """Return the JSON Schema of a record, as text."""
    return json.dumps(msgspec.json.schema(Record), indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json_schema(), "utf-8")
