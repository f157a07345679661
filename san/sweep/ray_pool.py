"""Work through a sweep on Ray: several GPUs or shares of one in a box, or a cluster without SLURM.

Each worker is a Ray task with the resources that the cluster file asks for. It runs the command of
a local sweep; the workers share the runs by leases. They end with the driver and save checkpoints.
Only this module knows Ray.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from san.errors import LaunchError
from san.installation import install_command
from san.runtime.signals import stop_on_signal
from san.schema import NonNegativeFloat, from_mapping

SAVING_TIMEOUT_S = 120.0  # how long stopped workers may take to save their checkpoints
POLL_S = 0.2


@dataclass(frozen=True)
class RayOptions:
    """A cluster file for Ray. None leaves a value to Ray; the names are Ray's.

    address: of a cluster, or `auto`; None starts Ray on this machine. The others are what each
    worker requests; num_gpus may be a fraction; memory in bytes.
    """

    address: str | None = None
    num_gpus: NonNegativeFloat | None = None
    num_cpus: NonNegativeFloat | None = None
    memory: NonNegativeFloat | None = None
    resources: Mapping[str, NonNegativeFloat] | None = None

    def task_options(self) -> dict[str, Any]:
        """Return the resources of a worker, as Ray takes them."""
        requested = {
            "num_gpus": self.num_gpus,
            "num_cpus": self.num_cpus,
            "memory": self.memory,
            "resources": self.resources,
        }
        return {name: value for name, value in requested.items() if value is not None}

    def requested(self) -> dict[str, float]:
        """Return the resources of a worker under the names by which Ray lists a cluster's."""
        named = {"GPU": self.num_gpus, "CPU": self.num_cpus, "memory": self.memory}
        given = {name: value for name, value in named.items() if value is not None}
        return given | dict(self.resources or {})


def run_on_ray(command: Sequence[str], jobs: int | None, options: Mapping[str, Any]) -> bool:
    """Run the command in `jobs` workers (None: as many as fit) until all end or a signal comes.

    options: the content of a cluster file (`RayOptions`).
    Returns whether a signal stopped it; the workers have then saved their checkpoints.
    Raises LaunchError if Ray is not installed or not reached, or cannot give what one worker
    requests; InvalidValueError or UnknownNameError on a bad cluster file.
    """
    checked = from_mapping(RayOptions, options, "the cluster file")
    ray = _import_ray()
    try:
        _connect(ray, checked.address)
        capacity = max_workers(checked.requested(), ray.cluster_resources())
        worker = ray.remote(_run_worker).options(name="san", **checked.task_options())
        directory = str(Path.cwd())
        tasks = [worker.remote(list(command), directory) for _ in range(jobs or capacity)]
        stopped = _wait_or_stop(ray, tasks)
        if not stopped:
            ray.get(tasks)  # raises Ray's error of a worker that it has lost
    except ray.exceptions.RayError as error:
        raise LaunchError(
            f"Ray lost a worker; run the same command to resume. Ray says: {error}"
        ) from error
    except (ConnectionError, ValueError) as error:
        raise LaunchError(f"Ray refused the sweep: {error}") from error
    finally:
        ray.shutdown()
    return stopped


def max_workers(requested: Mapping[str, float], available: Mapping[str, float]) -> int:
    """Return how many workers fit at a time; raise LaunchError if not even one does."""
    capacities: list[int] = []
    for name, amount in requested.items():
        if amount:
            capacities.append(_count_fitting(name, amount, available.get(name, 0.0)))
    return min(capacities, default=1)


def _run_worker(command: list[str], directory: str) -> int:
    """Run the command of a worker, inside a Ray task, which has set the devices that it sees.

    If Ray cancels the task, return only when the sweep has saved its checkpoint.
    """
    # Ray cancels with SIGINT, which a process that was started with nohup ignores.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=directory)  # noqa: S603  (our own program)
    try:
        # Polled: Ray raises its exception between Python instructions, not within a system call.
        while process.poll() is None:
            time.sleep(POLL_S)
        return process.returncode
    finally:
        process.terminate()
        process.wait()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no question, and nothing is sent
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # two runs may print the same line
    try:
        import ray  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise LaunchError(f"--launcher ray needs Ray: {install_command('ray')}") from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start Ray on this machine."""
    if address:
        ray.init(address=address, logging_level="ERROR")
    else:
        # Without an address, Ray would join the cluster that was started here last.
        ray.init(address="local", logging_level="ERROR", include_dashboard=False)


def _wait_or_stop(ray: Any, tasks: list[Any]) -> bool:
    """Wait for the tasks; return True if SIGTERM or Ctrl-C stopped them, once they have saved."""
    with stop_on_signal(signal.SIGTERM, signal.SIGINT) as stop:
        while True:
            _, unfinished = ray.wait(tasks, num_returns=len(tasks), timeout=0.5)
            if not unfinished:
                return False
            if stop.is_set():
                break
        for task in tasks:
            ray.cancel(task)
        ray.wait(tasks, num_returns=len(tasks), timeout=SAVING_TIMEOUT_S)
    return True


def _count_fitting(name: str, requested: float, available: float) -> int:
    """Return how many workers a cluster's amount of one resource is enough for."""
    if available < requested:
        raise LaunchError(
            f"A worker requests {requested:g} {name}; Ray has {available:g}. Give --cluster FILE."
        )
    return int(available / requested)
