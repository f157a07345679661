"""Curves as a file: one a run, never half written, each epoch once."""

import csv
import logging
from pathlib import Path

import pytest
from conftest import resolved
from interrupted import EPOCHS_KNOWN, WORDS, record_file_of, starts

from san.experiment import from_config
from san.record_file import curves_path, read_record
from san.run import run
from san.runtime import files
from san.runtime.csv_logger import CsvLogger


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_an_epoch_and_a_column_a_curve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "new" / "run.csv"
    logger = CsvLogger(path)
    assert not path.exists()
    logger.log({"train/loss": 0.1 + 0.2}, 1)
    logger.log({"train/loss": 1e-9, "eval/accuracy": 50.0}, 2)
    logger.log({"eval/loss": 2.5}, 2)
    with caplog.at_level(logging.INFO):
        logger.finish({"accuracy": 50.0})
    assert path.read_text() == (
        "epoch,train/loss,eval/accuracy,eval/loss\n1,0.30000000000000004,,\n2,1e-09,50.0,2.5\n"
    )
    assert str(path) in caplog.text
    assert [each.name for each in path.parent.iterdir()] == ["run.csv"]


def test_a_file_of_an_earlier_process_stays_until_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("epoch,train/loss\n1,1.0\n2,0.5\n")
    logger = CsvLogger(path)
    assert len(rows(path)) == 2
    logger.log({"train/loss": 0.75}, 1)
    assert rows(path) == [{"epoch": "1", "train/loss": "0.75"}]


def test_a_point_that_cannot_be_written_leaves_the_file_and_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.csv"
    logger = CsvLogger(path)
    logger.log({"train/loss": 1.0}, 1)
    with monkeypatch.context() as full:
        full.setattr(files, "_sync", no_space)
        logger.log({"train/loss": 0.5}, 2)
        logger.log({"train/loss": 0.4}, 3)
    assert [row["epoch"] for row in rows(path)] == ["1"]
    assert caplog.text.count("No space left") == 1
    assert "The run goes on without it." in caplog.text
    logger.log({"train/loss": 0.3}, 4)
    assert [row["epoch"] for row in rows(path)] == ["1", "2", "3", "4"]


def no_space(_: Path) -> None:
    raise OSError(28, "No space left on device")


def test_an_interrupted_run_has_each_epoch_once(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = (f"results_dir={tmp_path}", f"data_root={data_root}")
    config = resolved(*WORDS, "logger=csv", *places)
    experiment = from_config(*config)
    path = curves_path(experiment.record_path(tmp_path))
    assert experiment.identity in path.name
    epochs = []
    for _ in starts(config, monkeypatch):
        epochs.append([int(row["epoch"]) for row in rows(path)])
    assert epochs == list(EPOCHS_KNOWN)
    record = read_record(record_file_of(tmp_path))
    assert len(record.history) == 4
    for row, entry in zip(rows(path), record.history, strict=True):
        score = entry.score
        assert row == {
            "epoch": str(entry.epoch),
            "train/loss": repr(entry.train_loss),
            "eval/accuracy": repr(score.accuracy) if score else "",
            "eval/loss": repr(score.loss) if score else "",
        }


def test_a_run_whose_curves_cannot_be_kept_is_a_run(
    tmp_path: Path, data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = (f"results_dir={tmp_path}", f"data_root={data_root}")
    config = resolved("method=linear", "epochs=1", "logger=csv", *places)
    path = curves_path(from_config(*config).record_path(tmp_path))
    path.mkdir(parents=True)
    run(*config)
    assert read_record(record_file_of(tmp_path)).status == "done"
    assert f"{path} cannot be written" in caplog.text
