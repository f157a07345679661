"""A process that does runs one after another, so that its start (imports, device) is paid once."""

import contextlib
import logging
import multiprocessing
import os
import signal
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from san.errors import STOPPED_EXIT_CODE, Preempted
from san.runtime.lease_holder import Sighting
from san.runtime.signals import exit_with_parent
from san.settings import RunConfig
from san.sweep.plan import PlannedRun


class Verdict(StrEnum):
    """How a run ended for the worker that was given it.

    not_needed: its record is there already, or another process has tried it meanwhile.
    held_elsewhere: another process is running it.
    stopped: the worker alone was stopped, or lost the run's lease; the run left a checkpoint.
    crashed: the worker died.
    """

    DONE = "done"
    NOT_NEEDED = "not_needed"
    HELD_ELSEWHERE = "held_elsewhere"
    FAILED = "failed"
    STOPPED = "stopped"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Assignment:
    """A run as it is sent to a worker.

    known_mtime_ns: of its record when the sweep began; dead_lease: see `san.run.SweepView`.
    """

    run_config: RunConfig
    known_mtime_ns: int
    dead_lease: Sighting | None = None


@dataclass(frozen=True)
class Report:
    """The answer of a worker. text: of the error, if there is one."""

    verdict: Verdict
    text: str = ""

    @property
    def ends_worker(self) -> bool:
        """Whether the worker has ended, or ends now."""
        return self.verdict in (Verdict.FAILED, Verdict.STOPPED, Verdict.CRASHED)


@dataclass(eq=False)
class Worker:
    """A process that takes runs one after another, and the run that it has now."""

    process: BaseProcess
    pipe: Connection
    device: str | None
    run: PlannedRun | None = None

    @classmethod
    def start(cls, device: str | None) -> "Worker":
        """Start a process; it waits for its first run."""
        context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
        pipe, pipe_of_worker = context.Pipe()
        process = context.Process(target=_worker_main, args=(pipe_of_worker, device, os.getpid()))
        process.start()
        pipe_of_worker.close()
        return cls(process, pipe, device)

    def assign(self, run: PlannedRun, known_mtime_ns: int, dead_lease: Sighting | None) -> None:
        """Give the worker a run, with what the pool knows of it; see `Assignment`."""
        self.run = run
        with contextlib.suppress(OSError):  # it has just died, which `receive` will report
            self.pipe.send(Assignment(run.run_config, known_mtime_ns, dead_lease))

    def receive(self) -> Report:
        """Return what a ready worker reports, or that it died."""
        try:
            if self.pipe.poll():
                report: Report = self.pipe.recv()
                return report
        except (EOFError, OSError):
            pass
        self.process.join()
        code = self.process.exitcode or 0
        if code == STOPPED_EXIT_CODE:
            return Report(Verdict.STOPPED)
        cause = f"killed ({signal.Signals(-code).name})" if code < 0 else f"exited with {code}"
        return Report(
            Verdict.CRASHED,
            f"worker {cause}; the same command resumes the run from its last checkpoint",
        )


def _worker_main(pipe: Connection, device: str | None, parent: int) -> None:
    """Do the runs that come through the pipe until it closes.

    Ends with the process `parent`; a stopped worker saves a checkpoint and exits with 143.
    """
    if device is not None:
        # torch is imported by now, but looks for devices only when it first uses one.
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    for number in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the pool passes them on as SIGTERM
    exit_with_parent(parent)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with contextlib.suppress(EOFError, OSError):  # the pool has closed the pipe
        while True:
            assignment: Assignment = pipe.recv()
            try:
                report = do_run(assignment)
            except Preempted:
                raise SystemExit(STOPPED_EXIT_CODE) from None
            pipe.send(report)
            if report.verdict == Verdict.FAILED:
                return  # the device may be broken and fail every later run as well


def do_run(assignment: Assignment) -> Report:
    """Do a run in this process and report how it ended."""
    from san.run import RunOutcome, SweepView, run  # noqa: PLC0415  (takes seconds)

    verdicts = {
        RunOutcome.COMPLETED: Verdict.DONE,
        RunOutcome.ALREADY_COMPLETE: Verdict.NOT_NEEDED,
        RunOutcome.TRIED_ELSEWHERE: Verdict.NOT_NEEDED,
        RunOutcome.HELD_ELSEWHERE: Verdict.HELD_ELSEWHERE,
    }
    view = SweepView(assignment.known_mtime_ns, assignment.dead_lease)
    try:
        result = run(*assignment.run_config, view)
    except Exception as error:  # the record has its trace; without a record, the pool logs it
        return Report(Verdict.FAILED, str(error))
    return Report(verdicts[result.outcome])
