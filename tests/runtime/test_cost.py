"""What runs cost: time, peak memory and energy, over all processes of a run."""

import datetime
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from san.runtime import cost, distributed
from san.runtime.cost import Cost, Meter, energy_joules

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
COST = Cost(
    started="2026-01-01T00:00:00+00:00",
    device_seconds=10.0,
    build_seconds=1.0,
    evaluate_seconds=2.0,
    peak_bytes=1000,
    joules=5.5,
)


# In a process of its own: what earlier tests have left comes and goes by hundreds of megabytes.
PEAKS = """
import numpy as np
import torch
from san.runtime.cost import Meter

for megabytes in (1, 300, 50):
    meter = Meter(torch.device("cpu"))
    block = np.ones(megabytes * 2**17)
    print(meter.read().peak_bytes)
    del block
"""


def test_peak_memory_is_that_of_the_run_and_not_of_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAKS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, large, small = map(int, done.stdout.split())
    assert large > before + 250e6
    assert small < large - 200e6
    assert small > before + 40e6


def test_a_peak_that_cannot_be_told_from_the_process_s_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_text = Path.write_text

    def refuse(path: Path, *words: str) -> int:
        if path.name == "clear_refs":
            raise PermissionError(13, "Permission denied")
        return write_text(path, *words)

    monkeypatch.setattr(Path, "write_text", refuse)
    assert Meter(CPU).read().peak_bytes is None


def test_energy_is_the_difference_of_the_counters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cost, "POWERCAP", tmp_path)
    assert Meter(CPU).read().joules is None
    for i, microjoules in enumerate((1_000_000, 5_000_000)):
        (tmp_path / f"intel-rapl:{i}").mkdir()
        (tmp_path / f"intel-rapl:{i}" / "energy_uj").write_text(f"{microjoules}\n")
    meter = Meter(CPU)
    assert meter.read().joules == 0.0
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("3500000\n")
    assert meter.read().joules == pytest.approx(2.5)
    meter.go_on_from(COST)
    assert meter.read().joules == pytest.approx(2.5 + 5.5)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("0\n")  # the counter wrapped round
    assert meter.read().joules is None


def test_a_gpu_is_read_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = types.ModuleType("pynvml")
    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 7000 if handle == "GPU-abc" else 0
    properties = types.SimpleNamespace(uuid="abc")
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert energy_joules(torch.device("cuda")) == 7.0
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_joules(torch.device("cuda")) is None


def test_what_processes_of_a_run_cost_adds_up() -> None:
    later = Cost(
        started="2026-01-02T00:00:00+00:00",
        device_seconds=20.0,
        build_seconds=0.5,
        evaluate_seconds=0.25,
        peak_bytes=3000,
        joules=1.0,
    )
    assert COST.followed_by(later) == Cost(
        started=COST.started,
        device_seconds=30.0,
        build_seconds=1.5,
        evaluate_seconds=2.25,
        peak_bytes=3000,
        joules=6.5,
    )
    unknown = msgspec.structs.replace(later, peak_bytes=None, joules=None)
    for both in (COST.followed_by(unknown), unknown.followed_by(COST)):
        assert (both.peak_bytes, both.joules) == (None, None)
        assert both.device_seconds == 30.0


def test_time_counts_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    meter = Meter(CPU)
    meter.evaluate_seconds += 4.0
    monkeypatch.setattr(time, "perf_counter", lambda: 107.5)
    here = meter.read()
    assert (here.device_seconds, here.evaluate_seconds) == (7.5, 4.0)
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(here.started)
    assert abs(age.total_seconds()) < 60
    meter.go_on_from(COST)
    assert meter.started == COST.started
    assert meter.read().device_seconds == 17.5
    assert meter.read().evaluate_seconds == 6.0


def ranks(values: list[object]) -> Callable[[object], list[object]]:
    """Gathering as it is where other ranks have these values."""
    return lambda own: [own, *values]


def test_ranks_share_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    meter = Meter(CPU)
    monkeypatch.setattr(time, "perf_counter", lambda: 103.0)
    monkeypatch.setattr(distributed, "all_gather_object", ranks([2**52]))
    assert meter.read().device_seconds == 6.0
    assert meter.read().peak_bytes == 2**52  # the most of any
    monkeypatch.setattr(distributed, "all_gather_object", ranks([None]))
    assert meter.read().peak_bytes is None


@pytest.mark.parametrize(
    "change",
    [
        {"device_seconds": -1.0},
        {"build_seconds": -1.0},
        {"peak_bytes": -1},
        {"joules": -1.0},
        {"started": "today"},
        {"surprise": 1},
    ],
)
def test_a_cost_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    raw = msgspec.to_builtins(COST)
    assert msgspec.convert(raw, Cost) == COST
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw | change, Cost)
