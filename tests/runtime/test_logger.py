"""Loggers are one thing to a run, and a choice of no consequence to its identity."""

from pathlib import Path
from typing import get_args

import pytest
from conftest import resolved

from san import config_files
from san.experiment import from_config
from san.run import _open_logger
from san.run_options import LoggerName, RunOptions
from san.runtime import distributed, wandb_logger
from san.runtime.csv_logger import CsvLogger
from san.runtime.logger import Logger
from san.runtime.wandb_logger import WandbLogger

LOGGERS = {"wandb": WandbLogger, "csv": CsvLogger, "none": Logger}


def face(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_loggers_offer_what_a_run_asks_of_them() -> None:
    assert face(Logger) == {"log", "keep_adapter", "finish"}
    assert face(CsvLogger) < face(Logger) < face(WandbLogger)
    assert face(WandbLogger) - face(Logger) == {"log_tables"}  # of scripts/tables.py


def test_every_choice_opens_its_logger_and_changes_no_identity(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_logger, "_init_wandb", no_wandb)
    identities = set()
    choices = config_files.choices("logger")
    assert set(choices) == set(LOGGERS) == set(get_args(LoggerName))
    for name in choices:
        config = resolved(f"logger={name}", f"data_root={data_root}")
        experiment = from_config(*config)
        identities.add((experiment.identity, experiment.variant))
        options = RunOptions.from_config(config.config)
        curves = tmp_path / "run.csv"
        curves.write_text("of an earlier run")
        logger = _open_logger(experiment, options, tmp_path / "run.json")
        assert type(logger) is LOGGERS[name]
        logger.finish({})
        # No curves stand beside a record that is not their own.
        assert curves.exists() == (name == "csv")
        with monkeypatch.context() as second:
            second.setattr(distributed, "rank", lambda: 1)
            other = _open_logger(experiment, options, tmp_path / "run.json")
        assert type(other) is Logger
    assert len(identities) == 1


def no_wandb(**_: object) -> None:
    raise ImportError("wandb is not installed")
