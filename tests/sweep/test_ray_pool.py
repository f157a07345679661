"""A sweep on Ray, in this machine: to its end, told to stop, and what it says where it cannot begin."""

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from san.errors import LaunchError
from san.sweep import ray_pool

ROOT = Path(__file__).parents[2]


class OnRay:
    """Sweeps of the demo suite on Ray."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.results = folder / "results"
        self.profile = folder / "profile.yaml"
        self.profile.write_text("num_cpus: 1\n")
        self.data = data

    def start(self, *options: str, epochs: int = 2, jobs: str = "2") -> subprocess.Popen[str]:
        command = [
            sys.executable,
            str(ROOT / "scripts/reproduce.py"),
            "demo",
            "--methods",
            "linear,san",
        ]
        command += [
            "--tasks",
            "digits,count",
            "--launcher",
            "ray",
            "--profile",
            str(self.profile),
            "--jobs",
            jobs,
        ]
        command += [
            *options,
            f"epochs={epochs}",
            "logger=none",
            f"results={self.results}",
            f"data_root={self.data}",
        ]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


@pytest.fixture
def on_ray(tmp_path: Path, data_root: Path) -> OnRay:
    if importlib.util.find_spec("ray") is None:
        pytest.fail("no Ray: pip install -e '.[ray]'")
    return OnRay(tmp_path, data_root)


@pytest.mark.sweep
def test_units_share_a_sweep_to_its_end(on_ray: OnRay) -> None:
    driver = on_ray.start()
    text, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, text
    assert text.count(" % in ") == 4  # no run twice
    assert "4 runs: 4 done" in text
    assert text.count("**Demo suite**") == 1  # the units print no table of their own
    again = on_ray.start()
    assert "4 runs: 4 done" in again.communicate(timeout=100)[0]
    assert again.returncode == 0


@pytest.mark.sweep
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_units_end_with_their_driver_and_save_what_they_are_at(
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
def test_what_it_cannot_give_is_said(on_ray: OnRay) -> None:
    on_ray.profile.write_text("num_gpus: 99\n")
    assert (
        "A unit asks for 99 GPU; Ray has 0. Give PROFILE=FILE"
        in on_ray.start().communicate(timeout=100)[0]
    )
    on_ray.profile.write_text("gpus: 1\n")
    assert (
        "The profile says gpus; allowed: address, num_gpus"
        in on_ray.start().communicate(timeout=100)[0]
    )


def test_as_many_units_as_there_is_room_for() -> None:
    has = {"GPU": 4.0, "CPU": 32.0, "memory": 64e9, "big": 3.0}
    assert ray_pool.max_workers({"num_gpus": 1, "num_cpus": 4}, has) == 4
    assert ray_pool.max_workers({"num_gpus": 0.5, "num_cpus": 4}, has) == 8
    assert ray_pool.max_workers({"num_gpus": 0.5, "num_cpus": 8}, has) == 4
    assert ray_pool.max_workers({"num_gpus": 0, "num_cpus": 8, "resources": {"big": 1}}, has) == 3
    with pytest.raises(LaunchError, match=r"asks for 8 GPU; Ray has 4"):
        ray_pool.max_workers({"num_gpus": 8}, has)
