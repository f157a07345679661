"""Work through the runs of a sweep in processes of their own: one crash costs one run, and the rest goes on.

A process takes run after run, so that starting (imports, device) is paid once. Runs are claimed (san/runtime/lease.py):
any number of sweeps on any number of machines share the work. The processes end with this one, and save
what they are at.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from san.errors import Preempted
from san.record import mtime_ns
from san.runtime.signals import exit_with_parent, stop_on_signal
from san.sweep.plan import PENDING, PlannedRun, heartbeat_overdue, run_status

Log = Callable[[str], None]
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
POLL_S = 2.0  # seconds between looks at runs that others are at


@dataclass
class Worker:
    """A process and what it is at."""

    process: BaseProcess
    pipe: Connection
    device: str | None
    cell: PlannedRun | None = None
    gone: bool = False


@dataclass
class Outcome:
    """How the runs ended: titles of those that failed, and of those whose process died."""

    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stopped: bool = False


def run_pool(
    cells: Sequence[PlannedRun],
    jobs: int,
    devices: Sequence[str],
    say: Log,
    fail_fast: bool = False,
    wait: bool = True,
) -> Outcome:
    """Run cells in `jobs` processes, each on one of `devices` (CUDA's names, or none); return how they ended.

    wait: for runs that others are at, to take up what they leave undone; else only for holders that are silent.
    SIGTERM, Ctrl-C and SIGUSR2 (SLURM's when time is nearly up) stop the processes, which save what they are at.
    """
    outcome, gave_up, told = Outcome(), False, 0
    elsewhere: list[PlannedRun] = []
    waiting: list[PlannedRun] = []
    for cell in cells:
        (elsewhere if run_status(cell).name == "running" else waiting).append(cell)
    stamps = {cell.path: mtime_ns(cell.path) for cell in cells if cell.path is not None}
    workers: list[Worker] = []
    with stop_on_signal(*STOPPING) as stop:
        try:
            while any(w.cell for w in workers) or ((waiting or elsewhere) and not stop.is_set()):
                while waiting and len(workers) < jobs and not stop.is_set():
                    workers.append(start(free_device(devices, workers)))
                if fail_fast and not stop.is_set() and failed(outcome, workers, waiting, stamps):
                    gave_up = True
                    stop.set()
                if not stop.is_set():
                    dispatch(workers, waiting, stamps)
                for w in wait_ready(workers):
                    collect(w, stamps, outcome, say, elsewhere)
                workers[:] = [w for w in workers if not w.gone]
                if stop.is_set():
                    terminate(workers)
                elif not waiting and not any(w.cell for w in workers):
                    told = requeue_abandoned(elsewhere, waiting, wait, say, told)
                    stop.wait(POLL_S if elsewhere or waiting else 0)
        finally:
            terminate(workers)
    outcome.stopped = stop.is_set() and not gave_up
    return outcome


def failed(
    outcome: Outcome,
    workers: Sequence[Worker],
    waiting: Sequence[PlannedRun],
    stamps: Mapping[Path, int],
) -> bool:
    """Return whether a run has failed, here or, looked up before another one is begun, in another sweep meanwhile."""
    if outcome.failed or outcome.lost:
        return True
    if all(w.cell for w in workers):
        return False
    changed = [
        cell
        for cell in waiting
        if cell.path is not None and mtime_ns(cell.path) != stamps[cell.path]
    ]
    return any(run_status(cell).name in ("failed", "oom") for cell in changed)


def requeue_abandoned(
    elsewhere: list[PlannedRun], waiting: list[PlannedRun], wait: bool, say: Log, told: int
) -> int:
    """Look again at runs that others have: what they leave undone goes to `waiting`, what is done is forgotten.

    told: how many were said to be waited for; return how many there are.
    """
    states = [(cell, run_status(cell).name) for cell in elsewhere]
    waiting += [cell for cell, name in states if name in PENDING]
    elsewhere[:] = [
        cell for cell, name in states if name == "running" and (wait or heartbeat_overdue(cell))
    ]
    if elsewhere and len(elsewhere) != told:
        say(f"Waiting for {len(elsewhere)} runs that others are at; Ctrl-C leaves them alone.")
    return len(elsewhere)


def dispatch(
    workers: Sequence[Worker], waiting: list[PlannedRun], stamps: Mapping[Path, int]
) -> None:
    """Give each idle process the next run, but none that another sweep has run meanwhile, whatever came of it."""
    for w in workers:
        while w.cell is None and waiting:
            cell = waiting.pop(0)
            assert cell.path is not None
            seen = stamps[cell.path]
            if mtime_ns(cell.path) == seen:
                w.cell = cell
                with contextlib.suppress(
                    OSError
                ):  # one that has just died is settled like any other
                    w.pipe.send((dict(cell.config), list(cell.overrides), seen))


def collect(
    w: Worker, stamps: Mapping[Path, int], outcome: Outcome, say: Log, elsewhere: list[PlannedRun]
) -> None:
    """Note how the run of a process that has answered or died has ended, and say what no record says."""
    verdict, text = receive(w)
    assert w.cell is not None and w.cell.path is not None
    if verdict == "failed":
        outcome.failed.append(w.cell.title)
        if mtime_ns(w.cell.path) == stamps[w.cell.path]:
            say(f"{w.cell.title}: failed, and no record could be written: {text}")
    if verdict == "lost":
        outcome.lost.append(w.cell.title)
        say(f"{w.cell.title}: {text}")
    if verdict in ("busy", "stopped"):
        elsewhere.append(w.cell)
    w.gone = verdict in ("failed", "lost", "stopped")
    w.cell = None


def free_device(devices: Sequence[str], workers: Sequence[Worker]) -> str | None:
    """Return the device that the fewest processes have."""
    used = [w.device for w in workers]
    return min(devices, key=used.count) if devices else None


def start(device: str | None) -> Worker:
    """Start a process; it waits for its first run."""
    context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=worker_main, args=(theirs, device, os.getpid()), daemon=False)
    process.start()
    theirs.close()
    return Worker(process, ours, device)


def wait_ready(workers: Sequence[Worker]) -> list[Worker]:
    """Wait a moment for processes that have answered or died; return them."""
    things: dict[Any, Worker] = {w.pipe: w for w in workers if w.cell} | {
        w.process.sentinel: w for w in workers if w.cell
    }
    found = wait(list(things), timeout=0.5) if things else []
    return list({id(things[thing]): things[thing] for thing in found}.values())


def receive(w: Worker) -> tuple[str, str]:
    """Return what a process says of its run, or `lost` where it died."""
    try:
        if w.pipe.poll():
            verdict, text = w.pipe.recv()
            return verdict, text
    except (EOFError, OSError):
        pass
    w.process.join()
    code = w.process.exitcode or 0
    if code == 143:
        return "stopped", ""
    how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit status {code}"
    return (
        "lost",
        f"its process died of {how}; nothing of it is kept but what it saved, and the same command tries again",
    )


def terminate(workers: list[Worker]) -> None:
    """Tell processes to save and end, and wait for them.

    One that has just done its last step finishes the run instead, and ends as its pipe is closed.
    """
    for w in workers:
        w.process.terminate()
        w.pipe.close()
    for w in workers:
        w.process.join()
    workers.clear()


def worker_main(pipe: Connection, device: str | None, parent: int) -> None:
    """Run what comes through the pipe until it closes; end with the sweep, saving what is in flight."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = (
            device  # torch is imported, but has not looked for devices yet
        )
    for number in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the sweep passes them on as SIGTERM
    exit_with_parent(parent)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from san.run import run  # noqa: PLC0415  (seconds)

    with contextlib.suppress(EOFError, OSError):
        while True:
            config, overrides, seen = pipe.recv()
            try:
                accuracy = run(config, overrides, seen)
                pipe.send(("busy" if accuracy is None else "done", ""))
            except Preempted:
                raise SystemExit(143) from None
            except Exception as error:  # it has been recorded, or says why it could not begin
                pipe.send(("failed", str(error)))
                return  # a device that has failed once may fail all that comes
