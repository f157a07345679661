"""Work through the runs of a sweep in worker processes: one crash costs one run.

Each run is done under a lease (san/runtime/lease.py), so any number of sweeps on any number of
machines share the work. Workers end with this process and save checkpoints.
"""

import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import connection
from pathlib import Path

from san.record_file import mtime_ns
from san.runtime.formatting import count_of
from san.runtime.lease_holder import STALE_AFTER_S, Holder, Liveness, Sighting
from san.runtime.signals import stop_on_signal
from san.sweep.plan import PlannedRun, RunState, RunStatus, run_status, should_run
from san.sweep.worker import Verdict, Worker

Log = Callable[[str], None]
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)  # USR2: SLURM, near the time limit
POLL_S = 2.0  # between looks at runs that other processes hold
WORKER_POLL_S = 0.5  # how long to wait for workers before looking at anything else


class Pool:
    """Worker processes that share the runs of a sweep, with each other and with other sweeps.

    jobs: how many workers. devices: CUDA's names of the devices to spread them over, or none.
    fail_fast: start no more runs once one has failed, here or in another sweep.
    wait_for_others: wait for runs that other processes hold, to take over those that they abandon;
    otherwise only for holders that have not been seen to live yet. is_wanted: whether a run in some
    state has to be done.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        jobs: int,
        devices: Sequence[str] = (),
        log: Log = print,
        fail_fast: bool = False,
        wait_for_others: bool = True,
        is_wanted: Callable[[RunStatus], bool] = should_run,
    ) -> None:
        self.jobs = jobs
        self.devices = devices
        self.log = log
        self.fail_fast = fail_fast
        self.wait_for_others = wait_for_others
        self.is_wanted = is_wanted
        self.queue: deque[PlannedRun] = deque()
        self.held_elsewhere: list[PlannedRun] = []
        self.workers: list[Worker] = []
        self._has_failure = False
        self._announced: set[Path] = set()  # leases that the log says that we wait for
        self._known_mtime: dict[Path, int] = {}
        self._dead_leases: dict[Path, Sighting] = {}
        for run in runs:
            self._known_mtime[_path(run)] = mtime_ns(_path(run))
            status = run_status(run)
            if status.state == RunState.RUNNING:
                self.held_elsewhere.append(run)
            else:
                self._enqueue(run, status)

    def work(self) -> bool:
        """Work until no run is left; return whether a signal stopped it.

        SIGTERM, Ctrl-C and SIGUSR2 stop the workers, which save checkpoints.
        """
        with stop_on_signal(*STOP_SIGNALS) as signalled:
            try:
                while not signalled.is_set() and not self._is_finished():
                    self._work_a_moment(signalled)
            finally:
                self.stop()
            return signalled.is_set()

    def dispatch(self) -> None:
        """Start the workers that there is work for, and give each idle worker a run."""
        idle = len(self.workers) - len(self._busy_workers())
        needed = len(self.queue) - idle
        allowed = self.jobs - len(self.workers)
        for _ in range(min(needed, allowed)):
            self.workers.append(Worker.start(self._free_device()))
        for worker in self.workers:
            if worker.run is None:
                run = self._next_run()
                if run is None:
                    return
                path = _path(run)
                worker.assign(run, self._known_mtime[path], self._dead_leases.get(path))

    def collect(self, worker: Worker) -> None:
        """Take the report of a worker that has answered or died; log what no record says."""
        run = worker.run
        assert run is not None
        report = worker.receive()
        worker.run = None
        if report.ends_worker:
            self.workers.remove(worker)
        if report.verdict in (Verdict.HELD_ELSEWHERE, Verdict.STOPPED):
            self.held_elsewhere.append(run)
        elif report.verdict == Verdict.CRASHED:
            self._has_failure = True
            self.log(f"{run.display_name}: {report.text}")
        elif report.verdict == Verdict.FAILED:
            self._has_failure = True
            if not self._was_tried(run):
                self.log(
                    f"{run.display_name}: failed, and no record could be written: {report.text}"
                )

    def requeue_abandoned(self) -> None:
        """Move abandoned runs of other processes back to the queue; drop finished ones."""
        held: list[PlannedRun] = []
        holders: list[Holder] = []
        for run in self.held_elsewhere:
            status = run_status(run)
            if status.holder is not None and status.state == RunState.RUNNING:
                if self.wait_for_others or status.holder.liveness == Liveness.SILENT:
                    held.append(run)
                    holders.append(status.holder)
            elif self.is_wanted(status):
                self._enqueue(run, status)
        self.held_elsewhere = held
        self._announce(holders)

    def stop(self) -> None:
        """Stop all workers and wait until they have ended.

        A worker saves a checkpoint. One that has just done its last step finishes the run instead,
        and ends because its pipe is closed.
        """
        for worker in self.workers:
            worker.process.terminate()
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join()
        self.workers.clear()

    def _enqueue(self, run: PlannedRun, status: RunStatus) -> None:
        """Queue a run; a worker cannot know that its lease is dead unless we say so."""
        self.queue.append(run)
        if status.holder is not None:
            self._dead_leases[_path(run)] = status.holder.sighting

    def _announce(self, holders: Sequence[Holder]) -> None:
        """Say for whom we wait, once for each, and what a person can do."""
        paths = {holder.path for holder in holders}
        if holders and paths != self._announced:
            runs = count_of(len(holders), "run")
            self.log(f"Waiting for {runs} held by other processes (Ctrl-C to stop waiting).")
        for holder in holders:
            if holder.path not in self._announced:
                self.log(f"  {holder.name}; {_outlook(holder)}")
        self._announced = paths

    def _work_a_moment(self, signalled: threading.Event) -> None:
        self.dispatch()
        for worker in self._wait_ready():
            self.collect(worker)
        if not self.queue and not self._busy_workers():
            self.requeue_abandoned()
            if self.held_elsewhere or self.queue:
                signalled.wait(POLL_S)

    def _is_finished(self) -> bool:
        if self.fail_fast and self._must_give_up():
            return True
        return not (self.queue or self.held_elsewhere or self._busy_workers())

    def _must_give_up(self) -> bool:
        """Return whether a run has failed, here or meanwhile in another sweep.

        The other sweeps' records are only read before another run would start.
        """
        if self._has_failure:
            return True
        if len(self._busy_workers()) == self.jobs:
            return False
        failures = (RunState.FAILED, RunState.OOM)
        tried = [run for run in self.queue if self._was_tried(run)]
        return any(run_status(run).state in failures for run in tried)

    def _was_tried(self, run: PlannedRun) -> bool:
        """Return whether the record of a run was written since this sweep began."""
        path = _path(run)
        return mtime_ns(path) != self._known_mtime[path]

    def _next_run(self) -> PlannedRun | None:
        """Take the next run from the queue, without those that another sweep has tried meanwhile.

        Whether they failed there or not, they are not tried again.
        """
        while self.queue:
            run = self.queue.popleft()
            if not self._was_tried(run):
                return run
        return None

    def _free_device(self) -> str | None:
        """Return the device that the fewest workers use."""
        if not self.devices:
            return None
        used = [worker.device for worker in self.workers]
        return min(self.devices, key=used.count)

    def _busy_workers(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.run is not None]

    def _wait_ready(self) -> list[Worker]:
        """Wait a moment for workers that have answered or died; return them."""
        busy = self._busy_workers()
        if not busy:
            return []
        pipes = [worker.pipe for worker in busy]
        sentinels = [worker.process.sentinel for worker in busy]
        ready = connection.wait([*pipes, *sentinels], timeout=WORKER_POLL_S)
        answered = [worker for worker in busy if worker.pipe in ready]
        died = [worker for worker in busy if worker.process.sentinel in ready]
        return answered + [worker for worker in died if worker not in answered]


def _outlook(holder: Holder) -> str:
    """Return what becomes of a run that another process holds."""
    if holder.liveness == Liveness.ALIVE:
        return holder.way_out
    return (
        f"its run is taken over after {STALE_AFTER_S:.0f} s without a sign of life; "
        f"{holder.way_out}"
    )


def _path(run: PlannedRun) -> Path:
    """Return where the record of a run will be; only runs that can be done come here."""
    assert run.path is not None
    return run.path
