"""Hand a sweep to SLURM through submitit: an array of jobs, each of which works through the same sweep.

The jobs share it by claims. One that is pre-empted or out of time is queued again; what it was at has saved itself.
Only this module knows submitit.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from san.errors import LaunchError
from san.runtime import lease

STOPPED = 143  # exit status of a sweep that was told to stop
GRACE = 3600.0  # seconds that SLURM may leave a pre-empted job to end by itself
log = logging.getLogger(__name__)
REQUEUES = (
    1000  # times that a job may run out of time and be queued again; submitit's own limit is 3
)


class SweepJob:
    """What one job runs: the command of a local sweep."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)
        self.pid = 0

    def __call__(self) -> None:
        """Run it, and fail where it fails. Polled: `checkpoint`, which a signal calls amid this, must find no lock."""
        process = subprocess.Popen(self.command)  # noqa: S603  (our own program)
        self.pid = process.pid
        while process.poll() is None:
            time.sleep(0.2)
        if process.returncode == STOPPED:
            # SLURM has stopped the sweep and ends the job, too: it queues again what it ends, not what has ended.
            time.sleep(GRACE)
        if process.returncode:
            raise RuntimeError(
                f"not all runs are done (exit status {process.returncode}): see the log, or make status"
            )

    def checkpoint(self) -> Any:
        """Stop the sweep, which saves what it is at, and return what submitit is to queue: the same command.

        Only then may the job be queued again: SLURM kills it as it does so.
        """
        import submitit  # noqa: PLC0415

        if lease.process_start_time(self.pid):
            os.kill(self.pid, signal.SIGTERM)
        while lease.process_start_time(self.pid):
            time.sleep(0.2)
        return submitit.helpers.DelayedSubmission(SweepJob(self.command))


def submit(
    command: Sequence[str], jobs: int, profile: Mapping[str, Any], folder: Path
) -> list[str]:
    """Submit an array of `jobs` jobs at once and return their ids; the logs go to `folder`.

    Raises LaunchError with what sbatch says, or where there is no SLURM or no submitit.
    """
    if shutil.which("sbatch") is None:
        raise LaunchError(
            "There is no sbatch here. Submit from a machine of the cluster, or run with LAUNCHER=local."
        )
    try:
        import submitit  # noqa: PLC0415
    except ImportError as error:
        raise LaunchError("LAUNCHER=slurm needs submitit: pip install -e '.[slurm]'.") from error
    executor = submitit.AutoExecutor(
        str(folder / "%j"), cluster="slurm", slurm_max_num_timeout=REQUEUES
    )
    try:
        executor.update_parameters(
            name="san",
            slurm_array_parallelism=jobs,
            **{k: v for k, v in profile.items() if v is not None},
        )
        with executor.batch():
            submitted = [executor.submit(SweepJob(command)) for _ in range(jobs)]
        ids = [job.job_id for job in submitted]
    except (
        submitit.core.utils.FailedJobError,
        subprocess.CalledProcessError,
        NameError,
        ValueError,
    ) as error:
        raise LaunchError(f"SLURM refused the sweep: {str(error).strip()}") from error
    note = {"jobs": ids, "command": list(command), "submitted": time.time()}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "submitted.jsonl").open("a") as file:
        file.write(json.dumps(note) + "\n")
    return ids


def submitted(folder: Path) -> list[str]:
    """Return the ids of all jobs that were submitted from a results folder."""
    try:
        lines = (folder / "submitted.jsonl").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    ids = []
    for line in lines:
        try:
            ids += [str(job) for job in json.loads(line)["jobs"]]
        except (ValueError, KeyError, TypeError):  # the disk was full, or the machine crashed
            log.warning(
                "%s: a line that cannot be read is left out: %s",
                folder / "submitted.jsonl",
                line[:60],
            )
    return ids


def queued(folder: Path) -> list[str]:
    """Return a line for each of those jobs that SLURM still knows: id, state, reason or node."""
    ids = submitted(folder)
    if not ids or shutil.which("squeue") is None:
        return []
    mine = ["--me", "--name=san"]  # a new SLURM counts from one again
    command = [
        "squeue",
        "--noheader",
        "--array",
        *mine,
        "--format=%i %T %R",
        f"--jobs={','.join(ids)}",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if (
        answer.returncode and "Invalid job id" not in answer.stderr
    ):  # SLURM forgets jobs that are long over
        return [f"squeue does not answer: {answer.stderr.strip()}"]
    return answer.stdout.splitlines()


def cancel(folder: Path) -> list[str]:
    """Cancel those jobs that are still queued or running; return their lines.

    Raises LaunchError with what SLURM says where it does not.
    """
    lines = queued(folder)
    if lines:
        command = ["scancel", *(line.split()[0] for line in lines)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if answer.returncode:
            raise LaunchError(f"SLURM does not cancel: {answer.stderr.strip() or lines[0]}")
    return lines
