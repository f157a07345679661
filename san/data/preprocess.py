"""From stored pixels to the model's input: geometry and normalization."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from san.data.augment import MeanStd
from san.data.resize import RESIZE, resize
from san.data.split import Split
from san.errors import choose
from san.schema import check_fields

# Mean and standard deviation per channel of RGB in [0, 1]; `inception` and the like as in timm.
NORMALIZE: Mapping[str, MeanStd] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class Preprocess:
    """Geometry and scale of the model's input; neither is inferred from the other.

    resize: a key of RESIZE; normalize: a key of NORMALIZE.
    """

    resize: str
    normalize: str

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        choose(self.resize, RESIZE, "data.resize")
        choose(self.normalize, NORMALIZE, "data.normalize")

    @property
    def mean_std(self) -> MeanStd:
        """Mean and standard deviation per channel."""
        return NORMALIZE[self.normalize]

    def pixels(self, split: Split, rows: Iterable[int], image_size: int) -> NDArray[np.uint8]:
        """Return the pixels of some images, uint8 `(B, image_size, image_size, 3)`."""
        images = [split.image(int(row)) for row in rows]
        return resize(images, self.resize, image_size)

    def scale(self, pixels: Tensor) -> Tensor:
        """Turn uint8 `(B, H, W, 3)` into new, normalized float32 `(B, 3, H, W)`."""
        x = pixels.permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in self.mean_std)
        # In place: on a CPU fresh memory costs more than the arithmetic.
        return x.div_(255).sub_(mean).div_(std)
