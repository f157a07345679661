"""Where a number comes from: code, versions, device, cost."""

import platform
import resource
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from san import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "timm", "numpy", "hydra-core", "scikit-learn")


@cache
def code() -> dict[str, Any]:
    """Return the commit of the checkout and whether it had changes; both None outside a git checkout."""

    def git(*words: str) -> str:
        answer = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)  # noqa: S603, S607
        return answer.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version(), "san": __version__, **{name: version(name) for name in PACKAGES}}


def pick_device(wanted: str) -> torch.device:
    """Return the device called `wanted`, where `auto` is a GPU if there is one; raise ValueError if it is not there."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda") or (wanted == "cuda" and not torch.cuda.is_available()):
        usable = "auto, cpu, cuda" if torch.cuda.is_available() else "auto, cpu (torch sees no GPU here)"
        raise ValueError(f"device came as '{wanted}'; allowed: {usable}.")
    return torch.device(wanted)


def describe(device: torch.device) -> dict[str, Any]:
    """Return what a device is."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"type": device.type, "name": name, "threads": torch.get_num_threads(), "system": platform.platform()}


def start_meter(device: torch.device) -> None:
    """Forget earlier peaks of GPU memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory taken: on the GPU since `start_meter`, or resident in this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
