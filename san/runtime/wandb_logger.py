"""Logging to Weights & Biases that never prompts, never stalls a run and never fails one.

All calls of wandb happen in one background thread that reads a queue. If wandb raises, the run goes
on without it; if it hangs, the run waits for a limited time at its end. Records do not depend on
it.
"""

import logging
import netrc
import os
import queue
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from san.runtime.formatting import count_of
from san.runtime.logger import Logger

if TYPE_CHECKING:  # an optional package, and a slow import
    import wandb

PROJECT = "san"  # where neither the command line nor WANDB_PROJECT says another
MAX_TAG = 64  # characters; wandb.init refuses a longer one
FINISH_TIMEOUT_S = 30.0  # seconds that a finished run waits for wandb

log = logging.getLogger(__name__)


def wandb_mode() -> str:
    """Return WANDB_MODE; if unset, `online` where an API key is configured, else `offline`."""
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    return "online" if _has_api_key() else "offline"


class WandbLogger(Logger):
    """Logs one W&B run; one that the server knows is continued.

    An offline run cannot be continued: each process writes a folder, and of folders of one id the
    one that is synced last replaces the others. As a resumed run logs all of its epochs again, its
    last folder has the whole run.

    init: `wandb.init`, or a stand-in for it, which gets `settings` as keyword arguments;
    folder: where wandb keeps its files. run_id: W&B's id.
    """

    def __init__(
        self, init: "Callable[..., wandb.Run]", folder: Path, run_id: str, **settings: object
    ) -> None:
        self._run_id = run_id
        self._calls: queue.Queue[Callable[[wandb.Run], object] | None] = queue.Queue()
        self._offline_folder: Path | None = None
        work = (init, folder, {"id": run_id, **settings})
        self._thread = threading.Thread(target=self._work, args=work, daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a point to each of the named curves, unless the run that is continued has it."""
        self._calls.put(lambda run: _log_point(run, metrics, step))

    def keep_adapter(self, path: Path) -> None:
        """Upload a saved adapter as the artifact `adapter-<id>`."""
        name = f"adapter-{self._run_id}"
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
            command = _sync_command(self._offline_folder, self._run_id)
            log.info("wandb is offline. To upload: %s", command)

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


def open_wandb(
    results_dir: Path,
    run_id: str,
    name: str,
    group: str,
    job_type: str,
    config: Mapping[str, object],
    tags: Sequence[str],
    project: str | None = None,
) -> WandbLogger:
    """Start a W&B run, or continue the one with this id.

    What W&B's own environment variables say goes before what is given here, but for `project`: as
    typed by the user, or None. WANDB_TAGS are added to `tags`.

    config: shown beside the curves; group, job_type: W&B's words for what its runs are sorted by.
    """
    labels = {
        "name": os.environ.get("WANDB_NAME") or name,
        "group": os.environ.get("WANDB_RUN_GROUP") or group,
        "job_type": os.environ.get("WANDB_JOB_TYPE") or job_type,
        "project": project or os.environ.get("WANDB_PROJECT") or PROJECT,
    }
    return WandbLogger(
        _init_wandb,
        Path(os.environ.get("WANDB_DIR") or results_dir),
        run_id,
        config=dict(config),
        mode=wandb_mode(),
        tags=_all_tags(tags),
        **labels,
    )


def _all_tags(tags: Sequence[str]) -> list[str]:
    """Return the tags of a run and of the environment, each once, as wandb takes them."""
    typed = os.environ.get("WANDB_TAGS", "").split(",")
    short = [tag.strip()[:MAX_TAG] for tag in (*tags, *typed)]
    return [tag for tag in dict.fromkeys(short) if tag]


def _sync_command(folder: Path, run_id: str) -> str:
    """Return how an offline run is uploaded, which may have been interrupted before."""
    command = f"wandb sync {shlex.quote(str(folder))}"
    older = len(list(folder.parent.glob(f"offline-run-*-{run_id}"))) - 1
    if older == 0:
        return command
    folders = count_of(older, "older folder")
    return f"{command} (it has everything; syncing {folders} of this run later would undo it)"


def _log_point(run: "wandb.Run", values: Mapping[str, float], step: int) -> None:
    """Log the values of a step, unless the run that is continued has them."""
    if step >= run.starting_step:
        run.log(dict(values), step=step)


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
