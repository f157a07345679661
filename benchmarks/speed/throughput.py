"""Epochs a second of packed images against PIL's ImageFolder and a DataLoader, on the same images, in one process.

python benchmarks/speed/throughput.py             # 1000 JPEG files of 500 x 375, batches of 64 at 224 px, on the CPU
python benchmarks/speed/throughput.py --height 32 --width 32 --device cuda

Prints seconds an epoch and the ratio to ImageFolder: medians of interleaved rounds. Every epoch ends with normalised
batches on the device; the resize is `vtab` here and torchvision's bilinear there.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from san.data import pack
from san.data.augment import Augment
from san.data.batches import NORMALIZE, Batches, Preprocess
from san.data.resize import resize
from san.data.split import read_split

SIDE = 224


def write_images(folder: Path, count: int, height: int, width: int) -> list[Path]:
    """Write JPEG files with the statistics of photographs: noise of all scales."""
    rng = np.random.default_rng(0)
    for i in range(count):
        image = np.zeros((height, width, 3))
        for cells in (4, 16, 64):
            small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
            image += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 3
        path = folder / str(i % 10) / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(path, quality=90)
    return sorted(folder.rglob("*.jpg"))


def image_folder(folder: Path, size: int, workers: int, device: torch.device) -> Callable[[], None]:
    """Return an epoch as most code bases have it."""
    steps = [
        transforms.Resize((SIDE, SIDE)),
        transforms.ToTensor(),
        transforms.Normalize(*NORMALIZE["half"]),
    ]
    images = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    loader = DataLoader(
        images, size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: use(loader, device)


def use(batches: Iterable[tuple[torch.Tensor, torch.Tensor]], device: torch.device) -> None:
    """Bring all batches to the device."""
    for images, _ in batches:
        images.to(device)
    if device.type == "cuda":
        torch.cuda.synchronize()


def packed(
    paths: list[Path], folder: Path, form: str, size: int, device: torch.device, **options: Any
) -> Callable[[], None]:
    """Return an epoch of ours: packed `native`, `resized` to 224 px, or `encoded` as files."""

    def examples() -> Iterator[pack.Example]:
        for path in paths:
            image = np.array(Image.open(path).convert("RGB"))
            stored = resize([image], "vtab", SIDE)[0] if form == "resized" else image
            yield (
                path.name,
                int(path.parent.name),
                path.read_bytes() if form == "encoded" else stored,
            )

    if not (folder / form).exists():
        pack.write_split(folder / form, examples(), {})
    split = read_split(folder / form, len(paths), 10)
    batches = Batches(split, size, Preprocess("vtab", "half"), SIDE, device, **options)
    return lambda: use(batches, device)


def main() -> None:
    """Parse arguments, time, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes of the DataLoader"
    )
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    form = "native" if args.height == args.width <= SIDE else "resized"
    order = torch.Generator().manual_seed(0)
    crops = {
        "shuffle": order,
        "augment": Augment(crop="random", flip=0.5),
        "classes": 10,
        "workers": args.workers,
    }
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths = write_images(root / "files", args.count, args.height, args.width)
        size = args.batch_size
        epochs = {
            "ImageFolder and DataLoader": image_folder(root / "files", size, args.workers, device),
            "packed, training": packed(paths, root, form, size, device, shuffle=order),
            "packed, evaluating": packed(paths, root, form, size, device),
            "files, crops and flips": packed(paths, root, "encoded", size, device, **crops),
        }
        seconds: dict[str, list[float]] = {title: [] for title in epochs}
        for turn in range(args.rounds + 1):  # the first is not counted: caches fill, workers start
            for title, epoch in epochs.items():
                begin = time.perf_counter()
                epoch()
                if turn:
                    seconds[title].append(time.perf_counter() - begin)
    reference = statistics.median(next(iter(seconds.values())))
    print(
        f"{args.count} JPEG files of {args.height} x {args.width}, {form}; {args.workers} workers where there are any"
    )
    for title, times in seconds.items():
        median = statistics.median(times)
        print(f"{title:26} {median:7.3f} s an epoch, {reference / median:6.2f} x")


if __name__ == "__main__":
    main()
