"""Weights & Biases, kept at arm's length: it never asks, never stalls a run and never fails one.

Everything wandb does happens in one background thread that reads a queue. If it raises, the run goes on without it; if
it hangs, the run waits a little at the end and then goes on. The record is written whether or not the tracker lives.
"""

import logging
import netrc
import os
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from san.errors import choose

log = logging.getLogger(__name__)
FINISH_TIMEOUT_S = 30.0  # seconds that a finished run waits for its tracker


def wandb_mode() -> str:
    """Return what WANDB_MODE says; else `online` where an API key is configured; else `offline`."""
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        key = os.environ.get("WANDB_API_KEY") or netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        key = None
    return "online" if key else "offline"


class WandbLogger:
    """One wandb run with a given id; `start` is `wandb.init`, or a stand-in for it."""

    def __init__(self, start: Callable[..., Any], folder: Path, **run: Any) -> None:
        self.calls: queue.Queue[Callable[[Any], object] | None] = queue.Queue()
        self.where = ""
        self.thread = threading.Thread(target=self._work, args=(start, folder, run), daemon=True)
        self.thread.start()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values to the curves."""
        self.calls.put(lambda run: run.log(dict(values), step=step))

    def keep(self, path: Path, key: str) -> None:
        """Upload a file as an artifact, the adapter of the run whose identity is `key`."""
        self.calls.put(
            lambda run: run.log_artifact(str(path), name=f"adapter-{key}", type="adapter")
        )

    def tables(self, frames: Mapping[str, Any]) -> None:
        """Log data frames as tables, by name."""
        self.calls.put(
            lambda run: run.log({name: to_wandb_table(frame) for name, frame in frames.items()})
        )

    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> None:
        """Write the summary and close; wait for it at most PATIENCE seconds."""
        self.calls.put(lambda run: run.summary.update(dict(summary)))
        self.calls.put(lambda run: run.finish(exit_code=int(failed)))
        self.calls.put(None)
        self.thread.join(FINISH_TIMEOUT_S)
        if self.thread.is_alive():
            log.warning(
                "wandb did not finish within %.0f s; the run goes on without it.", FINISH_TIMEOUT_S
            )
        elif self.where:
            log.info("wandb: offline. To upload: wandb sync %s", self.where)

    def _work(self, start: Callable[..., Any], folder: Path, run: dict[str, Any]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            session = start(dir=str(folder), resume="allow", **run)
            if getattr(session, "offline", False):
                self.where = str(Path(session.dir).parent)
            while (call := self.calls.get()) is not None:
                call(session)
        except Exception as error:  # whatever a tracker raises, a training run must survive it
            self.where = ""
            log.warning(
                "wandb failed (%s: %s); the run goes on without it.", type(error).__name__, error
            )


class NoLogger:
    """A tracker that keeps nothing."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Drop the values."""

    def keep(self, path: Path, key: str) -> None:
        """Leave the file where it is."""

    def tables(self, frames: Mapping[str, Any]) -> None:
        """Drop the tables."""

    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> None:
        """Do nothing."""


def open_logger(
    name: str, config: dict[str, Any], key: str, group: str, job: str
) -> WandbLogger | NoLogger:
    """Return the tracker called `name` (`wandb` or `none`) for the run whose identity is `key`."""
    if choose(name, ("wandb", "none"), "logger") == "none":
        return NoLogger()
    where = Path(config["results"])
    return WandbLogger(
        init_wandb,
        where,
        project="san",
        id=key,
        group=group,
        job_type=job,
        config=config,
        mode=wandb_mode(),
    )


def to_wandb_table(frame: Any) -> Any:
    """Return a data frame as W&B's table."""
    import wandb  # noqa: PLC0415

    return wandb.Table(dataframe=frame)


def init_wandb(**run: Any) -> Any:
    """Call wandb.init; even the import happens in the tracker's thread, so that a broken installation harms nothing."""
    import wandb  # noqa: PLC0415

    return wandb.init(
        settings=wandb.Settings(silent=True, console="off", init_timeout=FINISH_TIMEOUT_S), **run
    )
