"""A sweep on Ray, on this machine: to its end, stopped, and refused with a reason."""

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from san.errors import InvalidValueError, LaunchError
from san.sweep import ray_pool

ROOT = Path(__file__).parents[2]


class OnRay:
    """Sweeps of the demo suite on Ray."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.results = folder / "results"
        self.cluster = folder / "cluster.yaml"
        self.cluster.write_text("num_cpus: 1\n")
        self.data = data

    def start(self, *options: str, epochs: int = 2, jobs: str = "2") -> subprocess.Popen[str]:
        script = [sys.executable, str(ROOT / "scripts/reproduce.py"), "demo"]
        chosen = ["--methods", "san,linear", "--tasks", "digits,count", "--seeds", "0"]
        launcher = ["--launcher", "ray", "--cluster", str(self.cluster), "--jobs", jobs]
        overrides = [
            f"epochs={epochs}",
            "logger=none",
            f"results_dir={self.results}",
            f"data_root={self.data}",
        ]
        command = [*script, *chosen, *launcher, *options, *overrides]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


@pytest.fixture
def on_ray(tmp_path: Path, data_root: Path) -> OnRay:
    if importlib.util.find_spec("ray") is None:
        pytest.fail("no Ray: pip install -e '.[ray]'")
    return OnRay(tmp_path, data_root)


@pytest.mark.sweep
def test_workers_share_a_sweep_to_its_end(on_ray: OnRay) -> None:
    driver = on_ray.start()
    text, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, text
    assert text.count(" % in ") == 4  # no run twice
    assert "4 runs: 4 done" in text
    assert text.count("**Demo suite**") == 1  # the workers print no table of their own
    again = on_ray.start()
    assert "4 runs: 4 done" in again.communicate(timeout=100)[0]
    assert again.returncode == 0


@pytest.mark.sweep
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_driver_and_save_checkpoints(
    number: signal.Signals, on_ray: OnRay
) -> None:
    driver = on_ray.start(epochs=60, jobs="1")
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not list(on_ray.results.rglob("*.claim")):
        time.sleep(0.1)
    time.sleep(2)
    driver.send_signal(number)
    driver.communicate(timeout=60)
    assert driver.returncode not in (0, 1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and list(on_ray.results.rglob("*.claim")):
        time.sleep(0.1)
    assert not list(on_ray.results.rglob("*.claim"))
    assert len(list(on_ray.results.rglob("*.checkpoint"))) == 1


@pytest.mark.sweep
def test_requests_that_ray_cannot_meet_are_refused(on_ray: OnRay) -> None:
    on_ray.cluster.write_text("num_gpus: 99\n")
    text, _ = on_ray.start().communicate(timeout=100)
    assert "A worker requests 99 GPU; Ray has 0. Give --cluster FILE" in text
    on_ray.cluster.write_text("gpus: 1\n")
    text, _ = on_ray.start().communicate(timeout=100)
    assert "Unknown key of the cluster file 'gpus'. Did you mean num_gpus" in text


def test_as_many_workers_as_fit() -> None:
    available = {"GPU": 4.0, "CPU": 32.0, "memory": 64e9, "big": 3.0}

    def fitting(**options: Any) -> int:
        return ray_pool.max_workers(ray_pool.RayOptions(**options).requested(), available)

    assert fitting(num_gpus=1, num_cpus=4) == 4
    assert fitting(num_gpus=0.5, num_cpus=4) == 8
    assert fitting(num_gpus=0.5, num_cpus=8) == 4
    assert fitting(num_gpus=0, num_cpus=8, resources={"big": 1}) == 3
    assert fitting() == 1
    with pytest.raises(LaunchError, match=r"requests 8 GPU; Ray has 4"):
        fitting(num_gpus=8)


def test_a_cluster_file_is_checked_before_ray_starts() -> None:
    with pytest.raises(InvalidValueError, match="num_gpus came as -1"):
        ray_pool.run_on_ray(["true"], None, {"num_gpus": -1})
