"""Batches of normalised images on the device, from a packed split."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from san.data.augment import NO_AUGMENTATION, Augment, Augmented
from san.data.resize import RESIZE, resize
from san.data.split import Split
from san.errors import choose

# Mean and standard deviation per channel of RGB in [0, 1].
NORMALIZE: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
DEVICE_CACHE_BYTES = 2**30  # bytes of uint8 pixels that a split may take on the device
PREFETCH = min(4, os.cpu_count() or 1)  # batches that are made while the device works on one


@dataclass(frozen=True)
class Preprocess:
    """Geometry and scale of what reaches the model; neither is inferred from the other.

    resize: a key of RESIZE; normalise: a key of NORMALISE.
    """

    resize: str
    normalise: str

    def __post_init__(self) -> None:
        choose(self.resize, RESIZE, "data.resize")
        choose(self.normalise, NORMALIZE, "data.normalise")

    def pixels(self, split: Split, rows: Iterable[int], side: int) -> NDArray[np.uint8]:
        """Return the pixels of some images of a split, uint8 `(B, side, side, 3)`."""
        return resize([split.image(int(i)) for i in rows], self.resize, side)

    def scale(self, pixels: Tensor) -> Tensor:
        """Turn uint8 `(B, H, W, 3)` into normalised float32 `(B, 3, H, W)`; the input is left alone."""
        x = pixels.permute(0, 3, 1, 2).float()
        mean, std = (
            torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in NORMALIZE[self.normalise]
        )
        return (
            x.div_(255).sub_(mean).div_(std)
        )  # in place: on a CPU fresh memory costs more than the arithmetic


@dataclass(frozen=True)
class Batches:
    """Iterate a split: `(images, labels)` on `device`; the last batch may be smaller, every image comes once a pass.

    side: of the images in pixels. shuffle: draws the order anew for every pass; None keeps the stored order.
    A shuffled split that fits is brought to the device as pixels, once; others are made from the map, some batches
    ahead of the device. Where images are augmented, `workers` processes make them (0: this one), and labels may be
    soft, `(B, classes)`.
    share: (rank, ranks) where several processes draw the same order and each takes every ranks-th image of a batch.
    """

    split: Split
    size: int
    preprocess: Preprocess
    side: int
    device: torch.device
    shuffle: torch.Generator | None = None
    augment: Augment = NO_AUGMENTATION
    classes: int = 0
    workers: int = 0
    share: tuple[int, int] = (0, 1)
    resident: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        last = len(self.split) % self.size or self.size
        if self.shuffle is not None and last < self.share[1]:
            raise ValueError(
                f"batch_size {self.size} leaves {last} images for the last batch of an epoch, and {self.share[1]} "
                f"processes share it. Give another batch_size=, or start fewer processes."
            )

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.size)

    def weight(self, batch: int) -> float:
        """Return what a mean over this rank's images of a batch counts in the mean over the ranks (1 where even)."""
        whole = min(self.size, len(self.split) - batch * self.size)
        rank, ranks = self.share
        return len(range(rank, whole, ranks)) * ranks / whole

    @property
    def order(self) -> torch.Generator:
        """What draws the order (and the seeds of augmentation) of the passes; only training has it."""
        assert self.shuffle is not None
        return self.shuffle

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.after(0)

    def after(self, done: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once without the first `done` batches; what is drawn is the same as with them."""
        count = len(self.split)
        order = (
            torch.arange(count)
            if self.shuffle is None
            else torch.randperm(count, generator=self.shuffle)
        )
        labels = torch.from_numpy(self.split.labels)
        rows = list(torch.split(order, self.size))
        seeds = [0] * len(rows)
        if self.augment != NO_AUGMENTATION:
            seeds = torch.randint(2**31, (count + len(rows),), generator=self.order).tolist()
        mixing, drawing = seeds[done : len(rows)], seeds[len(rows) :]
        rank, ranks = self.share
        rows = [mine for index in rows[done:] if len(mine := index[rank::ranks])]
        made = self.images(rows, drawing)
        for index, images, seed in zip(
            rows, made, mixing, strict=False
        ):  # only evaluating, unmixed, has fewer rows
            targets = labels[index].to(self.device)
            yield self.augment.mix(images, targets, self.classes, seed)

    def images(self, rows: Sequence[Tensor], seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yield the normalised images of each batch of rows; seeds: for each image, where it is augmented."""
        if self.augment.crop != "none":
            yield from self.augmented(rows, seeds)
        elif self.shuffle is not None and len(self.split) * self.side**2 * 3 <= DEVICE_CACHE_BYTES:
            yield from (
                self.preprocess.scale(self.pixels_on_device()[index.to(self.device)])
                for index in rows
            )
        else:
            made = prefetch(lambda index: self.on_device(self.make(index)), rows)
            yield from (self.preprocess.scale(pixels) for pixels in made)

    def augmented(self, rows: Sequence[Tensor], seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yield augmented batches, from worker processes if there are any."""
        images = Augmented(
            self.split, self.augment.transform(self.side, NORMALIZE[self.preprocess.normalise])
        )
        keys = [[(row, seeds[row]) for row in index.tolist()] for index in rows]
        context = (
            "fork" if self.workers else None
        )  # workers read the map where it is; a spawned one would be sent a copy
        loader = DataLoader(
            images,
            batch_sampler=keys,
            num_workers=self.workers,
            multiprocessing_context=context,
            generator=torch.Generator(),  # or it would draw from the run's own
        )
        yield from (self.on_device(batch) for batch in loader)

    def make(self, rows: Tensor) -> Tensor:
        """Return pixels `(B, side, side, 3)` of some rows."""
        return torch.from_numpy(self.preprocess.pixels(self.split, rows.tolist(), self.side))

    def on_device(self, pixels: Tensor) -> Tensor:
        """Move pixels without waiting for the copy where the device allows it."""
        return (
            pixels.pin_memory().to(self.device, non_blocking=True)
            if self.device.type == "cuda"
            else pixels
        )

    def pixels_on_device(self) -> Tensor:
        """Return the pixels of the whole split; they are made at the first call."""
        if not self.resident:
            rows = torch.split(torch.arange(len(self.split)), self.size)
            self.resident.append(torch.cat(list(prefetch(self.make, rows))).to(self.device))
        return self.resident[0]


def prefetch(make: Callable[[Tensor], Tensor], rows: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield `make(r)` for each of `rows` in order, the next ones under way in threads (decoding lets go of the GIL)."""
    with ThreadPoolExecutor(PREFETCH) as pool:
        waiting: deque[Future[Tensor]] = deque()
        for index in rows:
            waiting.append(pool.submit(make, index))
            if len(waiting) > PREFETCH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
