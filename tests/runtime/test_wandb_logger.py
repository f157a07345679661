"""The logger never prompts, never stalls a run and never fails one."""

import json
import logging
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import resolved
from interrupted import EPOCHS_KNOWN, WORDS, record_file_of, starts

from san.record_file import read_record
from san.runtime import wandb_logger
from san.runtime.wandb_logger import WandbLogger, open_wandb, wandb_mode

RUN_ID = "0123456789ab"
CONFIG = {"method": {"name": "san", "neurons": False}, "data": {"suite": "demo"}, "epochs": 3}


class FakeRun:
    """A stand-in for `wandb.Run`; `broken` is how it fails."""

    offline = False

    def __init__(self, broken: str = "", starting_step: int = 0) -> None:
        self.broken = broken
        self.starting_step = starting_step
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


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of W&B but that it is offline."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def open_offline(tmp_path: Path) -> Callable[[], WandbLogger]:
    name = "digits san [lr=0.1] seed 0"
    tags = ("demo", "digits")
    return lambda: open_wandb(tmp_path, RUN_ID, name, "demo", "san", CONFIG, tags)


def offline_folders(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize("failed", [False, True])
def test_values_arrive_in_order(failed: bool, tmp_path: Path) -> None:
    run = FakeRun()
    settings: dict[str, Any] = {}

    def init(**given: Any) -> FakeRun:
        settings.update(given)
        return run

    logger = WandbLogger(init, tmp_path / "w", "abc", group="g")
    logger.log({"loss": 1.0}, 1)
    logger.log({"loss": 0.5}, 2)
    logger.finish({"accuracy": 90.0}, failed=failed)
    assert run.logged == [(1, {"loss": 1.0}), (2, {"loss": 0.5})]
    assert run.summary == {"accuracy": 90.0}
    assert run.exit_code == failed
    folder = str(tmp_path / "w")
    assert settings == {"id": "abc", "resume": "allow", "dir": folder, "group": "g"}


def test_a_run_that_the_server_continues_is_not_told_twice(tmp_path: Path) -> None:
    run = FakeRun(starting_step=3)
    logger = WandbLogger(lambda **_: run, tmp_path, "abc")
    for epoch in (1, 2, 3, 4):
        logger.log({"loss": 1.0 / epoch}, epoch)
    logger.finish({})
    assert [step for step, _ in run.logged] == [3, 4]


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
        logger = WandbLogger(init, tmp_path, "abc")
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


# What the environment says in place of what the suite would; tags are in addition.
ENVIRONMENT = [
    ("WANDB_PROJECT", "project", "theirs"),
    ("WANDB_NAME", "name", "theirs"),
    ("WANDB_RUN_GROUP", "group", "theirs"),
    ("WANDB_JOB_TYPE", "job_type", "theirs"),
    ("WANDB_DIR", "dir", "theirs"),
    ("WANDB_TAGS", "tags", ["demo", "theirs", "x" * 64]),
]


@pytest.mark.parametrize(("variable", "setting", "theirs"), ENVIRONMENT)
def test_what_the_environment_says_is_heeded(
    variable: str, setting: str, theirs: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usual = settings_of(monkeypatch, None)
    monkeypatch.setenv(variable, "")
    assert settings_of(monkeypatch, None) == usual
    value = f"theirs, demo,,{'x' * 70}" if setting == "tags" else "theirs"
    monkeypatch.setenv(variable, value)
    assert settings_of(monkeypatch, None) == usual | {setting: theirs}
    typed = settings_of(monkeypatch, "typed")
    assert typed["project"] == "typed"
    assert usual["project"] == "san"


def settings_of(monkeypatch: pytest.MonkeyPatch, project: str | None) -> dict[str, Any]:
    """What wandb.init is given."""
    settings: dict[str, Any] = {}

    def init(**given: Any) -> FakeRun:
        settings.update(given)
        return FakeRun()

    monkeypatch.setattr(wandb_logger, "_init_wandb", init)
    open_wandb(Path("ours"), RUN_ID, "n", "demo", "san", {}, ["demo", "demo"], project).finish({})
    return settings


def test_an_offline_run_can_be_read_back(
    open_offline: Callable[[], WandbLogger], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        logger = open_offline()
        logger.log({"eval/accuracy": 91.25}, 3)
        logger.finish({"accuracy": 91.25})
    (folder,) = offline_folders(tmp_path)
    assert f"wandb sync {folder}" in caplog.text
    records = complete_records(folder)
    assert {"eval/accuracy": "91.25"}.items() <= history(records)[0].items()
    run = run_of(records)
    assert (run.display_name, run.project) == ("digits san [lr=0.1] seed 0", "san")
    assert list(run.tags) == ["demo", "digits"]


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
    resumed.log_tables({"cells": pd.DataFrame({"task": ["digits"], "mean": [91.25]})})
    resumed.keep_adapter(adapter)
    resumed.finish({"accuracy": 92.0})

    folders = offline_folders(tmp_path)
    assert len(folders) == 2
    written = [complete_records(folder) for folder in folders]
    for records in written:
        run = run_of(records)
        assert (run.run_id, run.run_group, run.job_type) == (RUN_ID, "demo", "san")
        assert {item.key for item in run.config.update} >= {"method", "data", "epochs"}
    points = history(written[1])
    assert any(point.get("train/loss") == "0.5" for point in points)
    assert any("cells" in point for point in points)
    assert f"adapter-{RUN_ID}" in {artifact.name for artifact in artifacts(written[1])}


def test_the_last_folder_of_an_interrupted_run_has_the_whole_run(
    tmp_path: Path,
    data_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """W&B keeps what is synced last of an id: it must have every epoch, each once."""
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    places = (f"results_dir={tmp_path}", f"data_root={data_root}")
    config = resolved(*WORDS, "logger.project=typed", *places)
    caplog.set_level(logging.INFO)
    for _ in starts(config, monkeypatch):
        time.sleep(1.1)  # W&B names folders by seconds
    record = read_record(record_file_of(tmp_path))
    folders = offline_folders(tmp_path)
    written = [complete_records(folder) for folder in folders]
    for records in written:
        run = run_of(records)
        assert (run.run_id, run.project) == (record.id, "typed")
        assert run.display_name == "digits linear [epochs=4 protocol.train=val] seed 0"
        assert run.run_group == "demo"
        assert list(run.tags) == ["demo", "digits", "linear", "vit_nano", "last_epoch"]
    steps = [[int(point["_step"]) for point in history(records)] for records in written]
    assert steps == list(EPOCHS_KNOWN)
    assert f"wandb sync {folders[2]} (it has everything; syncing 2 older folders" in caplog.text

    for point, entry in zip(history(written[2]), record.history, strict=True):
        expected = {"train/loss": entry.train_loss}
        if entry.score is not None:
            expected |= {"eval/accuracy": entry.score.accuracy, "eval/loss": entry.score.loss}
        curves = {name: json.loads(text) for name, text in point.items() if name[0] != "_"}
        assert curves == expected
    assert summary(written[0])["status"] == '"interrupted"'
    found = summary(written[2])
    assert found["status"] == '"done"'
    assert json.loads(found["accuracy"]) == record.accuracy
    own = {"status", "accuracy"}
    for group, values in (("params", record.params), ("seconds", record.seconds)):
        for name in values.__struct_fields__:
            own.add(f"{group}/{name}")
            assert json.loads(found[f"{group}/{name}"]) == getattr(values, name)
    assert len(own) == 2 + 6 + 4
    curves = {"train/loss", "eval/accuracy", "eval/loss"}
    assert {name for name in found if name[0] != "_"} == own | curves


def run_of(records: list[Any]) -> Any:
    """Return what a folder says of its run."""
    (run,) = (r.run for r in records if r.WhichOneof("record_type") == "run")
    return run


def summary(records: list[Any]) -> dict[str, str]:
    """Return the summary: JSON values by name."""
    found = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                found[item.key or "/".join(item.nested_key)] = item.value_json
    return found


def complete_records(folder: Path) -> list[Any]:
    """Return the records of an offline run; W&B may write them after `finish`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        (file,) = folder.glob("run-*.wandb")
        records = list(read_back(file))
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
