"""Batches of normalised images on the device, from a packed split."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from san.data.pack import Split
from san.tasks import lookup

# Mean and standard deviation per channel of RGB in [0, 1].
NORMALISE: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
RESIZE = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Preprocess:
    """Geometry and scale of what reaches the model: squashed to a square, then normalised.

    resize: `bilinear` or `bicubic`, without antialiasing; normalise: a key of NORMALISE.
    """

    resize: str
    normalise: str

    def __post_init__(self) -> None:
        lookup(self.resize, RESIZE, "data.resize")
        lookup(self.normalise, NORMALISE, "data.normalise")

    def __call__(self, images: Tensor, side: int) -> Tensor:
        """Turn uint8 `(B, H, W, 3)` into float32 `(B, 3, side, side)`; the input is left alone."""
        x = images.permute(0, 3, 1, 2).float() / 255
        if x.shape[-2:] != (side, side):
            x = F.interpolate(x, size=(side, side), mode=self.resize, align_corners=False).clamp(0, 1)
        mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in NORMALISE[self.normalise])
        return (x - mean) / std


@dataclass(frozen=True)
class Batches:
    """Iterate a split once: `(images, labels)` on `device`; the last batch may be smaller, every image comes once.

    side: of the images in pixels. shuffle: draws the order anew for every pass; None keeps the stored order.
    """

    split: Split
    size: int
    preprocess: Preprocess
    side: int
    device: torch.device
    shuffle: torch.Generator | None = None

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.split)
        order = torch.arange(count) if self.shuffle is None else torch.randperm(count, generator=self.shuffle)
        for rows in torch.split(order, self.size):
            index = rows.numpy()
            # Fancy indexing copies: nothing that happens to a batch reaches the packed array.
            images = torch.from_numpy(np.asarray(self.split.images[index]))
            labels = torch.from_numpy(self.split.labels[index])
            yield self.preprocess(images.to(self.device), self.side), labels.to(self.device)
