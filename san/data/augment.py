"""Crops, flips, auto-augment, erasing, mixup and cutmix by timm.

All of it is drawn from seeds, so it does not depend on the number of workers.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.mixup import Mixup
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from san.data.resize import cut_strip
from san.data.split import Split
from san.errors import InvalidValueError
from san.schema import NonNegativeFloat, Probability, check_fields

MeanStd = tuple[tuple[float, ...], tuple[float, ...]]  # per channel of RGB in [0, 1]
Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Augment:
    """How training images are augmented; the names are those of `configs/augment/`.

    crop: `none` (only the resize of the data), `random` (shorter side to 256 for 224 px, then a
    random square), `resized` (random area of 0.08 to 1 and aspect ratio of 3/4 to 4/3).
    flip: probability of a horizontal flip. color_jitter, auto_augment: as in timm.
    random_erasing: probability of timm's random erasing by noise. mixup, cutmix: alphas, or 0.
    """

    crop: Literal["none", "random", "resized"] = "none"
    flip: Probability = 0.0
    color_jitter: NonNegativeFloat = 0.0
    auto_augment: str | None = None
    random_erasing: Probability = 0.0
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "augment.")
        needs_resized = bool(self.color_jitter or self.auto_augment or self.random_erasing)
        if self.crop == "none" and (self.flip or needs_resized):
            raise InvalidValueError(
                "augment.crop=none takes images as they are; "
                "flips and the like need crop=random or crop=resized."
            )
        if self.crop == "random" and needs_resized:
            raise InvalidValueError(
                "augment.crop=random is crop and flip; "
                "color_jitter, auto_augment and random_erasing need crop=resized."
            )

    def transform(self, image_size: int, mean_std: MeanStd) -> Transform:
        """Return the function from a PIL image to a normalized `(3, image_size, image_size)`."""
        if self.crop == "random":
            return self._random_crop(image_size, mean_std)
        mean, std = mean_std
        # timm takes None for no jitter, which its annotation does not say.
        color_jitter: Any = self.color_jitter or None
        transform: Transform = create_transform(
            image_size,
            is_training=True,
            hflip=self.flip,
            color_jitter=color_jitter,
            auto_augment=self.auto_augment,
            interpolation="random",  # of bilinear and bicubic
            re_prob=self.random_erasing,
            re_mode="pixel",
            mean=mean,
            std=std,
        )
        return transform

    def mix(self, images: Tensor, labels: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor]:
        """Mix images `(B, 3, H, W)` in place; return them and soft labels `(B, classes)`.

        labels: `(B,)`; they are returned as they are where nothing is mixed at all.
        timm pairs an image with another one of the batch, so a batch of odd size is not mixed.
        """
        if self.mixup == 0 and self.cutmix == 0:
            return images, labels
        if len(images) % 2:
            return images, F.one_hot(labels, classes).float()
        # Labels are smoothed in the loss, not here.
        mixup: Any = Mixup
        mixer = mixup(self.mixup, self.cutmix, label_smoothing=0.0, num_classes=classes)
        with seeded(seed):
            mixed: tuple[Tensor, Tensor] = mixer(images, labels)
        return mixed

    def _random_crop(self, image_size: int, mean_std: MeanStd) -> Transform:
        mean, std = mean_std
        transform: Transform = transforms.Compose(
            [
                transforms.Resize(image_size * 256 // 224),
                transforms.RandomCrop(image_size),
                transforms.RandomHorizontalFlip(self.flip),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )
        return transform


NO_AUGMENTATION = Augment()


@dataclass(frozen=True)
class AugmentedImages(Dataset[Tensor]):
    """The images of a split; each depends on (row, seed) alone, whichever process makes it."""

    split: Split
    transform: Transform

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        row, seed = key
        with seeded(seed):
            return self.transform(Image.fromarray(cut_strip(self.split.image(row))))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch (on the CPU) inside the block; restore their states after it."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
