"""A run that is interrupted goes on where it was: what training needs, in one safetensors file beside the record.

Saved: what trains, the optimiser, the position in the epoch, the random states of torch and of the order of images, the
curve so far. On a CPU a run that was interrupted and goes on ends with the same bits as one that was not.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from san.errors import Preempted
from san.record import Point
from san.runtime import distributed

log = logging.getLogger(__name__)
RANDOM = ("cpu", "cuda")
SAVE_EVERY_S = 60.0  # seconds of training that a crash may cost, beyond the epoch in flight


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what trains, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@dataclass
class Position:
    """epoch: in training, from 1; batch: how many of its batches are done; losses: their sum; seconds: of training."""

    epoch: int = 1
    batch: int = 0
    losses: float = 0.0
    seconds: float = 0.0


@dataclass
class Checkpoint:
    """Where a run saves itself. stop: set it, and the run saves and raises Preempted after the step in flight.

    curve: the scores so far; the run adds to it, and finds them again after `load`.
    """

    path: Path
    stop: threading.Event = field(default_factory=threading.Event)
    curve: list[Point] = field(default_factory=list)
    saved: float = field(default_factory=time.monotonic)

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, order: torch.Generator
    ) -> Position:
        """Bring model, optimiser and random states to where they were saved; return the position, or the beginning.

        A file that cannot be read is left aside with a warning: the run then begins anew.
        """
        at = self.read(model, optimizer, order) if self.path.exists() else Position()
        if any(other != at for other in distributed.all_gather_object(at)):
            raise RuntimeError(
                f"{self.path} is not the same to all ranks. Give results=, a folder that all of them share."
            )
        return at

    def read(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, order: torch.Generator
    ) -> Position:
        """Read the file; return the position, or the beginning where it cannot be used."""
        try:
            with safe_open(self.path, "pt") as file:
                facts = json.loads(file.metadata()["facts"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
            curve, at = [Point(**point) for point in facts["curve"]], Position(**facts["position"])
            self.fill(model, optimizer, order, tensors)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            log.warning("%s cannot be read (%s); the run begins anew.", self.path, error)
            return Position()
        self.curve[:] = curve
        return at

    def fill(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        order: torch.Generator,
        tensors: Mapping[str, Tensor],
    ) -> None:
        """Put saved tensors in their places; the model last, when nothing can fail any more."""
        trained = trainable_parameters(model)
        saved = {key[6:]: value for key, value in tensors.items() if key.startswith("model/")}
        if {name: p.shape for name, p in trained.items()} != {
            name: value.shape for name, value in saved.items()
        }:
            raise ValueError("it is of another model")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "optimizer":
                index, _, name = rest.partition("/")
                state.setdefault(int(index), {})[name] = value
        cpu, cuda = (tensors.get(f"{kind}/{distributed.rank()}") for kind in RANDOM)
        if cpu is not None:  # more ranks than before have drawn their own
            torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)
        order.set_state(tensors["order"])
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
        with torch.no_grad():
            for name, p in trained.items():
                p.copy_(saved[name])

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, order: Tensor, at: Position
    ) -> None:
        """Save the run, whole or not at all; rank 0 writes what all ranks come to at the same step.

        order: the state of the order's generator when the epoch began.
        """
        cuda = (torch.cuda.get_rng_state(),) if torch.cuda.is_available() else ()
        states = distributed.all_gather_object((torch.get_rng_state(), *cuda))
        if distributed.rank() == 0:
            try:
                self.write(self.tensors(model, optimizer, order, states), at)
            except (
                OSError,
                SafetensorError,
            ) as error:  # a full disk may have room again by the end
                log.warning(
                    "%s cannot be written (%s); a run that is killed goes on from an older one.",
                    self.path,
                    error,
                )
        distributed.all_gather_object(
            None
        )  # none ends before it is written: torchrun would kill the others
        self.saved = time.monotonic()

    def tensors(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        order: Tensor,
        states: Sequence[tuple[Tensor, ...]],
    ) -> dict[str, Tensor]:
        """Name all that is saved. states: the random states of each rank's devices."""
        named = {f"model/{name}": p.detach() for name, p in trainable_parameters(model).items()}
        for index, values in optimizer.state_dict()["state"].items():
            named |= {
                f"optimizer/{index}/{key}": value
                for key, value in values.items()
                if value is not None
            }
        named |= {
            f"{kind}/{rank}": s
            for rank, both in enumerate(states)
            for kind, s in zip(RANDOM, both, strict=False)
        }
        return named | {"order": order}

    def write(self, tensors: Mapping[str, Tensor], at: Position) -> None:
        """Write the file, whole or not at all."""
        facts: dict[str, Any] = {
            "position": asdict(at),
            "curve": [asdict(point) for point in self.curve],
        }
        new = self.path.with_name(f".{self.path.name}-{os.getpid()}")
        try:
            whole = {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
            save_file(whole, new, {"facts": json.dumps(facts)})
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, order: Tensor, at: Position
    ) -> None:
        """Save and raise Preempted if the run, or another rank of it, was told to stop."""
        if distributed.any_rank(self.stop.is_set()):
            self.save(model, optimizer, order, at)
            raise Preempted(f"stopped in epoch {at.epoch}; what is saved is in {self.path}")

    def after_epoch(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, order: Tensor, at: Position
    ) -> None:
        """Save if the last time is a while ago; several ranks, whose clocks differ, always do."""
        if distributed.world_size() > 1 or time.monotonic() - self.saved > SAVE_EVERY_S:
            self.save(model, optimizer, order, at)

    def remove(self) -> None:
        """Take the file away: the run is over."""
        if distributed.rank() == 0:
            self.path.unlink(missing_ok=True)
