"""Where numbers come from, and what runs cost."""

import sys
import types
from pathlib import Path

import pytest
import torch

from san.runtime import device
from san.runtime.device import Meter, describe_device, energy_joules, pick_device
from san.runtime.environment import git_state, package_versions

CPU = torch.device("cpu")


def test_facts_are_there() -> None:
    assert set(git_state()) == {"commit", "dirty"}
    assert torch.__version__.startswith(package_versions()["torch"])
    assert describe_device(CPU)["type"] == "cpu"
    assert Meter(CPU).read()["peak_bytes"] > 1e7


def test_energy_is_what_the_counters_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "POWERCAP", tmp_path)
    assert Meter(CPU).read()["joules"] is None
    for i, microjoules in enumerate((1_000_000, 5_000_000)):
        (tmp_path / f"intel-rapl:{i}").mkdir()
        (tmp_path / f"intel-rapl:{i}" / "energy_uj").write_text(f"{microjoules}\n")
    meter = Meter(CPU)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("3500000\n")
    assert meter.read()["joules"] == pytest.approx(2.5)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("0\n")  # the counter wrapped round
    assert meter.read()["joules"] is None


def test_a_gpu_is_asked_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = types.ModuleType("pynvml")
    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 7000 if handle == "GPU-abc" else 0
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(uuid="abc")
    )
    assert energy_joules(torch.device("cuda")) == 7.0
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_joules(torch.device("cuda")) is None


def test_devices() -> None:
    assert pick_device("cpu") == CPU
    with pytest.raises(ValueError, match="device came as 'gpu'; allowed: auto, cpu"):
        pick_device("gpu")
