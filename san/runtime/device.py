"""The device of a run: its choice, its description, and what the run costs on it."""

import importlib
import platform
import resource
from dataclasses import dataclass
from pathlib import Path

import torch

from san.errors import InvalidValueError
from san.runtime import distributed
from san.runtime.environment import DeviceInfo

# RAPL energy counters; by default only root may read them.
POWERCAP = Path("/sys/class/powercap")


def pick_device(wanted: str) -> torch.device:
    """Return the device called `wanted`: `cpu`, `cuda`, or `auto`, which is a GPU if there is one.

    Raise InvalidValueError if it does not exist here.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    if wanted == "cpu" or (wanted == "cuda" and has_gpu):
        return torch.device(wanted)
    allowed = "auto, cpu, cuda" if has_gpu else "auto, cpu (torch sees no GPU here)"
    raise InvalidValueError(f"device came as '{wanted}'; allowed: {allowed}.")


def describe_device(device: torch.device) -> DeviceInfo:
    """Return the description that goes into a record."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
    return DeviceInfo(
        type=device.type,
        name=name,
        count=distributed.world_size(),
        threads=torch.get_num_threads(),
        system=platform.platform(),
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or its cause, says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # torch has no class of its own for the CPU's.
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


@dataclass(frozen=True)
class Cost:
    """Cost of a run. joules: None without a readable energy counter.

    peak_bytes: allocated on the GPU, or resident in this process (since it began) on the CPU.
    """

    peak_bytes: int
    joules: float | None


class Meter:
    """Measures peak memory and energy from its construction on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._start_joules = energy_joules(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> Cost:
        """Return the cost so far."""
        return Cost(self._peak_bytes(), self._joules())

    def _peak_bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_maxrss * 1024  # Linux counts in KiB

    def _joules(self) -> float | None:
        now = energy_joules(self.device)
        if self._start_joules is None or now is None:
            return None
        if now < self._start_joules:  # the counter has wrapped round
            return None
        return now - self._start_joules


def energy_joules(device: torch.device) -> float | None:
    """Return the energy counter of a device in joules, or None without one.

    GPU: NVML, through the optional package nvidia-ml-py. CPU: RAPL, summed over the sockets.
    """
    try:
        return _nvml_joules(device) if device.type == "cuda" else _rapl_joules()
    except Exception:  # drivers fail in many ways, and a missing energy must not stop a run
        return None


def _nvml_joules(device: torch.device) -> float:
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    # By UUID: NVML's indices ignore CUDA_VISIBLE_DEVICES.
    uuid = torch.cuda.get_device_properties(device).uuid
    handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    millijoules = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    return float(millijoules) / 1e3


def _rapl_joules() -> float | None:
    counters = [folder / "energy_uj" for folder in POWERCAP.glob("intel-rapl:?")]
    if not counters:
        return None
    microjoules = sum(int(counter.read_text("utf-8")) for counter in counters)
    return microjoules / 1e6
