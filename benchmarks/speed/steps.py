"""The steps that step_time.py and cuda_check.py time, and the clock that they time them by."""

import itertools
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from san.backbones import sites

CLASSES = 100
Step = Callable[[], None]


@dataclass(frozen=True)
class Batch:
    """What a step reads: images (N, 3, H, W), labels (N,).

    bf16: whether the model runs under bfloat16 autocast.
    """

    images: Tensor
    labels: Tensor
    bf16: bool


def random_batch(size: int, side: int, device: torch.device, bf16: bool) -> Batch:
    """Return a batch of noise of `side` x `side` pixels with random labels."""
    images = torch.randn(size, 3, side, side, device=device)
    labels = torch.randint(CLASSES, (size,), device=device)
    return Batch(images, labels, bf16)


def training_step(model: nn.Module, batch: Batch) -> Step:
    """Return zero_grad, forward, backward and AdamW, in one kernel as in training."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(_compute_loss(model, batch))
        optimizer.step()

    return step


def floor_step(model: nn.Module, batch: Batch) -> Step:
    """Return the least work: the embedding's output asks for a gradient, and no parameter does."""
    model.requires_grad_(False)
    embedding = model.get_submodule(sites(model)[0].name)
    embedding.register_forward_hook(lambda module, inputs, y: y.requires_grad_())

    def step() -> None:
        torch.autograd.backward(_compute_loss(model, batch))

    return step


def evaluation_step(model: nn.Module, batch: Batch) -> Step:
    """Return a forward pass that keeps nothing."""

    @torch.inference_mode()
    def step() -> None:
        _compute_logits(model, batch)

    return step


def saved_bytes(model: nn.Module, batch: Batch) -> int:
    """Return the bytes that autograd keeps of a forward pass, each storage counted once.

    Parameters and buffers are left out. It is exact, whatever else the machine does.
    """
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no storage takes the place of another

    def note(tensor: Tensor) -> Tensor:
        # HF peft's shira keeps a sparse one, which has no storage of its own.
        dense = [tensor._indices(), tensor._values()] if tensor.is_sparse else [tensor]
        for part in dense:
            storage = part.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
                kept.append(part)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _compute_loss(model, batch)
    return sum(sizes.values())


def peak_bytes(step: Step, device: torch.device) -> int:
    """Return the most bytes that a step has allocated at a time, beside what was there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return int(max(itertools.accumulate(event.nbytes() for event in changes)))


def time_ms(step: Step, device: torch.device) -> float:
    """Return the milliseconds of one step, until the device has done all its work."""
    _synchronize(device)
    begin = time.perf_counter()
    step()
    _synchronize(device)
    return 1e3 * (time.perf_counter() - begin)


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or the kind of CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU"


def _compute_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(_compute_logits(model, batch).float(), batch.labels)


def _compute_logits(model: nn.Module, batch: Batch) -> Tensor:
    device_type = batch.images.device.type
    with torch.autocast(device_type, torch.bfloat16, enabled=batch.bf16):
        logits: Tensor = model(batch.images)
    return logits


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
