"""Epochs a second of packed images against PIL's ImageFolder and a DataLoader, on the same images.

python benchmarks/speed/throughput.py
    1000 JPEG files of 500 x 375, batches of 64 at 224 px, on the CPU
python benchmarks/speed/throughput.py --height 32 --width 32 --device cuda

Prints seconds an epoch and the ratio to ImageFolder: medians of interleaved rounds, all in one
process. Every epoch ends with normalized batches on the device; the resize is `vtab` for packed
images and torchvision's bilinear for ImageFolder.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from san.data import pack
from san.data.augment import Augment
from san.data.batches import Batches
from san.data.preprocess import NORMALIZE, Preprocess
from san.data.resize import resize
from san.data.split import Split, read_split

IMAGE_SIZE = 224
CLASSES = 10
PREPROCESS = Preprocess("vtab", "inception")
ImagesAndLabels = tuple[torch.Tensor, torch.Tensor]


def write_images(folder: Path, count: int, height: int, width: int) -> list[Path]:
    """Write JPEG files with the statistics of photographs: noise of all scales."""
    rng = np.random.default_rng(0)
    for i in range(count):
        image = np.zeros((height, width, 3))
        for cells in (4, 16, 64):
            noise = rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
            enlarged = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
            image += np.asarray(enlarged) / 3
        path = folder / str(i % CLASSES) / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(path, quality=90)
    return sorted(folder.rglob("*.jpg"))


def image_folder(folder: Path, batch_size: int, workers: int) -> Iterable[ImagesAndLabels]:
    """Return the batches that most code bases use."""
    steps = [
        transforms.Resize((IMAGE_SIZE, IMAGE_SIZE)),
        transforms.ToTensor(),
        transforms.Normalize(*NORMALIZE[PREPROCESS.normalize]),
    ]
    images = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    return DataLoader(
        images,
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def pack_images(paths: list[Path], folder: Path, storage: str) -> Split:
    """Pack images as `native`, `resized` to 224 px, or `encoded` as files; return the split."""

    def examples() -> Iterator[pack.Example]:
        for path in paths:
            yield path.name, int(path.parent.name), stored(path)

    def stored(path: Path) -> np.ndarray | bytes:
        if storage == "encoded":
            return path.read_bytes()
        image = np.array(Image.open(path, formats=("JPEG",)).convert("RGB"))
        if storage == "resized":
            image = resize([image], PREPROCESS.resize, IMAGE_SIZE)[0]
        return image

    pack.write_split(folder / storage, examples(), {"made_by": "throughput.py"})
    return read_split(folder / storage, len(paths), CLASSES)


def packed_batches(
    split: Split, encoded: Split, batch_size: int, workers: int, device: torch.device
) -> dict[str, Batches]:
    """Return our batches by title; `encoded` has the same images as `split`, as files."""
    generator = torch.Generator().manual_seed(0)
    shared: dict[str, Any] = {
        "batch_size": batch_size,
        "preprocess": PREPROCESS,
        "image_size": IMAGE_SIZE,
        "device": device,
    }
    return {
        "packed, training": Batches.for_training(split, generator=generator, **shared),
        "packed, evaluating": Batches.for_evaluation(split, **shared),
        "files, crops and flips": Batches.for_training(
            encoded,
            generator=generator,
            augment=Augment(crop="random", flip=0.5),
            classes=CLASSES,
            num_workers=workers,
            **shared,
        ),
    }


def run_epoch(batches: Iterable[ImagesAndLabels], device: torch.device) -> float:
    """Bring all batches to the device; return the seconds that it took."""
    begin = time.perf_counter()
    for images, _ in batches:
        images.to(device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def time_epochs(
    epochs: Mapping[str, Iterable[ImagesAndLabels]],
    rounds: int,
    device: torch.device,
) -> dict[str, float]:
    """Return the median seconds of an epoch by title, of interleaved rounds."""
    seconds: dict[str, list[float]] = {title: [] for title in epochs}
    # The first round is not counted: caches fill, workers start.
    for turn in range(rounds + 1):
        for title, batches in epochs.items():
            elapsed = run_epoch(batches, device)
            if turn:
                seconds[title].append(elapsed)
    return {title: statistics.median(times) for title, times in seconds.items()}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
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
    return parser.parse_args()


def main() -> None:
    """Write images, time epochs over them, print."""
    args = parse_args()
    device = torch.device(args.device)
    storage = "native" if args.height == args.width <= IMAGE_SIZE else "resized"
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths = write_images(root / "files", args.count, args.height, args.width)
        split = pack_images(paths, root, storage)
        encoded = pack_images(paths, root, "encoded")
        reference = image_folder(root / "files", args.batch_size, args.workers)
        ours = packed_batches(split, encoded, args.batch_size, args.workers, device)
        epochs = {"ImageFolder and DataLoader": reference, **ours}
        medians = time_epochs(epochs, args.rounds, device)
    size = f"{args.height} x {args.width}"
    print(
        f"{args.count} JPEG files of {size}, {storage}; {args.workers} workers where there are any"
    )
    reference_seconds = medians["ImageFolder and DataLoader"]
    for title, median in medians.items():
        print(f"{title:26} {median:7.3f} s an epoch, {reference_seconds / median:6.2f} x")


if __name__ == "__main__":
    main()
