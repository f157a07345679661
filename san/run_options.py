"""How a run is carried out, beside what it computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from san.schema import PositiveFloat, check_value

LoggerName = Literal["wandb", "csv", "none"]


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; nothing here may change its number.

    force: run although a record exists. save_adapter: write the adapter beside the record;
    log_adapter: upload it, too. wandb_project: as typed, or None. max_hours: of training, after
    which the run fails. deterministic: use algorithms that give the same bits each time, or fail
    where there is none. compile: whether torch compiles the training steps.
    """

    results_dir: Path
    force: bool
    save_adapter: bool
    logger: LoggerName
    log_adapter: bool
    wandb_project: str | None
    max_hours: float | None
    deterministic: bool
    compile: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RunOptions":
        """Check the options of a resolved configuration.

        Raise InvalidValueError or UnknownNameError.
        """
        logger = config["logger"]
        max_hours = PositiveFloat | None
        return cls(
            results_dir=Path(check_value(config["results_dir"], str, "results_dir")),
            force=check_value(config["force"], bool, "force"),
            save_adapter=check_value(config["save_adapter"], bool, "save_adapter"),
            logger=check_value(logger["name"], LoggerName, "logger"),
            log_adapter=check_value(logger["log_adapter"], bool, "logger.log_adapter"),
            wandb_project=check_value(logger.get("project"), str | None, "logger.project"),
            max_hours=check_value(config["max_hours"], max_hours, "max_hours"),
            deterministic=check_value(config["deterministic"], bool, "deterministic"),
            compile=check_value(config["compile"], bool, "compile"),
        )
