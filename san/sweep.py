"""Work through the runs of a sweep in processes of their own: one crash costs one run, and the rest goes on.

A process takes run after run, so that starting (imports, device) is paid once. Runs are claimed (san/claim.py): any
number of sweeps on any number of machines share the work. The processes end with this one, and save what they are at.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from san.errors import Preempted
from san.plan import Cell
from san.record import stamp

Say = Callable[[str], None]
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
PARENT = 2.0  # seconds between looks at whether the sweep itself still lives


@dataclass
class Worker:
    """A process and what it is at."""

    process: BaseProcess
    pipe: Connection
    device: str | None
    cell: Cell | None = None
    gone: bool = False


@dataclass
class Outcome:
    """How the runs ended: titles of those that failed, and of those whose process died."""

    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stopped: bool = False


def work(cells: Sequence[Cell], jobs: int, devices: Sequence[str], fail_fast: bool, say: Say) -> Outcome:
    """Run cells in `jobs` processes, each on one of `devices` (CUDA's names, or none); return how they ended.

    SIGTERM, Ctrl-C and SIGUSR2 (SLURM's when time is nearly up) stop the processes, which save what they are at.
    """
    waiting, outcome = list(cells), Outcome()
    stamps = {cell.path: stamp(cell.path) for cell in cells if cell.path is not None}
    workers: list[Worker] = []
    stop = threading.Event()
    with stopping(stop):
        while (waiting and not stop.is_set()) or any(w.cell for w in workers):
            while waiting and len(workers) < jobs and not stop.is_set():
                workers.append(start(free_device(devices, workers)))
            if not stop.is_set():
                give(workers, waiting, stamps)
            for w in ready(workers):
                settle(w, stamps, outcome, say)
                if w.gone:
                    workers.remove(w)
            if fail_fast and (outcome.failed or outcome.lost):
                stop.set()
            if stop.is_set():
                terminate(workers)
        terminate(workers)
    outcome.stopped = stop.is_set() and not (fail_fast and (outcome.failed or outcome.lost))
    return outcome


def give(workers: Sequence[Worker], waiting: list[Cell], stamps: Mapping[Path, int]) -> None:
    """Give each idle process the next run, but none that another sweep has run meanwhile, whatever came of it."""
    for w in workers:
        while w.cell is None and waiting:
            cell = waiting.pop(0)
            assert cell.path is not None
            seen = stamps[cell.path]
            if stamp(cell.path) == seen:
                w.cell = cell
                with contextlib.suppress(OSError):  # one that has just died is settled like any other
                    w.pipe.send((dict(cell.config), list(cell.overrides), seen))


def settle(w: Worker, stamps: Mapping[Path, int], outcome: Outcome, say: Say) -> None:
    """Note how the run of a process that has answered or died has ended, and say what no record says."""
    verdict, text = answer(w)
    assert w.cell is not None and w.cell.path is not None
    if verdict == "failed":
        outcome.failed.append(w.cell.title)
        if stamp(w.cell.path) == stamps[w.cell.path]:
            say(f"{w.cell.title}: failed, and no record could be written: {text}")
    if verdict == "lost":
        outcome.lost.append(w.cell.title)
        say(f"{w.cell.title}: {text}")
    w.gone = verdict in ("lost", "stopped")
    w.cell = None


@contextlib.contextmanager
def stopping(stop: threading.Event) -> Any:
    """Let each of STOPPING set `stop`."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_device(devices: Sequence[str], workers: Sequence[Worker]) -> str | None:
    """Return the device that the fewest processes have."""
    used = [w.device for w in workers]
    return min(devices, key=used.count) if devices else None


def start(device: str | None) -> Worker:
    """Start a process; it waits for its first run."""
    context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, device, os.getpid()), daemon=False)
    process.start()
    theirs.close()
    return Worker(process, ours, device)


def ready(workers: Sequence[Worker]) -> list[Worker]:
    """Wait a moment for processes that have answered or died; return them."""
    things: dict[Any, Worker] = {w.pipe: w for w in workers if w.cell} | {
        w.process.sentinel: w for w in workers if w.cell
    }
    found = wait(list(things), timeout=0.5) if things else []
    return list({id(things[thing]): things[thing] for thing in found}.values())


def answer(w: Worker) -> tuple[str, str]:
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


def serve(pipe: Connection, device: str | None, parent: int) -> None:
    """Run what comes through the pipe until it closes; end with the sweep, saving what is in flight."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    for number in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the sweep passes them on as SIGTERM
    threading.Thread(target=watch, args=(parent,), daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from san.run import run  # noqa: PLC0415  (seconds, and after the device is chosen)

    with contextlib.suppress(EOFError, OSError):
        while True:
            config, overrides, seen = pipe.recv()
            try:
                accuracy = run(config, overrides, seen)
                pipe.send(("busy" if accuracy is None else "done", ""))
            except Preempted:
                raise SystemExit(143) from None
            except Exception as error:  # it has been recorded, or said why it could not begin
                pipe.send(("failed", str(error)))


def watch(parent: int) -> None:
    """Tell this process to stop when its parent is gone."""
    while os.getppid() == parent:
        threading.Event().wait(PARENT)
    os.kill(os.getpid(), signal.SIGTERM)
