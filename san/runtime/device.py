"""The device a run uses: which, what it is, and what it costs."""

import importlib
import platform
import resource
from pathlib import Path
from typing import Any

import torch

from san.runtime import distributed

POWERCAP = Path(
    "/sys/class/powercap"
)  # RAPL counters; the kernel lets only root read them by default


def pick_device(wanted: str) -> torch.device:
    """Return the device called `wanted`, where `auto` is a GPU if there is one; raise ValueError if it is not there."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda") or (wanted == "cuda" and not torch.cuda.is_available()):
        usable = (
            "auto, cpu, cuda" if torch.cuda.is_available() else "auto, cpu (torch sees no GPU here)"
        )
        raise ValueError(f"device came as '{wanted}'; allowed: {usable}.")
    return torch.device(wanted)


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return what a device is."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "type": device.type,
        "name": name,
        "count": distributed.world_size(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


class Meter:
    """What a run costs from here on: peak memory and, where the device tells, energy."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin = energy_joules(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> dict[str, Any]:
        """Return `peak_bytes` (allocated on the GPU, or resident in this process since it began) and `joules`."""
        end = energy_joules(self.device)
        spent = None if self.begin is None or end is None or end < self.begin else end - self.begin
        if self.device.type == "cuda":
            return {"peak_bytes": torch.cuda.max_memory_allocated(self.device), "joules": spent}
        return {
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "joules": spent,
        }


def energy_joules(device: torch.device) -> float | None:
    """Return a device's energy counter in joules: NVML's (with nvidia-ml-py installed) or RAPL's; None without one."""
    try:
        if device.type == "cuda":
            nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByUUID(
                f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            )
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        packages = [
            int((folder / "energy_uj").read_text()) for folder in POWERCAP.glob("intel-rapl:?")
        ]
        return sum(packages) / 1e6 if packages else None
    except (
        Exception
    ):  # a counter that cannot be read, for whatever reason, is one that does not tell
        return None
