"""Batches of normalized images on the device, from a packed split."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from san.data.augment import NO_AUGMENTATION, Augment, AugmentedImages
from san.data.preprocess import Preprocess
from san.data.split import Split
from san.errors import InvalidValueError

S = TypeVar("S")
T = TypeVar("T")
DEVICE_CACHE_BYTES = 2**30  # of uint8 pixels of one split that may stay on the device
PREFETCH = min(4, os.cpu_count() or 1)  # batches that are made while the device works on one


@dataclass(frozen=True)
class Shard:
    """The images of each batch that one process takes: number rank, rank + world_size, ..."""

    rank: int = 0
    world_size: int = 1

    def of(self, rows: Tensor) -> Tensor:
        """Return this process's rows of a batch."""
        return rows[self.rank :: self.world_size]


@dataclass(frozen=True)
class _Pass:
    """One pass over a split: its order, and the seeds of everything that is random in it."""

    rows: Sequence[Tensor]  # of each batch
    mix_seeds: Sequence[int]  # one for each batch
    image_seeds: Sequence[int]  # one for each row of the split, or none


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Iterate over a split: `(images, labels)` on `device`, every image once a pass.

    images: `(B, 3, image_size, image_size)`; labels: `(B,)`, or soft ones `(B, classes)` where
    augmentation mixes. The last batch may be smaller, and is left out with `drop_last`.
    generator: draws a new order for every pass; None keeps the stored order.
    augment: how training images are changed, by `num_workers` processes (0: by this one).
    shard: where several processes draw the same order, the images that this one takes. Raises
    InvalidValueError where some process would get no image of an epoch's last training batch, or no
    batch is left.

    A shuffled split that fits is copied to the device once, as pixels. Other batches are made
    from the memory-mapped images, some ahead of the device.
    features: the outputs of frozen layers for each image, `(N, ...)` on the device; then batches
    are of these, and no image is read.
    """

    split: Split
    batch_size: int
    preprocess: Preprocess
    image_size: int
    device: torch.device
    generator: torch.Generator | None = None
    augment: Augment = NO_AUGMENTATION
    classes: int = 0
    num_workers: int = 0
    shard: Shard = Shard()
    drop_last: bool = False
    features: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise InvalidValueError(
                f"batch_size {self.batch_size} with drop_last leaves no batch of "
                f"{len(self.split)} images. Give a smaller batch_size=, or drop_last=false."
            )
        last = 0 if self.drop_last else len(self.split) % self.batch_size
        last = last or self.batch_size
        if self.generator is not None and last < self.shard.world_size:
            raise InvalidValueError(
                f"batch_size {self.batch_size} leaves {last} images for the last batch of an "
                f"epoch, and {self.shard.world_size} processes share it. "
                "Give another batch_size=, or start fewer processes."
            )

    @classmethod
    def for_training(  # noqa: PLR0913  (all that defines the order and the images)
        cls,
        split: Split,
        *,
        batch_size: int,
        preprocess: Preprocess,
        image_size: int,
        device: torch.device,
        generator: torch.Generator,
        augment: Augment = NO_AUGMENTATION,
        classes: int = 0,
        num_workers: int = 0,
        shard: Shard = Shard(),
        drop_last: bool = False,
    ) -> "Batches":
        """Return shuffled, augmented batches."""
        return cls(
            split=split,
            batch_size=batch_size,
            preprocess=preprocess,
            image_size=image_size,
            device=device,
            generator=generator,
            augment=augment,
            classes=classes,
            num_workers=num_workers,
            shard=shard,
            drop_last=drop_last,
        )

    @classmethod
    def for_evaluation(
        cls,
        split: Split,
        *,
        batch_size: int,
        preprocess: Preprocess,
        image_size: int,
        device: torch.device,
        shard: Shard = Shard(),
    ) -> "Batches":
        """Return batches in the stored order, as they are."""
        return cls(
            split=split,
            batch_size=batch_size,
            preprocess=preprocess,
            image_size=image_size,
            device=device,
            shard=shard,
        )

    def __len__(self) -> int:
        if self.drop_last:
            return len(self.split) // self.batch_size
        return math.ceil(len(self.split) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.iter_from(0)

    def weight(self, batch: int) -> float:
        """Return the weight of this process's images of a batch in the mean over all processes.

        It is 1 where each process has equally many images of the batch.
        """
        size = min(self.batch_size, len(self.split) - batch * self.batch_size)
        own = len(self.shard.of(torch.arange(size)))
        return own * self.shard.world_size / size

    def stored_rows(self) -> Tensor:
        """Return the rows `(n,)` that this process takes in a pass in the stored order."""
        assert self.generator is None, "these batches are shuffled"
        own_rows = [self.shard.of(rows) for rows in self._draw_pass().rows]
        return torch.cat(own_rows)

    def iter_from(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over one pass from `batch` on; the draws are the same as from its beginning."""
        drawn = self._draw_pass()
        labels = torch.from_numpy(self.split.labels)
        own_rows = [self.shard.of(rows) for rows in drawn.rows[batch:]]
        # A process may have no image of the last batch that is evaluated.
        own_rows = [rows for rows in own_rows if len(rows)]
        loaded = self._load(own_rows, drawn.image_seeds)
        for rows, images, seed in zip(own_rows, loaded, drawn.mix_seeds[batch:], strict=False):
            targets = labels[rows].to(self.device)
            yield self.augment.mix(images, targets, self.classes, seed)

    def _draw_pass(self) -> _Pass:
        """Draw the order, and if images are augmented the seeds of images and batches."""
        count = len(self.split)
        if self.generator is None:
            order = torch.arange(count)
        else:
            order = torch.randperm(count, generator=self.generator)
        rows = torch.split(order, self.batch_size)[: len(self)]
        if self.augment == NO_AUGMENTATION:
            return _Pass(rows, [0] * len(rows), [])
        assert self.generator is not None, "only training images are augmented"
        shape = (len(rows) + count,)
        seeds = torch.randint(2**31, shape, generator=self.generator).tolist()
        return _Pass(rows, seeds[: len(rows)], seeds[len(rows) :])

    def _load(self, rows: Sequence[Tensor], image_seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yield the normalized images, or the features, of each batch of rows."""
        if self.features is not None:
            return (self.features[batch.to(self.device)] for batch in rows)
        if self.augment.crop != "none":
            return self._load_augmented(rows, image_seeds)
        split_bytes = len(self.split) * self.image_size**2 * 3
        if self.generator is not None and split_bytes <= DEVICE_CACHE_BYTES:
            return self._load_from_device(rows)
        return self._load_ahead(rows)

    def _load_augmented(
        self, rows: Sequence[Tensor], image_seeds: Sequence[int]
    ) -> Iterator[Tensor]:
        """Yield augmented batches, from worker processes if there are any."""
        transform = self.augment.transform(self.image_size, self.preprocess.mean_std)
        loader = DataLoader(
            AugmentedImages(self.split, transform),
            batch_sampler=[_keys(batch, image_seeds) for batch in rows],
            num_workers=self.num_workers,
            # Forked workers read the mapped images in place; spawned ones would be sent a copy.
            multiprocessing_context="fork" if self.num_workers else None,
            generator=torch.Generator(),  # or it would draw from the run's own
        )
        for images in loader:
            yield self._to_device(images)

    def _load_from_device(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield batches out of the split's pixels, which stay on the device."""
        for batch in rows:
            pixels = self._device_pixels[batch.to(self.device)]
            yield self.preprocess.scale(pixels)

    def _load_ahead(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield batches made from the mapped images, some ahead of the device."""

        def load(batch: Tensor) -> Tensor:
            return self._to_device(self._read_pixels(batch))

        for pixels in prefetch(load, rows):
            yield self.preprocess.scale(pixels)

    def _read_pixels(self, rows: Tensor) -> Tensor:
        """Return pixels, uint8 `(B, image_size, image_size, 3)`, of some rows."""
        pixels = self.preprocess.pixels(self.split, rows.tolist(), self.image_size)
        return torch.from_numpy(pixels)

    def _to_device(self, images: Tensor) -> Tensor:
        """Move images without waiting for the copy where the device allows it."""
        if self.device.type != "cuda":
            return images
        return images.pin_memory().to(self.device, non_blocking=True)

    @cached_property
    def _device_pixels(self) -> Tensor:
        """The pixels of the whole split on the device, uint8 `(N, image_size, image_size, 3)`."""
        rows = torch.split(torch.arange(len(self.split)), self.batch_size)
        batches = list(prefetch(self._read_pixels, rows))
        return torch.cat(batches).to(self.device)


def _keys(rows: Tensor, image_seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Return row and seed of each image of a batch."""
    return [(row, image_seeds[row]) for row in rows.tolist()]


def prefetch(load: Callable[[S], T], batches: Iterable[S]) -> Iterator[T]:
    """Yield `load(batch)` for each batch in order, the next ones under way in threads.

    Threads suffice: decoding releases Python's interpreter lock.
    """
    with ThreadPoolExecutor(PREFETCH) as pool:
        pending: deque[Future[T]] = deque()
        for batch in batches:
            pending.append(pool.submit(load, batch))
            if len(pending) > PREFETCH:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
