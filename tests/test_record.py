"""Records: identity, round trip, corrupt files."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import a_record, composed

from san import record
from san.errors import RecordError
from san.experiment import from_config
from san.record import Record


def identity(data_root: Path, *overrides: str) -> str:
    return from_config(composed(f"data_root={data_root}", *overrides)).identity


def test_identity_is_the_content(data_root: Path) -> None:
    base = identity(data_root)
    same = [
        ["results_dir=elsewhere"],
        ["logger=none"],
        ["device=cpu"],
        ["force=true"],
        ["lr=0.01"],
        ["precision=fp32"],
        ["label_smoothing=0"],
    ]
    other = [
        ["lr=0.001"], ["seed=1"], ["epochs=3"], ["batch_size=10"], ["method=ssf"],
        ["method.train_norms=false"],
        ["data=demo/count"], ["data.resize=bicubic"], ["data.normalize=none"],
        ["protocol=tune"], ["protocol=best_test"],
        ["backbone.weights=random"], ["label_smoothing=0.1"], ["precision=bf16"],
        ["optimizer=sgd"], ["weight_decay=0"],
    ]  # fmt: skip
    assert [identity(data_root, *o) for o in same] == [base] * len(same)
    keys = [identity(data_root, *o) for o in other]
    assert len({base, *keys}) == 1 + len(other)


def stored(**changes: Any) -> Record:
    """A record of a suite that is gone: how many images its splits have is not known."""
    return a_record(suite="gone", **changes)


def test_round_trip_is_exact_and_atomic(tmp_path: Path) -> None:
    path = record.record_path(tmp_path, "demo", "san", "digits", 0, "0123456789ab")
    assert record.find_completed(path) is None
    record.write_record(stored(), path)
    assert record.read_record(path) == stored()
    assert record.find_completed(path) == stored()
    assert list(path.parent.iterdir()) == [path]
    assert stored().accuracy == 90.0
    assert stored(selected_on="test").accuracy == 91.0


def test_a_write_that_fails_leaves_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    record.write_record(stored(), path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        record.write_record(stored(seed=7), path)
    assert record.read_record(path) == stored()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a readable record"),
        ('{"schema": 1', "is not a readable record"),
        ("[]", "has schema None; 1 is allowed"),
        ('{"schema": 99}', "has schema 99; 1 is allowed"),
        ('{"schema": 1, "id": "x"}', "is not a readable record"),
        ('{"schema": 1, "surprise": 1}', "unknown field"),
    ],
)
def test_corrupt_records_are_named_and_the_rest_is_read(
    text: str, message: str, tmp_path: Path
) -> None:
    record.write_record(stored(), tmp_path / "good.json")
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        record.read_record(tmp_path / "bad.json")
    records, problems = record.read_records(tmp_path)
    assert records == [stored()]
    assert len(problems) == 1
    assert "bad.json" in problems[0]
    assert record.find_completed(tmp_path / "bad.json") is None


def test_failed_runs_are_not_finished(tmp_path: Path) -> None:
    record.write_record(stored(status="failed", error="boom"), tmp_path / "f.json")
    assert record.find_completed(tmp_path / "f.json") is None
    with pytest.raises(ValueError, match="has no accuracy"):
        record.read_record(tmp_path / "f.json").accuracy  # noqa: B018


def test_impossible_records_are_refused() -> None:
    with pytest.raises(ValueError, match="must have a last and a best score"):
        stored(last=None)


@pytest.mark.parametrize(
    "change",
    [
        {"last": {"epoch": 1, "correct": 5, "total": 0}},
        {"params": {}},
        {"params": None},
        {"seed": "0"},
        {"seed": -1},
        {"status": "fine"},
        {"backbone": "mine/nano"},
        {"data": {"train": 5}},
        {"curve": [{"epoch": 1, "correct": 5, "total": 4}]},
        {"method": None},
        {"task": ["digits"]},
    ],
)
def test_records_with_odd_values_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    record.write_record(stored(), tmp_path / "r.json")
    raw = json.loads((tmp_path / "r.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps(raw | change))
    with pytest.raises(RecordError, match="is not a readable record"):
        record.read_record(tmp_path / "r.json")


def test_the_epoch_is_chosen_on_what_is_evaluated(data_root: Path) -> None:
    with pytest.raises(
        LookupError, match="Unknown protocol.selected_on 'val'. Allowed: last, test"
    ):
        identity(data_root, "protocol.selected_on=val")


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"cannot be written .*Give results_dir=DIRECTORY"):
        record.check_writable(tmp_path / "records" / "demo" / "r.json")


def test_records_are_plain_json(tmp_path: Path) -> None:
    record.write_record(stored(), tmp_path / "r.json")
    raw = json.loads((tmp_path / "r.json").read_text())
    assert raw["schema"] == record.SCHEMA
    assert raw["last"] == {"epoch": 5, "correct": 900, "total": 1000}


def test_the_published_schema_is_the_one_of_the_program() -> None:
    assert record.SCHEMA_FILE.read_text() == record.json_schema()
    fields = json.loads(record.json_schema())["$defs"]["Record"]
    assert set(fields["properties"]) == set(msgspec.to_builtins(stored()))
    assert fields["additionalProperties"] is False
