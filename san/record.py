"""Records: one JSON file per run, written atomically. Tables are made from nothing else.

The JSON Schema is `record.schema.json` beside this file; `python -m san.record` writes it.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from san.counts import ParameterCounts
from san.errors import FileAccessError, RecordError
from san.runtime.environment import CodeState, DeviceInfo
from san.runtime.files import write_text
from san.score import Score

SCHEMA: Literal[1] = 1
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")
_BACKBONE_NAME = r"^[\w.-]+$"  # result files are named by it


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

    fit: float | None = None
    evaluate: float | None = None
    step: float | None = None
    build: float | None = None


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
    """

    id: str
    suite: str
    task: str
    method: str
    backbone: Annotated[str, Meta(pattern=_BACKBONE_NAME)]
    protocol: str
    variant: str
    seed: Annotated[int, Meta(ge=0)]
    selected_on: str
    evaluated_on: str
    status: Status
    config: dict[str, Any]
    weights: str
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
    peak_bytes: int | None = None
    joules: float | None = None
    error: str | None = None
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


def first_line_of_error(trace: str) -> str:
    """Return the line of a recorded trace that says what went wrong.

    It stands below the last frame; a message of several lines goes on behind it.
    """
    lines = trace.strip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    below = lines[frames[-1] + 1 :] if frames else lines
    said = [line for line in below if line.strip() and not line.startswith(" ")]
    return said[0] if said else "no reason recorded"


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
    builtins = msgspec.to_builtins(record)
    msgspec.convert(builtins, Record)
    write_text(json.dumps(builtins, indent=1, allow_nan=False), path)


def check_writable(path: Path) -> None:
    """Raise FileAccessError unless a record can be written to `path`; call it before training."""
    if path.is_dir():
        raise FileAccessError(
            f"{path} is a directory; a record belongs there. "
            "Remove it, or give results_dir=DIRECTORY."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise FileAccessError(
            f"{path.parent} cannot be written ({error.strerror}). "
            "Give results_dir=DIRECTORY that can."
        ) from error


def read_record(path: Path) -> Record:
    """Read one record.

    Raise RecordError that names the file where it is corrupt or of another schema.
    """
    try:
        raw = json.loads(path.read_text())
        version = raw.get("schema") if isinstance(raw, dict) else None
    except (OSError, ValueError, RecursionError) as error:
        raise _not_readable(path, error) from error
    if version != SCHEMA or isinstance(version, bool):
        raise RecordError(
            f"{path} has schema {version}; {SCHEMA} is allowed. Delete it and run again."
        )
    for key in ("params", "seconds"):
        raw[key] = raw.get(key) or None  # {} of a failed run means None
    try:
        return msgspec.convert(raw, Record)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _not_readable(path, error) from error


def _not_readable(path: Path, error: Exception) -> RecordError:
    return RecordError(f"{path} is not a readable record ({error}). Delete it and run again.")


def read_records(folder: Path) -> tuple[list[Record], list[str]]:
    """Read every record below a folder, sorted by path.

    Also return one sentence per file that is not one.
    """
    records: list[Record] = []
    problems: list[str] = []
    for path in sorted(folder.rglob("*.json")):
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

    A corrupt file counts as not done.
    needs_adapter: the saved adapter has to be beside it, too.
    """
    try:
        record = read_record(path)
    except RecordError:
        return None
    has_adapter = path.with_suffix(".safetensors").exists()
    if record.status != Status.DONE or (needs_adapter and not has_adapter):
        return None
    return record


def json_schema() -> str:
    """Return the JSON Schema of a record, as text."""
    return json.dumps(msgspec.json.schema(Record), indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json_schema())
