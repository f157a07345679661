"""Time a training step of every method as a ratio to the floor, in one process.

The floor is the least that any method can do that trains something near the input: forward, and the
gradients of the activations down to the embedding's output, without weight gradients or an
optimizer. A step is zero_grad, forward, backward and AdamW, in float32 (bfloat16 autocast on a
GPU), in training mode. The steps are interleaved round by round; printed is the median over the
rounds of each round's ratio, with quartiles, and as ratios to the floor, too:

saved  the bytes that autograd keeps for the backward pass (exact)
peak   the most bytes that a step has allocated at a time
host   the time of a step of a ViT so small that its arithmetic takes none: what Python and
       dispatch cost, which bounds small batches on a GPU

python benchmarks/speed/step_time.py                  # ViT-Tiny/16 at 224, batch 8, one thread
python benchmarks/speed/step_time.py --backbone swin_tiny_patch4_window7_224 --methods san,ssf
"""

import argparse
import copy
import statistics
from dataclasses import dataclass

import pandas as pd
import timm
import torch
from steps import (
    CLASSES,
    Batch,
    Step,
    device_name,
    floor_step,
    peak_bytes,
    random_batch,
    saved_bytes,
    time_ms,
    training_step,
)
from torch import nn

from san import methods
from san.adapter.attach import attach_for_good
from san.backbones import input_size
from san.errors import InvalidValueError

HOST_ROUNDS = 200


@dataclass(frozen=True)
class Steps:
    """The steps of the floor and of methods on one backbone, by name.

    saved: the bytes that autograd keeps of each.
    """

    steps: dict[str, Step]
    saved: dict[str, int]


def make_steps(stock: nn.Module, names: list[str], batch: Batch) -> Steps:
    """Return the steps of the floor and of each method that makes sense on the backbone."""
    least = copy.deepcopy(stock)
    steps = {"floor": floor_step(least, batch)}
    saved = {"floor": saved_bytes(least, batch)}
    for method in names:
        model = copy.deepcopy(stock)
        try:
            attach_for_good(model, method)
        except InvalidValueError as error:
            print(f"Left out: {error}")
            continue
        steps[method] = training_step(model, batch)
        saved[method] = saved_bytes(model, batch)
    return Steps(steps, saved)


def negligible_vit() -> nn.Module:
    """Return a ViT of 12 blocks, 32 wide, on 4 patches."""
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=CLASSES, img_size=32, embed_dim=32, num_heads=2
    )
    return model.train()


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> pd.DataFrame:
    """Return milliseconds, one row a round, one column a step.

    The first round, which warms up, is left out.
    """
    rows = []
    for _ in range(rounds + 1):
        rows.append({name: time_ms(step, device) for name, step in steps.items()})
    return pd.DataFrame(rows[1:])


def summarize(times: pd.DataFrame) -> pd.DataFrame:
    """Return one row a step: milliseconds, and median and quartiles of the ratio to the floor."""
    ratios = times.div(times["floor"], axis=0)
    quartiles = {name: statistics.quantiles(ratios[name], n=4) for name in ratios}
    table = pd.DataFrame(quartiles, index=["lower", "step", "upper"]).T
    table.insert(0, "ms", times.median())
    return table[["ms", "step", "lower", "upper"]]


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "vit_tiny_patch16_224"
    parser.add_argument("--backbone", default=default, help="a timm ViT, Swin or ConvNeXt")
    parser.add_argument("--methods", help="comma-separated; default: all")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = args.methods.split(",") if args.methods else methods.method_names()
    stock = timm.create_model(args.backbone, num_classes=CLASSES).to(device).train()
    batch = random_batch(args.batch, input_size(stock), device, bf16=device.type == "cuda")
    made = make_steps(stock, names, batch)
    table = summarize(measure(made.steps, args.rounds, device))
    peak = {name: peak_bytes(step, device) for name, step in made.steps.items()}
    table["saved"] = pd.Series(made.saved) / made.saved["floor"]
    table["peak"] = pd.Series(peak) / peak["floor"]
    small = make_steps(negligible_vit().to(device), names, random_batch(2, 32, device, batch.bf16))
    table["host"] = summarize(measure(small.steps, HOST_ROUNDS, device))["step"]
    machine = f"{args.threads} thread(s) of {device_name(device)}"
    versions = f"torch {torch.__version__}, timm {timm.__version__}"
    print(f"{args.backbone}, batch {args.batch}, {machine}, {versions}, {args.rounds} rounds\n")
    print(table.sort_values("step").to_markdown(floatfmt=("", ".1f", *[".2f"] * 6)))


if __name__ == "__main__":
    main()
