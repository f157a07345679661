"""Logging to Weights & Biases that never prompts, never stalls a run and never fails one.

All calls of wandb happen in one background thread that reads a queue. If wandb raises, the run goes
on without it; if it hangs, the run waits for a limited time at its end. Records do not depend on
it.
"""

import logging
import netrc
import os
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from san.errors import choose

if TYPE_CHECKING:  # an optional package, and a slow import
    import wandb

LOGGERS = ("wandb", "none")
FINISH_TIMEOUT_S = 30.0  # seconds that a finished run waits for wandb

log = logging.getLogger(__name__)


def wandb_mode() -> str:
    """Return WANDB_MODE; if unset, `online` where an API key is configured, else `offline`."""
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    return "online" if _has_api_key() else "offline"


class WandbLogger:
    """Logs to one wandb run; a run id that wandb already knows is continued.

    init: `wandb.init`, or a stand-in for it, which gets `settings` as keyword arguments;
    folder: where wandb keeps its files.
    """

    def __init__(self, init: "Callable[..., wandb.Run]", folder: Path, **settings: object) -> None:
        self._calls: queue.Queue[Callable[[wandb.Run], object] | None] = queue.Queue()
        self._offline_folder: Path | None = None
        work = (init, folder, settings)
        self._thread = threading.Thread(target=self._work, args=work, daemon=True)
        self._thread.start()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each of the named curves."""
        self._calls.put(lambda run: run.log(dict(values), step=step))

    def log_artifact(self, path: Path, key: str) -> None:
        """Upload a saved adapter as the artifact `adapter-<key>`."""
        name = f"adapter-{key}"
        self._calls.put(lambda run: run.log_artifact(str(path), name=name, type="adapter"))

    def log_tables(self, frames: Mapping[str, Any]) -> None:
        """Log data frames of pandas as tables, by name."""
        self._calls.put(lambda run: run.log(_wandb_tables(frames)))

    def finish(self, summary: Mapping[str, object], failed: bool = False) -> None:
        """Write the summary and close; wait for this at most FINISH_TIMEOUT_S seconds."""
        self._calls.put(lambda run: run.summary.update(dict(summary)))
        self._calls.put(lambda run: run.finish(exit_code=int(failed)))
        self._calls.put(None)
        self._thread.join(FINISH_TIMEOUT_S)
        if self._thread.is_alive():
            text = "wandb did not finish within %.0f s; the run goes on without it."
            log.warning(text, FINISH_TIMEOUT_S)
        elif self._offline_folder is not None:
            log.info("wandb is offline. To upload: wandb sync %s", self._offline_folder)

    def _work(
        self,
        init: "Callable[..., wandb.Run]",
        folder: Path,
        settings: Mapping[str, object],
    ) -> None:
        """Start the run and make the calls, in order; the body of the thread."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run = init(dir=str(folder), resume="allow", **settings)
            if run.offline:
                self._offline_folder = Path(run.dir).parent
            for call in iter(self._calls.get, None):
                call(run)
        except Exception as error:  # whatever wandb raises, the training run must survive it
            self._offline_folder = None
            kind = type(error).__name__
            log.warning("wandb failed (%s: %s); the run goes on without it.", kind, error)


class NoLogger:
    """Accepts what WandbLogger accepts, and keeps nothing."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path, key: str) -> None:
        """Do nothing."""

    def log_tables(self, frames: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, summary: Mapping[str, object], failed: bool = False) -> None:
        """Do nothing."""


def open_logger(
    name: str,
    results_dir: Path,
    config: Mapping[str, object],
    run_id: str,
    group: str,
    job_type: str,
) -> WandbLogger | NoLogger:
    """Return the logger called `name`; raise UnknownNameError if there is no such logger.

    config: shown beside the curves; group, job_type: W&B's words for what its runs are sorted by.
    """
    if choose(name, LOGGERS, "logger") == "none":
        return NoLogger()
    return WandbLogger(
        _init_wandb,
        results_dir,
        project="san",
        id=run_id,
        group=group,
        job_type=job_type,
        config=dict(config),
        mode=wandb_mode(),
    )


def _has_api_key() -> bool:
    """Return whether the environment or ~/.netrc has a key for the server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    host = urlparse(server).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _init_wandb(**settings: Any) -> "wandb.Run":
    """Call wandb.init; even the import is in the thread, where a broken package does no harm."""
    import wandb  # noqa: PLC0415

    quiet = wandb.Settings(silent=True, console="off", init_timeout=FINISH_TIMEOUT_S)
    return wandb.init(settings=quiet, **settings)


def _wandb_tables(frames: Mapping[str, Any]) -> "dict[str, wandb.Table]":
    import wandb  # noqa: PLC0415

    return {name: wandb.Table(dataframe=frame) for name, frame in frames.items()}
