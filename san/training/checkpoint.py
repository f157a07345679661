"""Checkpoint and resume: what training needs, in one safetensors file beside the record.

Saved: trainable parameters, buffers, the average of both, optimizer, position in the epoch, random
states of torch and of the shuffling, history and answers so far, and what they cost; with the run's
identity and a checksum, so that nothing else is taken for it. On a CPU an interrupted and resumed
run ends with the same bits as an uninterrupted one.
"""

import hashlib
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from san.adapter.adapter_file import content_hash
from san.answers import pack_answers
from san.backbones import persistent_buffers
from san.errors import FileAccessError, Preempted
from san.runtime import distributed
from san.runtime.cost import Cost, Meter
from san.runtime.files import atomic_write, check_regular, parse_json
from san.score import EpochEntry
from san.training.ema import WeightAverage
from san.training.history import History

log = logging.getLogger(__name__)
SAVE_EVERY_S = 60.0  # seconds of training that a crash may cost, beyond the epoch in flight
_RNG_KINDS = ("cpu", "cuda")
_ANSWERS = "answers"  # the tensor of their bits
_RANDOM_STATES = 10**7  # bytes: some 5 kB for each device of each rank


@dataclass
class Position:
    """Where training is.

    epoch: in training, from 1. batch: how many of its batches are done; losses: their sum.
    seconds: spent in training steps so far.
    """

    epoch: int = 1
    batch: int = 0
    losses: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Trained:
    """What training changes. average: of the weights, None where none is kept."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None = None

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Return these and the persistent buffers, which may hold statistics that move."""
        return {**self.parameters(), **persistent_buffers(self.model)}

    def as_evaluated(self) -> AbstractContextManager[None]:
        """Give the model the weights that are evaluated, for a while."""
        return nullcontext() if self.average is None else self.average.applied()

    def finish(self) -> None:
        """Give the model the weights that are evaluated, for good."""
        if self.average is not None:
            self.average.apply()


@dataclass
class Checkpoint:
    """Where a run is saved.

    identity: of the run; a checkpoint of another run is not used. history, meter: what is saved
    of them, `load` brings back. stop: once it is set, the run is saved after the step in flight,
    and Preempted is raised.
    """

    path: Path
    identity: str
    history: History
    meter: Meter
    stop: threading.Event = field(default_factory=threading.Event)
    saved_at: float = field(default_factory=time.monotonic)

    def load(
        self,
        trained: Trained,
        generator: torch.Generator,
        epochs: int,
        batches: int,
    ) -> Position:
        """Restore what trains and the random states; return the position, or the beginning.

        epochs, batches: of the run, and of each epoch. A file that cannot be read, is damaged, or
        says what cannot be of this run, is ignored with a warning, and training restarts from
        scratch. Raises FileAccessError where ranks do not see the same file.
        """
        position = Position()
        if self.path.exists():
            position = self._read(trained, generator, epochs, batches)
        if any(other != position for other in distributed.all_gather_object(position)):
            raise FileAccessError(
                f"{self.path} is not the same for all ranks. "
                "Give results_dir=, a directory that all of them share."
            )
        return position

    def on_step_end(
        self,
        trained: Trained,
        shuffle_state: Tensor,
        position: Position,
    ) -> None:
        """Save and raise Preempted if this run, or another rank of it, was asked to stop."""
        if distributed.any_rank(self.stop.is_set()):
            is_saved = self.save(trained, shuffle_state, position)
            where = f"checkpoint saved to {self.path}" if is_saved else "no checkpoint was saved"
            raise Preempted(f"Stopped in epoch {position.epoch}; {where}.")

    def on_epoch_end(
        self,
        trained: Trained,
        shuffle_state: Tensor,
        position: Position,
    ) -> None:
        """Save if the last time is a while ago; several ranks, whose clocks differ, always do."""
        is_due = time.monotonic() - self.saved_at > SAVE_EVERY_S
        if is_due or distributed.world_size() > 1:
            self.save(trained, shuffle_state, position)

    def save(
        self,
        trained: Trained,
        shuffle_state: Tensor,
        position: Position,
    ) -> bool:
        """Save the run atomically; rank 0 writes, and all ranks are at the same step.

        shuffle_state: of the generator of the order, when the epoch began. Returns whether it is
        saved; a disk that is full now may have room later.
        """
        is_saved = True
        rng_states = [torch.get_rng_state()]
        if torch.cuda.is_available():
            rng_states.append(torch.cuda.get_rng_state())
        states_by_rank = distributed.all_gather_object(tuple(rng_states))
        cost = self.meter.read()
        if distributed.rank() == 0:
            tensors = _named_tensors(trained, shuffle_state, states_by_rank)
            facts = _Facts(self.identity, position, self.history.entries, cost)
            try:
                self._write(tensors, facts)
            except (OSError, SafetensorError) as error:
                is_saved = False
                log.warning(
                    "%s cannot be written (%s); a run that is killed resumes from an older one.",
                    self.path,
                    error,
                )
        self.saved_at = time.monotonic()
        # No rank ends before the file is written: torchrun would kill the others.
        return all(distributed.all_gather_object(is_saved))

    def remove(self) -> None:
        """Delete the file: the run is over."""
        if distributed.rank() == 0:
            self.path.unlink(missing_ok=True)

    def _read(
        self,
        trained: Trained,
        generator: torch.Generator,
        epochs: int,
        batches: int,
    ) -> Position:
        """Read the file; return the position, or the beginning where it cannot be used."""
        try:
            check_regular(self.path)
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
                facts: _Facts = parse_json(metadata.get("facts", ""), _Facts)
                self._check_facts(facts, epochs, batches)
                _check_sizes(file, trained)
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if _digest(facts, tensors) != metadata.get("digest"):
                raise ValueError("its content is not what was saved")
            answers = self.history.unpack_saved(facts.history, _saved_answers(tensors))
            _load_state(trained, generator, tensors)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            log.warning(
                "%s is an unreadable checkpoint (%s); training restarts from scratch.",
                self.path,
                error,
            )
            return Position()
        self.history.restore(facts.history, answers)
        self.meter.go_on_from(facts.cost)
        return facts.position

    def _check_facts(self, facts: "_Facts", epochs: int, batches: int) -> None:
        """Raise ValueError unless a run of so many epochs could have saved this."""
        position = facts.position
        if facts.run != self.identity:
            raise ValueError("it is of another run")
        is_within = 1 <= position.epoch <= epochs + 1 and 0 <= position.batch <= batches
        if not is_within or position.seconds < 0 or position.losses < 0:
            raise ValueError(f"{position} is not within {epochs} epochs of {batches} batches")
        self.history.check_saved(facts.history, done=position.epoch - 1)
        if position.epoch > epochs and facts.history[-1].score is None:
            raise ValueError("it says that training is over, and has no score of the last epoch")

    def _write(self, tensors: Mapping[str, Tensor], facts: "_Facts") -> None:
        # safetensors takes no views, and tensors on a GPU go on training meanwhile
        copies = {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
        if self.history.answers is not None:
            packed = bytearray(pack_answers(self.history.answers))
            copies[_ANSWERS] = torch.frombuffer(packed, dtype=torch.uint8)
        text = msgspec.json.encode(facts).decode()
        with atomic_write(self.path) as unfinished:
            save_file(copies, unfinished, {"facts": text, "digest": _digest(facts, copies)})


class _Facts(msgspec.Struct, forbid_unknown_fields=True):
    """What a checkpoint says beside its tensors. run: the identity of the run that saved it."""

    run: str
    position: Position
    history: list[EpochEntry]
    cost: Cost


def _saved_answers(tensors: Mapping[str, Tensor]) -> bytes | None:
    """Return the packed answers in a checkpoint, None where it has none."""
    if _ANSWERS not in tensors:
        return None
    packed: bytes = tensors[_ANSWERS].numpy().tobytes()
    return packed


def _digest(facts: _Facts, tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 over facts and tensors."""
    text = msgspec.json.encode(facts) + content_hash(tensors).encode()
    return hashlib.sha256(text).hexdigest()


def _named_tensors(
    trained: Trained,
    shuffle_state: Tensor,
    states_by_rank: Sequence[tuple[Tensor, ...]],
) -> dict[str, Tensor]:
    """Name everything that is saved. states_by_rank: random states of each rank's devices."""
    named = {"order": shuffle_state}
    for name, tensor in trained.state().items():
        named[f"model/{name}"] = tensor.detach()
    if trained.average is not None:
        for name, tensor in trained.average.tensors.items():
            named[f"average/{name}"] = tensor
    for index, values in trained.optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if value is not None:
                named[f"optimizer/{index}/{key}"] = value
    for rank, states in enumerate(states_by_rank):
        for kind, state in zip(_RNG_KINDS, states, strict=False):
            named[f"{kind}/{rank}"] = state
    return named


def _load_state(
    trained: Trained,
    generator: torch.Generator,
    tensors: Mapping[str, Tensor],
) -> None:
    """Put saved tensors in their places; the model last, when nothing can fail any more."""
    state = trained.state()
    saved = _below("model", tensors)
    if _shapes(state) != _shapes(saved):
        raise ValueError("it is of another model")
    average = {} if trained.average is None else trained.average.tensors
    saved_average = _below("average", tensors)
    if _shapes(average) != _shapes(saved_average):
        raise ValueError("it has the average of another model")
    rank = distributed.rank()
    if f"cpu/{rank}" in tensors:  # ranks that a resumed run has in addition keep their own state
        torch.set_rng_state(tensors[f"cpu/{rank}"])
    if f"cuda/{rank}" in tensors:
        torch.cuda.set_rng_state(tensors[f"cuda/{rank}"])
    generator.set_state(tensors["order"])
    groups = trained.optimizer.state_dict()["param_groups"]
    trained.optimizer.load_state_dict({"state": _optimizer_state(tensors), "param_groups": groups})
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(saved[name])
        for name, tensor in average.items():
            tensor.copy_(saved_average[name])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Return the optimizer's state by parameter index and name."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _below("optimizer", tensors).items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    return state


def _check_sizes(file: Any, trained: Trained) -> None:
    """Raise ValueError where a file has more numbers than a run saves, before they are read.

    AdamW keeps two for each number of a run's state, an average one; the random states are small.
    """
    numbers = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    own = sum(tensor.numel() for tensor in trained.state().values())
    if numbers > 5 * own + _RANDOM_STATES:
        raise ValueError(f"it has {numbers:,} numbers; the run has {own:,}")


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors named `<prefix>/...`, without the prefix."""
    start = f"{prefix}/"
    return {
        key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)
    }
