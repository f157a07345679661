"""One run on several devices: `torchrun --nproc-per-node 4 train.py ...`.

Each process (rank) computes its shard of every batch, DistributedDataParallel averages the
gradients, and rank 0 alone holds the lease, logs and writes. Without torchrun there is one rank,
and every function here is trivial.
"""

import atexit
import logging
import os
from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from san.runtime.signals import exit_with_parent

T = TypeVar("T")


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def init_distributed(device: torch.device) -> None:
    """Join the process group if torchrun started this process; further calls do nothing.

    On CUDA each process gets the GPU of its local rank.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        return
    exit_with_parent(os.getppid())
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    atexit.register(dist.destroy_process_group)
    if rank() != 0:
        logging.disable(logging.INFO)  # rank 0 already logs it; warnings pass


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Return the model wrapped such that its backward pass averages gradients over all ranks."""
    if world_size() == 1:
        return model
    # Statistics are shared after each step, not before the next.
    return DistributedDataParallel(model, broadcast_buffers=False)


def broadcast_from_rank_0(tensors: Iterable[Tensor]) -> None:
    """Give each of several ranks the values of rank 0."""
    for tensor in tensors:
        dist.broadcast(tensor, src=0)


def seed_rank(seed: int) -> None:
    """Let each rank draw different random numbers; rank 0 draws those of a single process."""
    if rank() != 0:
        torch.manual_seed(seed + 1_000_003 * rank())


def is_peer_failure(error: Exception) -> bool:
    """Return whether the error is a collective failing because a peer process died."""
    # gloo raises plain RuntimeErrors; its name is in their text.
    return world_size() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error))


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on any rank; cheap enough for every step."""
    if world_size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    ranks_with_flag = all_reduce_sum(torch.tensor(float(flag), device=device))
    return bool(ranks_with_flag)


def all_gather_object(value: T) -> list[T]:
    """Return the values of all ranks, in order of rank; pickles them, so not for every step."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values
