"""One run on several devices: `torchrun --nproc-per-node 4 train.py ...`.

Each process (a rank) takes its share of every batch, DistributedDataParallel averages the gradients, and rank 0 alone
claims, reports and writes. Without torchrun there is one rank, and nothing here does anything.
"""

import atexit
import logging
import os
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from san.runtime.signals import exit_with_parent

Value = TypeVar("Value")


def rank() -> int:
    """Return which of the processes this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def init_distributed(device: torch.device) -> None:
    """Meet the other processes, once, where torchrun started this one; each has a device of its own."""
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        return
    exit_with_parent(os.getppid())
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    atexit.register(dist.destroy_process_group)
    logging.disable(logging.INFO if rank() else logging.NOTSET)  # what rank 0 says is said once


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Return the model, so wrapped that its backward pass averages the gradients of all ranks."""
    return DistributedDataParallel(model) if world_size() > 1 else model


def seed_rank(seed: int) -> None:
    """Let each rank draw other random numbers from here on; rank 0 draws what a single process would."""
    if rank():
        torch.manual_seed(seed + 1_000_003 * rank())


def is_peer_failure(error: Exception) -> bool:
    """Return whether an error is that another rank does not answer any more: it has died, and knows why."""
    return world_size() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error))


def all_reduce_sum(value: Tensor) -> Tensor:
    """Add up the values of all ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def any_rank(flag: bool) -> bool:
    """Return whether the flag of any rank is set; for every step, as it sends one number."""
    if world_size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return bool(all_reduce_sum(torch.tensor(float(flag), device=device)))


def all_gather_object(value: Value) -> list[Value]:
    """Return the values of all ranks, by rank; pickled, so for now and then."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values
