"""The logger never prompts, never stalls a run and never fails one."""

import logging
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from san.errors import UnknownNameError
from san.runtime import wandb_logger
from san.runtime.wandb_logger import NoLogger, WandbLogger, open_logger, wandb_mode

RUN_ID = "0123456789ab"
CONFIG = {"method": {"name": "san", "neurons": False}, "data": {"suite": "demo"}, "epochs": 3}


class FakeRun:
    """A stand-in for `wandb.Run`; `broken` is how it fails."""

    offline = False

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, object] = {}
        self.exit_code: int | None = None

    def log(self, values: dict[str, float], step: int) -> None:
        if self.broken == "raises":
            raise ConnectionError("the server is gone")
        if self.broken == "hangs":
            time.sleep(60)
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def open_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], WandbLogger | NoLogger]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return lambda: open_logger("wandb", tmp_path, CONFIG, RUN_ID, "demo", "san")


def offline_folders(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob(f"offline-run-*-{RUN_ID}"))


@pytest.mark.parametrize("failed", [False, True])
def test_values_arrive_in_order(failed: bool, tmp_path: Path) -> None:
    run = FakeRun()
    settings: dict[str, Any] = {}

    def init(**given: Any) -> FakeRun:
        settings.update(given)
        return run

    logger = WandbLogger(init, tmp_path / "w", id="abc")
    logger.log({"loss": 1.0}, 1)
    logger.log({"loss": 0.5}, 2)
    logger.finish({"accuracy": 90.0}, failed=failed)
    assert run.logged == [(1, {"loss": 1.0}), (2, {"loss": 0.5})]
    assert run.summary == {"accuracy": 90.0}
    assert run.exit_code == failed
    assert settings == {"id": "abc", "resume": "allow", "dir": str(tmp_path / "w")}


@pytest.mark.parametrize("broken", ["raises", "hangs", "init"])
def test_a_broken_wandb_is_survived(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb_logger, "FINISH_TIMEOUT_S", 0.2)

    def init(**_: Any) -> FakeRun:
        if broken == "init":
            raise RuntimeError("no service")
        return FakeRun(broken)

    begin = time.monotonic()
    with caplog.at_level(logging.WARNING):
        logger = WandbLogger(init, tmp_path)
        logger.log({"loss": 1.0}, 1)
        logger.finish({})
    assert time.monotonic() - begin < 5
    assert "the run goes on without it" in caplog.text


def test_mode_never_prompts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode() == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password not-a-real-key\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "not-a-real-key")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


def test_names(tmp_path: Path) -> None:
    assert isinstance(open_logger("none", tmp_path, {}, "id", "group", "job"), NoLogger)
    with pytest.raises(UnknownNameError, match="Unknown logger 'wand'. Did you mean wandb"):
        open_logger("wand", tmp_path, {}, "id", "group", "job")


def test_both_loggers_offer_the_same() -> None:
    def face(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert face(NoLogger) == face(WandbLogger)
    assert len(face(NoLogger)) == 4


def test_an_offline_run_can_be_read_back(
    open_offline: Callable[[], WandbLogger], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        logger = open_offline()
        logger.log({"eval/accuracy": 91.25}, 3)
        logger.finish({"accuracy": 91.25})
    (folder,) = offline_folders(tmp_path)
    assert f"wandb sync {folder}" in caplog.text
    assert {"eval/accuracy": "91.25"}.items() <= history(complete_records(folder))[0].items()


def test_a_resumed_run_continues_its_own_and_keeps_adapter_and_tables(
    open_offline: Callable[[], WandbLogger], tmp_path: Path
) -> None:
    """Everything is read back from the offline folders, record by record."""
    adapter = tmp_path / "adapter.safetensors"
    adapter.write_bytes(b"adapter")
    first = open_offline()
    first.log({"train/loss": 1.0}, 1)
    first.finish({"accuracy": 91.0})
    time.sleep(1.1)  # W&B names folders by seconds
    resumed = open_offline()
    resumed.log({"train/loss": 0.5}, 2)
    resumed.log_artifact(adapter, RUN_ID)
    resumed.log_tables({"cells": pd.DataFrame({"task": ["digits"], "mean": [91.25]})})
    resumed.finish({"accuracy": 92.0})

    folders = offline_folders(tmp_path)
    assert len(folders) == 2
    written = [complete_records(folder) for folder in folders]
    for records in written:
        (run,) = (r.run for r in records if r.WhichOneof("record_type") == "run")
        assert (run.run_id, run.run_group, run.job_type) == (RUN_ID, "demo", "san")
        assert {item.key for item in run.config.update} >= {"method", "data", "epochs"}
    points = history(written[1])
    assert any(point.get("train/loss") == "0.5" for point in points)
    assert any("cells" in point for point in points)
    assert f"adapter-{RUN_ID}" in {artifact.name for artifact in artifacts(written[1])}


def complete_records(folder: Path) -> list[Any]:
    """Return the records of an offline run; W&B may write them after `finish`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        records = list(read_back(folder / f"run-{RUN_ID}.wandb"))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{folder} is incomplete")


def history(records: list[Any]) -> list[dict[str, str]]:
    """Return the points of the curves: JSON values by name."""
    points = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            points.append({item.key or item.nested_key[0]: item.value_json for item in items})
    return points


def artifacts(records: list[Any]) -> Iterator[Any]:
    for record in records:
        if record.WhichOneof("record_type") == "artifact":
            yield record.artifact
        elif record.request.HasField("log_artifact"):
            yield record.request.log_artifact.artifact


BLOCK = 32 * 1024
CHUNK_HEADER = 7  # checksum (4 bytes), length (2), kind (1)


def read_back(path: Path) -> Iterator[Any]:
    """Yield the records of an offline run: LevelDB's log format after a file header of 7 bytes.

    The file is cut into blocks, a record into chunks, none of which crosses the end of a block.
    """
    from wandb.proto import wandb_internal_pb2

    content = path.read_bytes()
    position = 7
    data = b""
    while position + CHUNK_HEADER <= len(content):
        left_in_block = BLOCK - position % BLOCK
        if left_in_block < CHUNK_HEADER:
            position += left_in_block
            continue
        header = content[position : position + CHUNK_HEADER]
        _, length, kind = struct.unpack("<IHB", header)
        position += CHUNK_HEADER
        if position + length > len(content):
            return
        data += content[position : position + length]
        position += length
        if kind in (1, 4):  # a full record, or its last chunk
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield record
            data = b""
