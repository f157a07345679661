"""Work through a sweep on Ray: several GPUs or shares of one in a box, or a cluster without SLURM.

Each unit is a task of Ray's, with the resources that the profile asks for, and runs the command of a local sweep; the
units share it by claims. They end with the driver, and save what they are at. Only this module knows Ray.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from san.errors import LaunchError
from san.runtime.signals import stop_on_signal

RESOURCES = ("num_gpus", "num_cpus", "memory", "resources")
SAVING = 120.0  # seconds that units which are told to stop have to save what they are at
NAMES = {
    "num_gpus": "GPU",
    "num_cpus": "CPU",
    "memory": "memory",
}  # in what Ray says that a cluster has


def run_on_ray(command: Sequence[str], jobs: int | None, profile: Mapping[str, Any]) -> bool:
    """Run the command in `jobs` units (None: as many as there is room for) to their ends, or until told to stop.

    profile: `address` of a cluster (None: this machine), and what a unit asks for, by Ray's names.
    Returns whether it was told to stop; the units have saved then what they were at.
    Raises LaunchError where Ray is not installed or reached, or has not what one unit asks for.
    """
    unknown = profile.keys() - {"address", *RESOURCES}
    if unknown:
        raise LaunchError(
            f"The profile says {', '.join(sorted(unknown))}; allowed: address, {', '.join(RESOURCES)}."
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it asks nothing and sends nothing
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # two runs may say the same
    try:
        import ray as untyped  # noqa: PLC0415
    except ImportError as error:
        raise LaunchError("LAUNCHER=ray needs Ray: pip install -e '.[ray]'.") from error
    ray: Any = untyped
    asks = {key: profile[key] for key in RESOURCES if profile.get(key) is not None}
    own = {} if profile.get("address") else {"include_dashboard": False}
    address = (
        profile.get("address") or "local"
    )  # None would join whatever cluster was started here last
    try:
        ray.init(address=address, logging_level="ERROR", **own)
        room = max_workers(asks, ray.cluster_resources())
        task = ray.remote(worker_command).options(name="san", **asks)
        tasks = [task.remote(list(command), str(Path.cwd())) for _ in range(jobs or room)]
        told = wait_or_stop(ray, tasks)
        if not told:
            ray.get(tasks)  # raises what Ray says of a unit that it has lost
        return told
    except ray.exceptions.RayError as error:
        raise LaunchError(
            f"Ray lost a unit, whose runs the same command goes on with: {error}"
        ) from error
    except (ConnectionError, ValueError) as error:
        raise LaunchError(f"Ray refused the sweep: {error}") from error
    finally:
        ray.shutdown()


def wait_or_stop(ray: Any, tasks: list[Any]) -> bool:
    """Wait for the tasks; on SIGTERM or Ctrl-C stop them, wait until they have saved themselves, and return True."""
    with stop_on_signal(signal.SIGTERM, signal.SIGINT) as stop:
        while ray.wait(tasks, num_returns=len(tasks), timeout=0.5)[1]:
            if stop.is_set():
                for task in tasks:
                    ray.cancel(task)
                ray.wait(tasks, num_returns=len(tasks), timeout=SAVING)
                return True
    return False


def max_workers(asks: Mapping[str, Any], has: Mapping[str, float]) -> int:
    """Return how many units there is room for at a time; raise LaunchError where there is none for one."""
    wanted = {NAMES[key]: value for key, value in asks.items() if key in NAMES} | dict(
        asks.get("resources", {})
    )
    for name, value in wanted.items():
        if has.get(name, 0) < value:
            raise LaunchError(
                f"A unit asks for {value} {name}; Ray has {has.get(name, 0):g}. Give PROFILE=FILE."
            )
    return int(min((has[name] / value for name, value in wanted.items() if value), default=1))


def worker_command(command: list[str], folder: str) -> int:
    """Run the command of a unit; Ray has set which devices it sees. Cancelled, it waits until the sweep has saved."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # Ray cancels by it; what began with nohup ignores it
    process = subprocess.Popen(command, cwd=folder)  # noqa: S603  (our own program)
    try:
        while process.poll() is None:
            time.sleep(0.2)  # Ray cancels by an exception, which a system call would not notice
        return process.returncode
    finally:
        process.terminate()
        process.wait()
