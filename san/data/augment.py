"""Crops, flips, policies, erasing, mixup and cutmix, by timm; drawn from seeds, however many workers there are."""

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.mixup import Mixup
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from san.data.split import Split
from san.errors import choose

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
CROPS = ("none", "random", "resized")


@dataclass(frozen=True)
class Augment:
    """What is done to training images; the names are those of `configs/augment/`.

    crop: `none` (the resize of the data, nothing else), `random` (shorter side to 256 for 224, then a random square),
    `resized` (random area of 0.08 to 1 and ratio of 3/4 to 4/3). flip: its probability. jitter, policy: timm's colour
    jitter and auto-augment. erasing: probability of timm's random erasing by noise. mixup, cutmix: their alphas, or 0.
    """

    crop: str = "none"
    flip: float = 0.0
    jitter: float = 0.0
    policy: str | None = None
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        choose(self.crop, CROPS, "augment.crop")
        for name in ("flip", "jitter", "erasing", "mixup", "cutmix"):
            value = getattr(self, name)
            most = 1 if name in ("flip", "erasing") else math.inf
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 <= value <= most
                or value == math.inf
            ):
                raise ValueError(
                    f"augment.{name} came as {value!r}; allowed: 0 {'to 1' if most == 1 else 'or more'}."
                )
        if self.crop == "none" and (self.flip or self.jitter or self.policy or self.erasing):
            raise ValueError(
                "augment.crop=none takes images as they are; flips and the like need random or resized."
            )
        if self.crop == "random" and (self.jitter or self.policy or self.erasing):
            raise ValueError(
                "augment.crop=random is crop and flip; jitter, policy and erasing need crop=resized."
            )

    def transform(self, side: int, statistics: Statistics) -> Callable[[Image.Image], Tensor]:
        """Return what turns a PIL image into a normalised `(3, side, side)`."""
        mean, std = statistics
        if self.crop == "random":
            steps = [
                transforms.Resize(side * 256 // 224),
                transforms.RandomCrop(side),
                transforms.RandomHorizontalFlip(self.flip),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
            chain: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
            return chain
        jitter: Any = (
            self.jitter or None
        )  # what timm takes for none, though its annotation does not say so
        made: Callable[[Image.Image], Tensor] = create_transform(
            side,
            is_training=True,
            hflip=self.flip,
            color_jitter=jitter,
            auto_augment=self.policy,
            interpolation="random",  # of bilinear and bicubic
            re_prob=self.erasing,
            re_mode="pixel",
            mean=mean,
            std=std,
        )
        return made

    def mix(self, images: Tensor, labels: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor]:
        """Mix a batch `(B, 3, side, side)`, B labels, in place; return it and soft labels `(B, classes)`.

        timm pairs an image with another of the batch, so a batch of odd size is left alone.
        """
        if self.mixup == 0 and self.cutmix == 0:
            return images, labels
        if len(images) % 2:
            return images, F.one_hot(labels, classes).float()
        make: Any = Mixup
        mixer = make(
            self.mixup, self.cutmix, label_smoothing=0.0, num_classes=classes
        )  # smoothing is the loss's
        with seeded(seed):
            mixed: tuple[Tensor, Tensor] = mixer(images, labels)
        return mixed


NO_AUGMENTATION = Augment()


@dataclass(frozen=True)
class Augmented(Dataset[Tensor]):
    """The images of a split, each made from (row, seed) alone: the same whoever makes it, and when."""

    split: Split
    transform: Callable[[Image.Image], Tensor]

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        row, seed = key
        with seeded(seed):
            return self.transform(Image.fromarray(self.split.image(row)))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` in Python, NumPy and torch (on the CPU) for a while; afterwards all is as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
