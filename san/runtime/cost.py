"""What a run costs: time, peak memory and energy, over all processes that it takes."""

import importlib
import re
import time
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta, Struct

from san.runtime import distributed
from san.runtime.timestamps import check_timestamp, utc_now
from san.schema import NonNegativeFloat

# RAPL energy counters; by default only root may read them.
POWERCAP = Path("/sys/class/powercap")
_RESET_PEAK = "5"  # written to clear_refs it sets VmHWM to what is resident now (man 5 proc)


class Cost(Struct, frozen=True, forbid_unknown_fields=True):
    """What a run has cost so far.

    started: when its first process began. device_seconds: wall time times devices.
    build_seconds, evaluate_seconds: what those parts took. peak_bytes: the most of any process.
    What is None is not known of some process.
    """

    started: str
    device_seconds: NonNegativeFloat
    build_seconds: NonNegativeFloat
    evaluate_seconds: NonNegativeFloat
    peak_bytes: Annotated[int, Meta(ge=0, lt=2**53)] | None
    joules: NonNegativeFloat | None

    def __post_init__(self) -> None:
        check_timestamp(self.started)

    def followed_by(self, later: "Cost") -> "Cost":
        """Return the cost of this process and of a later one that went on from it."""
        peak_bytes = None
        if self.peak_bytes is not None and later.peak_bytes is not None:
            peak_bytes = max(self.peak_bytes, later.peak_bytes)
        joules = None
        if self.joules is not None and later.joules is not None:
            joules = self.joules + later.joules
        return Cost(
            started=self.started,
            device_seconds=self.device_seconds + later.device_seconds,
            build_seconds=self.build_seconds + later.build_seconds,
            evaluate_seconds=self.evaluate_seconds + later.evaluate_seconds,
            peak_bytes=peak_bytes,
            joules=joules,
        )


class Meter:
    """Measures what a run costs, from its construction on.

    build_seconds, evaluate_seconds: are counted by whoever does these parts.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.build_seconds = 0.0
        self.evaluate_seconds = 0.0
        self._earlier: Cost | None = None
        self._started = utc_now()
        self._start = time.perf_counter()
        self._start_joules = energy_joules(device)
        self._is_peak_ours = _reset_peak(device)

    @property
    def started(self) -> str:
        """When the run began, in its first process."""
        return self._started if self._earlier is None else self._earlier.started

    def go_on_from(self, earlier: Cost) -> None:
        """Add what earlier processes of the run have cost."""
        self._earlier = earlier

    def read(self) -> Cost:
        """Return the cost so far; all ranks of a run call it together."""
        seconds = time.perf_counter() - self._start
        here = Cost(
            started=self._started,
            device_seconds=seconds * distributed.world_size(),
            build_seconds=self.build_seconds,
            evaluate_seconds=self.evaluate_seconds,
            peak_bytes=_largest(distributed.all_gather_object(self._peak_bytes())),
            joules=self._joules_of_all_ranks(),
        )
        return here if self._earlier is None else self._earlier.followed_by(here)

    def _peak_bytes(self) -> int | None:
        if not self._is_peak_ours:
            return None
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _peak_resident_bytes()

    def _joules_of_all_ranks(self) -> float | None:
        """Return the energy of every rank's GPU; the CPU's counter is of the whole machine."""
        by_rank = distributed.all_gather_object(self._joules())
        if self.device.type != "cuda":
            return by_rank[0]
        known = [joules for joules in by_rank if joules is not None]
        return sum(known) if len(known) == len(by_rank) else None

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


def _reset_peak(device: torch.device) -> bool:
    """Let the peak memory begin anew; return whether that could be done."""
    if device.type == "cuda":
        # Before, there are no statistics to reset.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, "utf-8")
    except OSError:
        return False
    return _peak_resident_bytes() is not None


def _peak_resident_bytes() -> int | None:
    """Return the most memory that was resident in this process, or None where no file says so."""
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return None if found is None else 1024 * int(found[1])


def _largest(values: list[int | None]) -> int | None:
    """Return the largest of some values, None where one is not known."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None
