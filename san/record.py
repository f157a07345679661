"""Records: one JSON per run, whole or not there. Tables are made from nothing else."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from san.errors import RecordError

SCHEMA = 1
NAME = re.compile(r"[\w.-]+")
TEXTS = (
    "id",
    "suite",
    "task",
    "method",
    "backbone",
    "protocol",
    "variant",
    "selected_on",
    "evaluated_on",
    "weights",
    "created",
)
STATUSES = ("done", "failed", "oom")


@dataclass(frozen=True)
class Point:
    """The score on the evaluated split after an epoch."""

    epoch: int
    correct: int
    total: int

    def __post_init__(self) -> None:
        if not (
            all(type(v) is int for v in (self.epoch, self.correct, self.total))
            and 0 <= self.correct <= self.total > 0
        ):
            raise ValueError(
                f"impossible score: {self.correct!r} of {self.total!r} after epoch {self.epoch!r}."
            )

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct / self.total


@dataclass(frozen=True)
class Record:
    """One run. `id` hashes everything that may change the number; equal ids mean the same experiment.

    variant: the settings that depart from the recipe, as given, in words; runs of one row of a table share it.
    selected_on: where the epoch was chosen (`last` or a split); evaluated_on: the split behind `last` and `best`.
    params: the method's counts. seconds: `build` (backbone, weights, method), `fit`, `step` (mean), `evaluate`; of
    a run that was interrupted, all of `fit` and what came last of the others.
    peak_bytes: of the process, or on the GPU; it and joules are None where unknown.
    """

    id: str
    suite: str
    task: str
    method: str
    backbone: str
    protocol: str
    variant: str
    seed: int
    selected_on: str
    evaluated_on: str
    status: str
    config: dict[str, Any]
    weights: str
    data: dict[str, str]
    code: dict[str, Any]
    versions: dict[str, str]
    device: dict[str, Any]
    created: str
    last: Point | None = None
    best: Point | None = None
    curve: list[Point] = field(default_factory=list)
    params: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: int | None = None
    joules: float | None = None
    error: str | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status is '{self.status}'; allowed: {', '.join(STATUSES)}.")
        for name in TEXTS:
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}; text is allowed.")
        for name in ("config", "data", "code", "versions", "device", "params", "seconds"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; names with values are allowed."
                )
        if not all(isinstance(value, str) for value in self.data.values()):
            raise ValueError(f"data is {self.data!r}; texts are allowed.")
        if not NAME.fullmatch(self.backbone):  # files are named by it
            raise ValueError(
                f"backbone is {self.backbone!r}; letters, digits, dots, dashes and underscores are allowed."
            )
        if type(self.seed) is not int or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}; a whole number is allowed.")
        if self.error is not None and not isinstance(self.error, str):
            raise ValueError(f"error is {self.error!r}; text is allowed.")
        if self.status != "done":
            return
        if self.last is None or self.best is None:
            raise ValueError("a run that is done must have a last and a best point.")
        if any(not isinstance(self.params.get(key), int) for key in ("trainable", "head")):
            raise ValueError("a run that is done must have counted its parameters.")

    @property
    def point(self) -> Point | None:
        """The point that counts under the run's protocol."""
        return self.last if self.selected_on == "last" else self.best

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent of a run that is done."""
        if self.point is None:
            raise ValueError(f"run {self.id} is {self.status}: it has no accuracy.")
        return self.point.accuracy


def hash_identity(facts: Mapping[str, Any]) -> str:
    """Return 12 hex digits that name a run by its content: a sha256 over `facts` as canonical JSON."""
    canonical = json.dumps(
        facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def record_path(folder: Path, suite: str, method: str, task: str, seed: int, key: str) -> Path:
    """Return where a run's record lives. The name is for people; nothing is ever read back out of it."""
    return folder / suite / method / f"{task}-seed{seed}-{key}.json"


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(record), file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        Path(unfinished).chmod(0o644)
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise OSError in words unless a record can be written to `path`; better now than after an hour of training."""
    if path.is_dir():
        raise OSError(
            f"{path} is a folder; a record is to be there. Remove it, or give results=FOLDER."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(
            f"{path.parent} cannot be written ({error.strerror}). Give results=FOLDER that can."
        ) from error


def read_record(path: Path) -> Record:
    """Read one record; raise RecordError that names the file where it is corrupt or of another schema."""
    try:
        raw = json.loads(path.read_text())
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA or raw["schema"] is True:
            version = raw.get("schema") if isinstance(raw, dict) else None
            raise RecordError(
                f"{path} has schema {version}; {SCHEMA} is allowed. Delete it and run again."
            )
        unknown = raw.keys() - {f.name for f in fields(Record)}
        if unknown:
            raise RecordError(
                f"{path} has unknown fields {', '.join(sorted(unknown))}. Delete it and run again."
            )
        for name in ("last", "best"):
            raw[name] = Point(**raw[name]) if raw.get(name) is not None else None
        raw["curve"] = [Point(**point) for point in raw["curve"]]
        return Record(**raw)
    except RecordError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RecordError(
            f"{path} is not a readable record ({error}). Delete it and run again."
        ) from error


def read_records(folder: Path) -> tuple[list[Record], list[str]]:
    """Read every record below a folder, sorted by path; also return one sentence per file that is none."""
    records, problems = [], []
    for path in sorted(folder.rglob("*.json")):
        try:
            records.append(read_record(path))
        except RecordError as error:
            problems.append(str(error))
    return records, problems


def mtime_ns(path: Path) -> int:
    """Return when a record was written, in nanoseconds of its file system's clock; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def find_completed(path: Path, adapter: bool = False) -> Record | None:
    """Return the record at `path` if that run is done, else None; a corrupt file counts as not done.

    adapter: what trained has to be beside it, too.
    """
    try:
        record = read_record(path)
    except RecordError:
        return None
    return (
        record
        if record.status == "done" and (not adapter or path.with_suffix(".safetensors").exists())
        else None
    )
