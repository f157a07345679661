"""Time a training step of every method as a ratio to the floor, in one process.

The floor is the least that any method can do that trains something near the input: forward, and the
gradients of the activations down to the embedding's output, without weight gradients or an
optimizer. A step is zero_grad, forward, backward and AdamW, in float32 (bfloat16 autocast on a
GPU), in training mode. The steps are interleaved round by round; printed is the median over the
rounds of each round's ratio, with quartiles, and the ratio of what autograd keeps for the backward
pass (exact).

python benchmarks/speed/step_time.py                  # ViT-Tiny/16 at 224, batch 8, one thread
python benchmarks/speed/step_time.py --backbone swin_tiny_patch4_window7_224 --methods san,ssf
"""

import argparse
import copy
import statistics

import pandas as pd
import timm
import torch
from steps import (
    CLASSES,
    Step,
    device_name,
    floor_step,
    random_batch,
    saved_bytes,
    time_ms,
    training_step,
)
from torch import nn

from san import methods
from san.adapter.attach import attach_for_good
from san.backbones import family, input_size
from san.errors import InvalidValueError


def needed_options(method: str, model: nn.Module) -> dict[str, list[str]]:
    """Return the options without which a low-rank method has nothing to update in a ConvNeXt."""
    low_rank = "targets" in methods.default_options(method)
    if low_rank and family(model) == "ConvNeXt":
        return {"targets": ["fc1", "fc2"]}
    return {}


def make_steps(
    backbone: str, names: list[str], batch_size: int, device: torch.device
) -> tuple[dict[str, Step], dict[str, int]]:
    """Return the steps of the floor and of each method that makes sense on the backbone.

    And the bytes that autograd keeps of each.
    """
    stock = timm.create_model(backbone, num_classes=CLASSES).to(device).train()
    batch = random_batch(batch_size, input_size(stock), device, bf16=device.type == "cuda")
    least = copy.deepcopy(stock)
    steps = {"floor": floor_step(least, batch)}
    saved = {"floor": saved_bytes(least, batch)}
    for method in names:
        model = copy.deepcopy(stock)
        try:
            attach_for_good(model, method, **needed_options(method, model))
        except InvalidValueError as error:
            print(f"Left out: {error}")
            continue
        steps[method] = training_step(model, batch)
        saved[method] = saved_bytes(model, batch)
    return steps, saved


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> pd.DataFrame:
    """Return milliseconds, one row a round, one column a step.

    The first round, which warms up, is left out.
    """
    rows = []
    for _ in range(rounds + 1):
        rows.append({name: time_ms(step, device) for name, step in steps.items()})
    return pd.DataFrame(rows[1:])


def summarize(times: pd.DataFrame, saved: dict[str, int]) -> pd.DataFrame:
    """Return one row a step, cheapest first.

    Columns: median milliseconds, median and quartiles of the ratio to the floor, and the ratio of
    the bytes that autograd keeps.
    """
    ratios = times.div(times["floor"], axis=0)
    quartiles = {name: statistics.quantiles(ratios[name], n=4) for name in ratios}
    table = pd.DataFrame(quartiles, index=["lower", "ratio to the floor", "upper"]).T
    table.insert(0, "ms", times.median())
    table["saved"] = pd.Series(saved) / saved["floor"]
    columns = ["ms", "ratio to the floor", "lower", "upper", "saved"]
    return table[columns].sort_values("ratio to the floor")


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
    steps, saved = make_steps(args.backbone, names, args.batch, device)
    times = measure(steps, args.rounds, device)
    machine = f"{args.threads} thread(s) of {device_name(device)}"
    versions = f"torch {torch.__version__}, timm {timm.__version__}"
    print(f"{args.backbone}, batch {args.batch}, {machine}, {versions}, {args.rounds} rounds\n")
    print(summarize(times, saved).to_markdown(floatfmt=("", ".1f", *[".2f"] * 4)))


if __name__ == "__main__":
    main()
