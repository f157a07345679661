"""Hand a sweep to SLURM through submitit: an array of jobs that work through it together.

The jobs share the runs by leases. A job that is pre-empted or out of time saves a checkpoint and is
queued again. Only this module knows submitit.
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
from typing import Annotated, Any

from msgspec import Meta, Struct

from san.errors import STOPPED_EXIT_CODE, InvalidValueError, LaunchError, MissingFileError
from san.installation import install_command
from san.runtime import files
from san.runtime.lease_holder import process_start_time

JOB_NAME = "san"
REQUEUES = 1000  # times that a job may time out and be queued again; submitit's own limit is 3
GRACE_S = 3600.0  # how long a stopped job waits for SLURM to end it
POLL_S = 0.2
log = logging.getLogger(__name__)


class SweepJob:
    """One SLURM job: it runs the command of a local sweep.

    submitit pickles it by the name `san.sweep.slurm.SweepJob` while the job is queued.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)
        self.pid = 0

    def __call__(self) -> None:
        """Run the command; raise RuntimeError if it fails."""
        process = subprocess.Popen(self.command)  # noqa: S603  (our own program)
        self.pid = process.pid
        # Polled rather than waited for: `checkpoint` interrupts this and must not meet a lock.
        while process.poll() is None:
            time.sleep(POLL_S)
        if process.returncode == STOPPED_EXIT_CODE:
            # SLURM queues again the jobs that it ends, but not those that end by themselves.
            time.sleep(GRACE_S)
        if process.returncode:
            raise RuntimeError(
                f"Not all runs are done (exit status {process.returncode}). "
                "See this log, or give the command of the sweep with --status."
            )

    def checkpoint(self) -> Any:
        """Stop the sweep and return the job that submitit should queue: the same command.

        submitit calls this on SLURM's signal. It waits until the sweep has saved its checkpoint, as
        SLURM kills the job when it is queued again.
        """
        import submitit  # noqa: PLC0415  (an extra)

        if process_start_time(self.pid):
            os.kill(self.pid, signal.SIGTERM)
        while process_start_time(self.pid):
            time.sleep(POLL_S)
        return submitit.helpers.DelayedSubmission(SweepJob(self.command))


def submit(
    command: Sequence[str], jobs: int, options: Mapping[str, Any], directory: Path
) -> list[str]:
    """Submit an array of `jobs` jobs and return their ids at once.

    options: submitit's parameters of a job (None: the cluster's default). directory: of the logs.
    Raises LaunchError with sbatch's message, or if there is no SLURM or no submitit here.
    """
    if shutil.which("sbatch") is None:
        raise LaunchError(
            "There is no sbatch here. Submit from a machine of the cluster, "
            "or give --launcher local."
        )
    try:
        import submitit  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise LaunchError(f"--launcher slurm needs submitit: {install_command('slurm')}") from error
    given_options = {name: value for name, value in options.items() if value is not None}
    refusals = (
        submitit.core.utils.FailedJobError,
        subprocess.CalledProcessError,
        NameError,  # an option that submitit does not know
        ValueError,
    )
    try:
        executor = submitit.AutoExecutor(
            str(directory / "%j"), cluster="slurm", slurm_max_num_timeout=REQUEUES
        )
        executor.update_parameters(name=JOB_NAME, slurm_array_parallelism=jobs, **given_options)
        with executor.batch():
            submitted = [executor.submit(SweepJob(command)) for _ in range(jobs)]
        ids = [str(job.job_id) for job in submitted]
    except refusals as error:
        raise LaunchError(f"SLURM refused the sweep: {str(error).strip()}") from error
    _note_submission(ids, command, directory)
    return ids


def submitted_jobs(directory: Path) -> list[str]:
    """Return the ids of all jobs that were submitted with this log directory.

    Raises FileAccessError where the file of them cannot be read.
    """
    notes = _notes_file(directory)
    try:
        lines = files.read_text(notes).splitlines()
    except MissingFileError:
        return []
    ids: list[str] = []
    for line in lines:
        try:
            note: _Note = files.parse_json(line, _Note)
        except InvalidValueError:  # the disk was full, or the machine crashed
            log.warning("%s: ignoring an unreadable line: %r", notes, line[:60])
        else:
            ids.extend(note.jobs)
    return ids


def queued_jobs(directory: Path) -> list[str]:
    """Return a line for each of those jobs that SLURM still lists: id, state, reason or node."""
    ids = submitted_jobs(directory)
    if not ids or shutil.which("squeue") is None:
        return []
    command = [
        "squeue",
        "--noheader",
        "--array",
        # A reinstalled SLURM counts from 1 again, so the ids alone may be another user's.
        "--me",
        f"--name={JOB_NAME}",
        "--format=%i %T %R",
        f"--jobs={','.join(ids)}",
    ]
    answer = _ask_slurm(command)
    # SLURM forgets jobs that ended long ago, and then says so.
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return [f"squeue does not answer: {answer.stderr.strip()}"]
    return answer.stdout.splitlines()


def cancel_jobs(directory: Path) -> list[str]:
    """Cancel those jobs that are still queued or running; return their lines.

    Raises LaunchError with SLURM's message if it refuses.
    """
    lines = queued_jobs(directory)
    if not lines:
        return []
    ids = [line.split()[0] for line in lines]
    command = ["scancel", *ids]
    answer = _ask_slurm(command)
    if answer.returncode:
        reason = answer.stderr.strip() or lines[0]
        raise LaunchError(f"SLURM did not cancel the jobs: {reason}")
    return lines


def _ask_slurm(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of SLURM; node names are ASCII, a reason may be anything."""
    return subprocess.run(  # noqa: S603  (SLURM's own programs)
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )


class _Note(Struct):
    """A line of that file, as far as it is read."""

    jobs: list[Annotated[str, Meta(pattern="^[0-9][0-9_]*$")]]


def _notes_file(directory: Path) -> Path:
    return directory / "submitted.jsonl"


def _note_submission(ids: Sequence[str], command: Sequence[str], directory: Path) -> None:
    """Remember the ids, for status and cancel."""
    note = {"jobs": list(ids), "command": list(command), "submitted": time.time()}
    directory.mkdir(parents=True, exist_ok=True)
    with _notes_file(directory).open("a", encoding="utf-8") as file:
        file.write(json.dumps(note) + "\n")
