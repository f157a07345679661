"""Check every method on a GPU in about a minute: agreement with the CPU, time and memory.

Needs no data and no Hydra: torch, timm and the project's library alone. Prints a table and writes
cuda_check.json: the card, the ceiling (a large bfloat16 matrix product), then of the floor (see
step_time.py) and of each method

- the median time of a training step and of an evaluation step, under bfloat16 autocast, with AdamW
  in one kernel, which the floor has no need of; not interleaved, the floor first
- the peak of the memory that training allocates beyond model and images
- how long the steps of a run of VTAB-1k would take: 1600 of training, 157 of evaluation
- but for the floor, in float64 on a small ViT, the largest relative difference of logits and
  gradients between the GPU and the CPU

The floor's share of the ceiling is given for ViT-B/16 at 224 px, whose products are counted here.
Without a GPU all of it runs on the CPU, to see whether it would. What --compile names is timed with
torch.compile, too. With --profile of a method: the share of its training step in which
the device computes, and the operations that take the most of it.

python benchmarks/speed/cuda_check.py                                 # ViT-B/16, batch 64
python benchmarks/speed/cuda_check.py --quick --methods linear,san --out /tmp
"""

import argparse
import copy
import json
import statistics
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import timm
import torch
import torch.nn.functional as F
from steps import (
    CLASSES,
    Batch,
    Step,
    device_name,
    evaluation_step,
    floor_step,
    random_batch,
    time_ms,
    training_step,
)
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from san.adapter.attach import attach_for_good

METHODS = "linear,bitfit,norm,vpt_deep,adapter,adaptformer,lora,dora,ssf,san,san_recalibrated,full"
SIDE = 224
WARM_UP_STEPS = 3
PROFILED_OPERATIONS = 15
TRAINING_STEPS = 1600  # 100 epochs of 1000 images in batches of 64
EVALUATION_STEPS = 157  # 10,000 images
HEADER = (
    f"{'':18}{'step ms':>9}{'x floor':>9}{'peak x':>8}{'eval ms':>9}{'run s':>8}"
    f"{'GPU-CPU, float64':>20}"
)

COUNTED_BACKBONE = "vit_base_patch16_224"  # of which `floor_tflop` knows the products


class Cost(TypedDict):
    """What a model costs, as it is written. peak_mb: None on the CPU."""

    train_ms: float
    peak_mb: float | None
    eval_ms: float
    run_s: float
    train_compiled_ms: NotRequired[float]
    gpu_against_cpu: NotRequired[float]


@dataclass(frozen=True)
class Bench:
    """What all models are measured on. compiled: which of them also with torch.compile."""

    backbone: str
    batch: Batch
    device: torch.device
    rounds: int
    compiled: Collection[str]


def ceiling_tflops(device: torch.device, quick: bool, rounds: int) -> float:
    """Return what a product of two large matrices of bfloat16 reaches, in TFLOP/s."""
    side = 8192 if device.type == "cuda" and not quick else 512
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    b = torch.randn(side, side, device=device, dtype=torch.bfloat16)

    def multiply() -> None:
        torch.mm(a, b)

    seconds = 1e-3 * median_ms(multiply, device, rounds)
    return 2 * side**3 / seconds / 1e12


def floor_tflop(batch_size: int) -> float:
    """Return the TFLOP of the floor's matrix products in ViT-B/16 at 224 px.

    Forward and activation gradients; those of attention are counted as if they cost as much as its
    forward pass, though they cost twice as much (2 % of all).
    """
    depth = 12
    width = 768
    tokens = 197
    layers = 12 * width**2 * tokens
    attention = 2 * tokens**2 * width
    forward = 2 * depth * (layers + attention)
    return 2 * forward * batch_size / 1e12


def median_ms(step: Step, device: torch.device, rounds: int) -> float:
    """Return the median of the times of a step, once it is warm."""
    for _ in range(WARM_UP_STEPS):
        step()
    return statistics.median(time_ms(step, device) for _ in range(rounds))


def stock_model(backbone: str) -> nn.Module:
    """Return a timm model with random weights."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(backbone, num_classes=CLASSES)
    return model


def floor_cost(bench: Bench) -> Cost:
    """Measure the least that any method does which trains something near the input."""
    model = stock_model(bench.backbone).to(bench.device).train()
    return measure("floor", model, floor_step(model, bench.batch), bench)


def method_cost(method: str, bench: Bench) -> Cost:
    """Measure a method, and compare what it computes on the GPU with the CPU."""
    model = stock_model(bench.backbone)
    attach_for_good(model, method)
    model.to(bench.device).train()
    cost = measure(method, model, training_step(model, bench.batch), bench)
    cost["gpu_against_cpu"] = gpu_against_cpu(method, bench.device)
    return cost


def measure(name: str, model: nn.Module, train: Step, bench: Bench) -> Cost:
    """Measure a model in training mode whose training step is `train`."""
    train_ms, peak_mb = training_cost(train, bench)
    model.eval()
    eval_ms = median_ms(evaluation_step(model, bench.batch), bench.device, bench.rounds)
    run_ms = TRAINING_STEPS * train_ms + EVALUATION_STEPS * eval_ms
    cost = Cost(train_ms=train_ms, peak_mb=peak_mb, eval_ms=eval_ms, run_s=run_ms / 1e3)
    if name in bench.compiled:
        model.train()
        model.compile()
        cost["train_compiled_ms"] = median_ms(train, bench.device, bench.rounds)
    return cost


def training_cost(train: Step, bench: Bench) -> tuple[float, float | None]:
    """Return the milliseconds of a training step, and the megabytes that it allocates at most."""
    if bench.device.type != "cuda":
        return median_ms(train, bench.device, bench.rounds), None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train_ms = median_ms(train, bench.device, bench.rounds)
    return train_ms, (torch.cuda.max_memory_allocated() - before) / 1e6


def gpu_against_cpu(method: str, device: torch.device) -> float:
    """Return the largest difference of logits or gradients in float64 on a small ViT.

    Each tensor's is relative to its largest entry on the CPU.
    """
    model = small_model(method)
    images = torch.randn(5, 3, 32, 32).double()
    on_cpu = logits_and_gradients(model, images, torch.device("cpu"))
    on_gpu = logits_and_gradients(model, images, device)
    differences = []
    for a, b in zip(on_cpu, on_gpu, strict=True):
        largest = a.abs().max().clamp_min(1e-12)
        differences.append(float((a - b).abs().max() / largest))
    return max(differences)


def small_model(method: str) -> nn.Module:
    """Return a small ViT of float64 with a method, what trains shifted at random."""
    torch.manual_seed(0)
    model: nn.Module = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=4, num_classes=10
    )
    model.double()
    attach_for_good(model, method)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    return model


def logits_and_gradients(model: nn.Module, images: Tensor, device: torch.device) -> list[Tensor]:
    """Return the logits of a copy on the device and the gradients of what trains, on the CPU."""
    twin = copy.deepcopy(model).to(device).eval()
    labels = torch.arange(len(images), device=device)
    logits = twin(images.to(device))
    torch.autograd.backward(F.cross_entropy(logits, labels))
    gradients = [p.grad.cpu() for p in twin.parameters() if p.grad is not None]
    return [logits.detach().cpu(), *gradients]


def measure_methods(methods: list[str], floor: Cost, bench: Bench) -> dict[str, Any]:
    """Print a row a method; return them by name: a cost, or the error."""
    rows: dict[str, Any] = {}
    for method in methods:
        try:
            cost = method_cost(method, bench)
        except Exception as error:  # one method's fault must not cost the others their minutes
            rows[method] = {"error": f"{type(error).__name__}: {error}"}
            print(f"{method:18}{type(error).__name__}: {str(error)[:120]}")
            continue
        rows[method] = cost
        print(method_row(method, cost, floor))
    return rows


def profile_method(method: str, bench: Bench) -> dict[str, Any]:
    """Print where the time of a training step of a method goes on the device, and return it.

    busy: the share of the step in which the device computes; the rest it waits for the host.
    """
    model = stock_model(bench.backbone)
    attach_for_good(model, method)
    model.to(bench.device).train()
    on_gpu = bench.device.type == "cuda"
    train = training_step(model, bench.batch)
    step_ms = median_ms(train, bench.device, bench.rounds)
    activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        profiled_ms = time_ms(train, bench.device)
    spent = {}
    for event in profiler.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        spent[event.key] = (own / 1e3, event.count)
    # Profiling slows the host, but not what a GPU does.
    busy = sum(ms for ms, _ in spent.values()) / (step_ms if on_gpu else profiled_ms)
    print(f"\n{method}: the device computes in {busy:.0%} of a step of {step_ms:.1f} ms")
    operations = []
    for name in sorted(spent, key=lambda name: -spent[name][0])[:PROFILED_OPERATIONS]:
        ms, count = spent[name]
        operations.append({"name": name, "ms": ms, "count": count})
        print(f"{ms:9.2f} ms {count:6} x {name[:90]}")
    return {"method": method, "step_ms": step_ms, "busy": busy, "operations": operations}


def method_row(method: str, cost: Cost, floor: Cost) -> str:
    """Return a row of the printed table."""
    ratio = cost["train_ms"] / floor["train_ms"]
    memory = float("nan")
    if cost["peak_mb"] is not None and floor["peak_mb"] is not None:
        memory = cost["peak_mb"] / floor["peak_mb"]
    training = f"{cost['train_ms']:9.1f}{ratio:9.2f}{memory:8.2f}"
    run = f"{cost['eval_ms']:9.1f}{cost['run_s']:8.1f}"
    compiled = ""
    if "train_compiled_ms" in cost:
        compiled = f"  compiled {cost['train_compiled_ms']:.1f} ms"
    return f"{method:18}{training}{run}{cost['gpu_against_cpu']:20.1e}{compiled}"


def run_check(methods: list[str], bench: Bench, quick: bool) -> dict[str, Any]:
    """Measure and print; return what is written."""
    ceiling = ceiling_tflops(bench.device, quick, bench.rounds)
    floor = floor_cost(bench)
    batch_size = len(bench.batch.images)
    share = None
    if bench.backbone == COUNTED_BACKBONE:
        share = floor_tflop(batch_size) / (1e-3 * floor["train_ms"]) / ceiling
    result = {
        "device": device_name(bench.device),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "backbone": bench.backbone,
        "batch": batch_size,
        "ceiling_tflops": ceiling,
        "floor": floor,
        "floor_share_of_ceiling": share,
    }
    of_ceiling = "" if share is None else f" = {share:.0%} of it"
    peak = f"{floor['peak_mb'] or 0:.0f} MB"
    step = f"floor {floor['train_ms']:.1f} ms{of_ceiling}"
    print(f"{result['device']}, ceiling {ceiling:.0f} TFLOP/s, {step}, {peak}")
    print(HEADER)
    result["methods"] = measure_methods(methods, floor, bench)
    return result


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(), help="where cuda_check.json goes")
    parser.add_argument("--quick", action="store_true", help="3 rounds rather than 15")
    parser.add_argument("--backbone", default=COUNTED_BACKBONE, help="a timm model of 224 px")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--methods", default=METHODS, help="comma-separated")
    parser.add_argument(
        "--compile", default="", help="floor or methods, comma-separated: also time them compiled"
    )
    parser.add_argument("--profile", metavar="METHOD", help="say where its step's time goes")
    return parser.parse_args()


def main() -> None:
    """Measure all, and write it."""
    args = parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(
        backbone=args.backbone,
        batch=random_batch(args.batch, SIDE, device, bf16=True),
        device=device,
        rounds=3 if args.quick else 15,
        compiled=args.compile.split(","),
    )
    result = run_check(args.methods.split(","), bench, args.quick)
    if args.profile:
        result["profile"] = profile_method(args.profile, bench)
    text = json.dumps(result, indent=1)
    (args.out / "cuda_check.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
