"""Time a training step of every method as a ratio to the floor, in one process, interleaved round by round.

The floor is the least that any method can do that trains something near the input: forward, and the gradients of the
activations down to the embedding's output, without weight gradients or an optimiser. A step is zero_grad, forward,
backward and AdamW, in float32 (bfloat16 autocast on a GPU), in training mode. Printed: the median over the rounds of
each round's ratio, with quartiles.

python benchmarks/speed/step_time.py                                      # ViT-Tiny/16 at 224, batch 8, one thread
python benchmarks/speed/step_time.py --backbone swin_tiny_patch4_window7_224 --methods san,ssf --rounds 9
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

Step = Callable[[], None]


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Return a step of training as the loop does it."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, images, labels).backward()
        optimizer.step()

    return step


def floor_step(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Return the least work: the embedding's output asks for a gradient, and no parameter does."""
    model.requires_grad_(False)
    embedding = model.get_submodule(sites(model)[0].name)
    embedding.register_forward_hook(lambda module, inputs, y: y.requires_grad_())
    return lambda: loss_of(model, images, labels).backward()


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy."""
    gpu = images.device.type == "cuda"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=gpu):
        logits = model(images)
    return F.cross_entropy(logits.float(), labels)


def fitting_options(method: str, model: nn.Module) -> dict[str, list[str]]:
    """Return the options without which a method has nothing to attach to: LoRA on the MLP of a ConvNeXt."""
    low_rank = "targets" in methods.default_options(method)
    return {"targets": ["fc1", "fc2"]} if low_rank and family(model) == "ConvNeXt" else {}


def make_steps(
    backbone: str, wanted: list[str], batch: int, device: torch.device
) -> dict[str, Step]:
    """Return the floor's step and that of each method that makes sense on the backbone."""
    stock = timm.create_model(backbone, num_classes=100).to(device).train()
    side = input_size(stock)
    images = torch.randn(batch, 3, side, side, device=device)
    labels = torch.randint(100, (batch,), device=device)
    steps = {"floor": floor_step(copy.deepcopy(stock), images, labels)}
    for method in wanted:
        model = copy.deepcopy(stock)
        try:
            san.attach(model, method, **fitting_options(method, model))
        except ValueError as error:
            print(f"Left out: {error}")
            continue
        steps[method] = training_step(model, images, labels)
    return steps


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> pd.DataFrame:
    """Return milliseconds, one row a round, one column a step; a first round is thrown away."""
    rows = []
    for _ in range(rounds + 1):
        row = {}
        for name, step in steps.items():
            finish(device)
            begin = time.perf_counter()
            step()
            finish(device)
            row[name] = 1e3 * (time.perf_counter() - begin)
        rows.append(row)
    return pd.DataFrame(rows[1:])


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(times: pd.DataFrame) -> pd.DataFrame:
    """Return median milliseconds and the median and quartiles of the ratio to the floor, cheapest first."""
    ratios = times.div(times["floor"], axis=0)
    quartiles = {name: statistics.quantiles(ratios[name], n=4) for name in ratios}
    table = pd.DataFrame(quartiles, index=["lower", "ratio to the floor", "upper"]).T
    table.insert(0, "ms", times.median())
    return table[["ms", "ratio to the floor", "lower", "upper"]].sort_values("ratio to the floor")


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backbone", default="vit_tiny_patch16_224", help="a timm ViT, Swin or ConvNeXt"
    )
    parser.add_argument("--methods", help="comma-separated; default: all")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = args.methods.split(",") if args.methods else methods.method_names()
    times = measure(make_steps(args.backbone, wanted, args.batch, device), args.rounds, device)
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    )
    print(
        f"{args.backbone}, batch {args.batch}, {args.threads} thread(s) of {name}, torch {torch.__version__}, ",
        end="",
    )
    print(f"timm {timm.__version__}, {args.rounds} rounds\n")
    print(summary(times).to_markdown(floatfmt=("", ".1f", ".2f", ".2f", ".2f")))


if __name__ == "__main__":
    main()
