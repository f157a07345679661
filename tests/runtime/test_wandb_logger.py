"""The tracker never asks, never stalls a run and never fails one."""

import logging
import struct
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import composed

from san.runtime import wandb_logger
from san.runtime.wandb_logger import NoLogger, WandbLogger, open_logger, wandb_mode


class Session:
    offline = False

    def __init__(self, broken: str = "") -> None:
        self.broken, self.logged, self.summary, self.ended = broken, [], {}, None

    def log(self, values: dict[str, float], step: int) -> None:
        if self.broken == "raises":
            raise ConnectionError("the server is gone")
        if self.broken == "hangs":
            time.sleep(60)
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.ended = exit_code


def test_values_arrive_in_order(tmp_path: Path) -> None:
    session, given = Session(), {}

    def start(**run: Any) -> Session:
        given.update(run)
        return session

    t = WandbLogger(start, tmp_path / "w", id="abc")
    t.log({"loss": 1.0}, 1)
    t.log({"loss": 0.5}, 2)
    t.finish({"accuracy": 90.0})
    assert session.logged == [(1, {"loss": 1.0}), (2, {"loss": 0.5})]
    assert session.summary == {"accuracy": 90.0}
    assert session.ended == 0
    assert given["id"] == "abc"
    assert given["resume"] == "allow"


@pytest.mark.parametrize("broken", ["raises", "hangs", "start"])
def test_a_broken_tracker_is_survived(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb_logger, "FINISH_TIMEOUT_S", 0.2)

    def start(**_: Any) -> Session:
        if broken == "start":
            raise RuntimeError("no service")
        return Session(broken)

    begin = time.monotonic()
    with caplog.at_level(logging.WARNING):
        t = WandbLogger(start, tmp_path)
        t.log({"loss": 1.0}, 1)
        t.finish({})
    assert time.monotonic() - begin < 5
    assert "the run goes on without it" in caplog.text


def test_mode_never_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


def test_names() -> None:
    assert isinstance(open_logger("none", {}, "k", "g", "j"), NoLogger)
    with pytest.raises(LookupError, match="Unknown logger 'wand'. Did you mean wandb"):
        open_logger("wand", {}, "k", "g", "j")


def test_an_offline_run_can_be_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = composed() | {"results": str(tmp_path)}
    with caplog.at_level(logging.INFO):
        t = open_logger("wandb", config, "0123456789ab", "demo", "san")
        t.log({"eval/accuracy": 91.25}, 3)
        t.finish({"accuracy": 91.25})
    runs = list((tmp_path / "wandb").glob("offline-run-*-0123456789ab"))
    assert len(runs) == 1
    assert f"wandb sync {runs[0]}" in caplog.text
    log = (runs[0] / "run-0123456789ab.wandb").read_bytes()
    assert b"eval/accuracy" in log
    assert b"91.25" in log
    assert b"0123456789ab" in log


def test_a_resumed_run_continues_its_own_and_keeps_adapter_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is read back out of the offline folders record by record."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = composed() | {"results": str(tmp_path)}
    (tmp_path / "adapter.safetensors").write_bytes(b"adapter")
    for step in (1, 2):
        t = open_logger("wandb", config, "0123456789ab", "demo", "san")
        t.log({"train/loss": 1 / step}, step)
        if step == 2:
            t.keep(tmp_path / "adapter.safetensors", "0123456789ab")
            t.tables({"cells": pd.DataFrame({"task": ["digits"], "mean": [91.25]})})
        t.finish({"accuracy": 90.0 + step})
        time.sleep(1.1)  # W&B names folders by seconds
    runs = sorted((tmp_path / "wandb").glob("offline-run-*-0123456789ab"))
    assert len(runs) == 2
    told = [read_back(run / "run-0123456789ab.wandb") for run in runs]
    for records in told:
        (run,) = (r.run for r in records if r.WhichOneof("record_type") == "run")
        assert (run.run_id, run.run_group, run.job_type) == ("0123456789ab", "demo", "san")
        assert {item.key for item in run.config.update} >= {"method", "data", "epochs"}
    history = [
        {item.key or item.nested_key[0]: item.value_json for item in r.history.item}
        for r in told[1]
        if r.WhichOneof("record_type") == "history"
    ]
    assert any(line.get("train/loss") == "0.5" for line in history)
    kept = [r.request.log_artifact.artifact for r in told[1] if r.request.HasField("log_artifact")]
    kept += [r.artifact for r in told[1] if r.WhichOneof("record_type") == "artifact"]
    assert "adapter-0123456789ab" in {artifact.name for artifact in kept}
    assert any("cells" in line for line in history)


def read_back(path: Path) -> list[Any]:
    """Every record of an offline run: LevelDB's log format (blocks of 32 KiB; crc, length, kind) after a head of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    log, at, part, records = path.read_bytes(), 7, b"", []
    while at + 7 <= len(log):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", log[at : at + 7])
        part += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found = wandb_internal_pb2.Record()
            found.ParseFromString(part)
            records.append(found)
            part = b""
    return records
