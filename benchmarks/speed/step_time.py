"""Time a training step of every method as a ratio to the floor, in one process.

The floor is the least that any method can do that trains something near the input: forward, and the
gradients of the activations down to the embedding's output, without weight gradients or an
optimizer. A step is zero_grad, forward, backward and AdamW, in float32 (bfloat16 autocast on a
GPU), in training mode. The steps are interleaved round by round; printed is the median over the
rounds of each round's ratio, with quartiles.

python benchmarks/speed/step_time.py                  # ViT-Tiny/16 at 224, batch 8, one thread
python benchmarks/speed/step_time.py --backbone swin_tiny_patch4_window7_224 --methods san,ssf
"""

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable

import pandas as pd
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import san
from san import methods
from san.backbones import family, input_size, sites
from san.errors import InvalidValueError

Step = Callable[[], None]


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Return a step of training as the loop does it."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        compute_loss(model, images, labels).backward()
        optimizer.step()

    return step


def floor_step(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Return the least work: the embedding's output asks for a gradient, and no parameter does."""
    model.requires_grad_(False)
    embedding = model.get_submodule(sites(model)[0].name)
    embedding.register_forward_hook(lambda module, inputs, y: y.requires_grad_())

    def step() -> None:
        compute_loss(model, images, labels).backward()

    return step


def compute_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy."""
    on_gpu = images.device.type == "cuda"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=on_gpu):
        logits = model(images)
    return F.cross_entropy(logits.float(), labels)


def needed_options(method: str, model: nn.Module) -> dict[str, list[str]]:
    """Return the options without which a low-rank method has nothing to update in a ConvNeXt."""
    low_rank = "targets" in methods.default_options(method)
    if low_rank and family(model) == "ConvNeXt":
        return {"targets": ["fc1", "fc2"]}
    return {}


def make_steps(
    backbone: str, names: list[str], batch_size: int, device: torch.device
) -> dict[str, Step]:
    """Return the floor's step and that of each method that makes sense on the backbone."""
    stock = timm.create_model(backbone, num_classes=100).to(device).train()
    side = input_size(stock)
    images = torch.randn(batch_size, 3, side, side, device=device)
    labels = torch.randint(100, (batch_size,), device=device)
    steps = {"floor": floor_step(copy.deepcopy(stock), images, labels)}
    for method in names:
        model = copy.deepcopy(stock)
        try:
            san.attach(model, method, **needed_options(method, model))
        except InvalidValueError as error:
            print(f"Left out: {error}")
            continue
        steps[method] = training_step(model, images, labels)
    return steps


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> pd.DataFrame:
    """Return milliseconds, one row a round, one column a step.

    The first round, which warms up, is left out.
    """
    rows = []
    for _ in range(rounds + 1):
        row = {}
        for name, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            step()
            synchronize(device)
            row[name] = 1e3 * (time.perf_counter() - start)
        rows.append(row)
    return pd.DataFrame(rows[1:])


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summarize(times: pd.DataFrame) -> pd.DataFrame:
    """Return one row a step, cheapest first.

    Columns: median milliseconds, and median and quartiles of the ratio to the floor.
    """
    ratios = times.div(times["floor"], axis=0)
    quartiles = {name: statistics.quantiles(ratios[name], n=4) for name in ratios}
    table = pd.DataFrame(quartiles, index=["lower", "ratio to the floor", "upper"]).T
    table.insert(0, "ms", times.median())
    return table[["ms", "ratio to the floor", "lower", "upper"]].sort_values("ratio to the floor")


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or the kind of CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU"


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stock = "vit_tiny_patch16_224"
    parser.add_argument("--backbone", default=stock, help="a timm ViT, Swin or ConvNeXt")
    parser.add_argument("--methods", help="comma-separated; default: all")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = args.methods.split(",") if args.methods else methods.method_names()
    times = measure(make_steps(args.backbone, names, args.batch, device), args.rounds, device)
    machine = f"{args.threads} thread(s) of {device_name(device)}"
    versions = f"torch {torch.__version__}, timm {timm.__version__}"
    print(f"{args.backbone}, batch {args.batch}, {machine}, {versions}, {args.rounds} rounds\n")
    print(summarize(times).to_markdown(floatfmt=("", ".1f", ".2f", ".2f", ".2f")))


if __name__ == "__main__":
    main()
