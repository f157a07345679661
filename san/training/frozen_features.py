"""The outputs of frozen layers, computed once for all epochs that read them.

Numbers are those of a run on images up to rounding: how an image is rounded may depend on the batch
in which it stands. On a CPU most backbones give the same bits (`benchmarks/speed/NOTES.md` says
which did). Features are computed in the stored order, so that they do not depend on the seed.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from san.backbones import FrozenPrefix, frozen_prefix
from san.data.augment import NO_AUGMENTATION
from san.data.batches import Batches
from san.errors import Preempted
from san.runtime import distributed
from san.runtime.formatting import format_bytes
from san.training.loop import autocast

MAX_BYTES = 2**31  # of all features that a run keeps, on its device

log = logging.getLogger(__name__)


class FrozenFeatures:
    """Caches what a run reads in place of images, where its first layers are frozen.

    Where features cannot be kept, the images are read in every epoch, and the log says why.
    stop: set by a signal; then computing them ends with Preempted.
    """

    def __init__(
        self, model: nn.Module, trainable: Sequence[str], precision: str, stop: threading.Event
    ) -> None:
        self.model = model
        self.precision = precision
        self.stop = stop
        self.prefix = frozen_prefix(model, trainable)
        self.bytes_left = MAX_BYTES

    def cached(self, batches: Batches) -> tuple[nn.Module, Batches]:
        """Return a model and batches that together give what this model gives for these batches."""
        if self.prefix is None:
            return self.model, batches
        obstacle = self._obstacle(self.prefix, batches)
        if obstacle is not None:
            log.info("The frozen layers run in every epoch: %s.", obstacle)
            return self.model, batches
        features = self._compute(self.prefix, batches)
        self.bytes_left -= features.nbytes
        return self.prefix.rest, replace(batches, features=features)

    def _obstacle(self, prefix: FrozenPrefix, batches: Batches) -> str | None:
        """Return why the features of these batches cannot be kept, None if they can."""
        if distributed.world_size() > 1:
            return "several processes share each batch"
        if batches.augment != NO_AUGMENTATION:
            return "images are augmented"
        images, _ = next(iter(_in_stored_order(batches)))
        image = images[:1]
        if batches.generator is not None and self._is_random(prefix, image):
            return "they drop paths or values at random"
        count = len(batches.split)
        needed = count * self._features(prefix, image).nbytes
        if needed > self.bytes_left:
            left = f"{format_bytes(self.bytes_left)} of {format_bytes(MAX_BYTES)} are left"
            return f"their outputs for {count} images take {format_bytes(needed)}, {left}"
        return None

    def _is_random(self, prefix: FrozenPrefix, image: Tensor) -> bool:
        """Return whether the prefix draws random numbers while it trains; none are drawn here."""
        self.model.train()
        with torch.random.fork_rng():
            before = _random_state(image.device)
            self._features(prefix, image)
            return not torch.equal(before, _random_state(image.device))

    def _compute(self, prefix: FrozenPrefix, batches: Batches) -> Tensor:
        """Return the features of a split `(N, ...)`, in its order."""
        self.model.eval()
        kept = None
        row = 0
        for images, _ in _in_stored_order(batches):
            if self.stop.is_set():
                raise Preempted("Stopped while the frozen layers ran.")
            features = self._features(prefix, images)
            if kept is None:
                kept = _empty_like(features, len(batches.split))
            kept[row : row + len(features)] = features
            row += len(features)
        assert kept is not None, "a split has images"
        return kept

    def _features(self, prefix: FrozenPrefix, images: Tensor) -> Tensor:
        with autocast(images.device, self.precision):
            return prefix.features(images)


def _in_stored_order(batches: Batches) -> Batches:
    """Return batches of all images of a split."""
    return replace(batches, generator=None, drop_last=False)


def _empty_like(features: Tensor, count: int) -> Tensor:
    """Return room for the features of so many images, with their order in memory."""
    order = torch.contiguous_format
    if features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last):
        order = torch.channels_last
    shape = (count, *features.shape[1:])
    return torch.empty(shape, dtype=features.dtype, device=features.device, memory_format=order)


def _random_state(device: torch.device) -> Tensor:
    """Return the state of the generator that layers on a device draw from."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.get_rng_state()
