"""The device of a run: its choice and its description."""

import platform

import torch

from san.errors import InvalidValueError
from san.runtime import distributed
from san.runtime.environment import DeviceInfo


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
