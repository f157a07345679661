"""Files of records: one JSON file per run, and beside it the answers; written atomically.

    <task>-seed<seed>-<id>.json       the record, see `san.record`
    <task>-seed<seed>-<id>.answers    right (1) or wrong (0) for every image of the evaluated
                                      split, in its order, of the score that counts: bits
    <task>-seed<seed>-<id>.csv        the curves, with logger=csv

The record holds a digest of its answers. They are written first: a record whose answers are
missing or another run's is as complete as one that never had any.
"""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError, safe_open

from san.answers import Answers, pack_answers, unpack_answers
from san.data.manifest import sha256_16
from san.errors import InvalidValueError, RecordError, SanError
from san.record import SCHEMA, Record, Status, check_consistent
from san.runtime.files import (
    check_regular,
    parse_json,
    read_bytes,
    read_json,
    write_bytes,
    write_text,
)
from san.score import Score

_MAX_BYTES = 2**26  # of a record: a history of 100,000 epochs takes a third of it
_REQUIRED = {field.name for field in msgspec.structs.fields(Record) if field.required}
_SINCE_SCHEMA_2 = {
    "adapter_bytes",
    "answers",
    "classes",
    "device_hours",
    "history",
    "host",
    "started",
    "validation",
}


def record_path(records: Path, suite: str, method: str, task: str, seed: int, key: str) -> Path:
    """Return where a run's record lives. The name is for people.

    Nothing is ever read back out of it.
    """
    return records / suite / method / f"{task}-seed{seed}-{key}.json"


def answers_path(record: Path) -> Path:
    """Return where the answers of a run are, by the path of its record."""
    return record.with_suffix(".answers")


def curves_path(record: Path) -> Path:
    """Return where the curves of a run are, with logger=csv, by the path of its record."""
    return record.with_suffix(".csv")


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically: readers see the old file or the complete new one.

    Raises ValueError where it could not be read again.
    """
    write_text(_to_json(record), path)


def _to_json(record: Record) -> str:
    """Return the content of a record's file; raise ValueError where it could not be read again."""
    fields: dict[str, Any] = msgspec.to_builtins(record)
    lines = [f' "{name}": {_dump(value)}' for name, value in fields.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    check_consistent(parse_json(text, Record))
    return text


def _dump(value: Any) -> str:
    """Return the JSON of a field, indented; of a list, such as the history, an entry a line."""
    if not isinstance(value, list) or not value:
        return json.dumps(value, indent=1, allow_nan=False).replace("\n", "\n ")
    entries = [json.dumps(entry, allow_nan=False) for entry in value]
    return "[\n  " + ",\n  ".join(entries) + "\n ]"


def check_storable(record: Record) -> None:
    """Raise InvalidValueError unless a record could be read again; call it before training."""
    try:
        _to_json(record)
    except (ValueError, TypeError) as error:
        raise InvalidValueError(f"No record could hold this run: {error}") from error


def read_record(path: Path) -> Record:
    """Read one record, of this schema or of an earlier one.

    Raise RecordError that names the file, and says what to do, where it is none, or damaged.
    """
    raw: Any = None
    try:
        raw = read_json(path, limit=_MAX_BYTES)
        record = msgspec.convert(_migrate(raw), Record)
        check_consistent(record)
    # An OSError is a file that cannot be read, the others are content.
    except (OSError, msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise RecordError(_why_unreadable(path, raw, error)) from error
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


def _migrate(raw: Any) -> Any:
    """Return the content of a record in the words of this schema.

    Raises ValueError where it is of none that is known.
    """
    version = raw.get("schema") if isinstance(raw, dict) else None
    if type(version) is not int or not 1 <= version <= SCHEMA:
        raise ValueError(f"it has schema {version}; 1 to {SCHEMA} are allowed")
    return _from_schema_1(raw) if version == 1 else raw


def _from_schema_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a record of schema 1, which kept the scores alone, as one of this schema."""
    unknown = sorted(_SINCE_SCHEMA_2 & raw.keys())
    if unknown:
        raise ValueError(f"it is of schema 1, which has no {unknown[0]}")
    migrated = {key: value for key, value in raw.items() if key != "curve"}
    curve = msgspec.convert(raw.get("curve", []), list[Score])
    migrated["history"] = [
        {"epoch": score.epoch, "score": msgspec.to_builtins(score)} for score in curve
    ]
    for key in ("params", "seconds"):
        if raw.get(key) == {}:
            migrated[key] = None  # of a failed run of the earliest versions
    migrated["schema"] = SCHEMA
    return migrated


def _why_unreadable(path: Path, raw: Any, error: Exception) -> str:
    """Return why a file is no record, and what to do.

    raw: its content, None where it is not JSON. Only what has all that a record has is ours to
    delete, and a record of a later version is not.
    """
    if isinstance(error.__cause__, PermissionError):
        return f"{path} may not be read by you. Ask its owner for `chmod a+r {path}`."
    reason = str(error).removeprefix(f"{path} ").rstrip(".")
    if not isinstance(raw, dict) or not raw.keys() >= _REQUIRED:
        return f"{path} is not a record of this suite ({reason}). Move it away."
    version = raw.get("schema")
    if type(version) is int and version > SCHEMA:
        return f"{path} is a record of a later version of san ({reason}). Update san-peft."
    return f"{path} is not a readable record ({reason}). Delete it and run again."


def write_answers(answers: Answers, path: Path) -> str:
    """Write answers atomically; return the digest that their record holds."""
    packed = pack_answers(answers)
    write_bytes(packed, path)
    return sha256_16(packed)


def read_answers(record: Record, path: Path) -> Answers:
    """Return whether each image was answered right, bool `(total,)`, in the order of the split.

    path: of the answers, see `answers_path`. Raises RecordError, which says why, where the record
    has none, or the file does not hold them.
    """
    score = record.score
    if record.answers is None or score is None:
        raise RecordError(f"{path} is of no use: the record of run {record.id} has no answers.")
    try:
        packed = read_bytes(path, limit=max(score.total, 2**16))
        answers = unpack_answers(packed, score)
        if sha256_16(packed) != record.answers:
            raise ValueError("they are not those that were recorded")
    except (SanError, ValueError) as error:
        reason = str(error).removeprefix(f"{path} ").rstrip(".")
        raise RecordError(
            f"{path} does not hold the answers of run {record.id} ({reason}). "
            "Run it again with force=true."
        ) from error
    return answers


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

    A corrupt file, or another run's record, counts as not done. Answers are not asked for.
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
