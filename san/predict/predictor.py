"""A saved adapter with its backbone, ready to answer."""

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from san.adapter.adapter_file import read_adapter
from san.adapter.attach import Adapter
from san.adapter.restore import restore
from san.adapter.usage import Usage
from san.backbones import build_backbone
from san.data.arrays import Pixels
from san.data.images import decode_image
from san.data.resize import resize
from san.errors import AdapterFileError, DataError, SanError, WeightsError
from san.runtime import files
from san.runtime.device import pick_device
from san.runtime.formatting import printable_line
from san.training.loop import autocast

ImageLike = str | os.PathLike[str] | Image.Image


@dataclass(frozen=True, eq=False)
class Predictor:
    """What `load` returns: a model in evaluation mode, and how images become its input."""

    adapter: Adapter
    usage: Usage
    device: torch.device

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return self.usage.classes

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the probabilities, float64 `(B, classes)` on the CPU, of prepared images.

        images: `(B, 3, side, side)`, normalized, as `prepare` returns them.
        """
        model = self.adapter.model.eval()
        with autocast(self.device, self.usage.precision):
            logits: Tensor = model(images.to(self.device)).float()
        # In float64 no two logits become one probability.
        return logits.double().softmax(1).cpu()

    def predict(self, images: Iterable[ImageLike], batch_size: int = 64) -> Tensor:
        """Return the probabilities, float64 `(N, classes)` on the CPU, of files or PIL images.

        Raises DataError, which names it, where one cannot be read.
        """
        answers = [torch.zeros(0, len(self.classes), dtype=torch.double)]
        rest = iter(images)
        while batch := list(islice(rest, batch_size)):
            answers.append(self(self.prepare(batch)))
        return torch.cat(answers)

    def prepare(self, images: Sequence[ImageLike]) -> Tensor:
        """Return image files or PIL images as the model's input, `(B, 3, side, side)`.

        Raises DataError, which names it, where one cannot be read.
        """
        return self.normalize([self.pixels(image) for image in images])

    def pixels(self, image: ImageLike) -> Pixels:
        """Return one image as pixels of the model's size, uint8 `(side, side, 3)`."""
        try:
            decoded = decode_image(_read(image), as_shown=True)
        except (SanError, OSError, ValueError) as error:
            name = "The PIL image" if isinstance(image, Image.Image) else os.fspath(image)
            reason = str(error).rstrip(".")
            raise DataError(f"{printable_line(name)} cannot be read ({reason}).") from error
        square: Pixels = resize([decoded], self.usage.resize, self.usage.image_size)[0]
        return square

    def normalize(self, pixels: Sequence[Pixels]) -> Tensor:
        """Return what `pixels` returned of some images as one batch of the model's input."""
        batch = torch.stack([torch.from_numpy(each) for each in pixels])
        return self.usage.preprocess.scale(batch)


def load(
    path: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    usage: Usage | None = None,
) -> Predictor:
    """Return an adapter that `Adapter.save` wrote, on its backbone, ready to answer.

    weights: the backbone's, where they are not timm's, in its cache or on the hub, or the file that
    the adapter names. device: `auto`, `cpu` or `cuda`. usage: of an adapter whose file lacks it.
    Raises AdapterFileError where the file is no adapter, lacks what is needed, or belongs to other
    weights; WeightsError where the weights cannot be had: no weights are ever random.
    """
    path = Path(path)
    target = pick_device(device)
    usage = usage or read_adapter(path).usage
    if usage is None:
        raise AdapterFileError(
            f"{path} has no class names, input size, resize, normalization and backbone: it was "
            "saved before adapters had them, or without `usage`. san.load(path, usage=san.Usage("
            "classes=..., ...)) takes them; san.restore(model, path) needs none; a run with "
            "save_adapter=true writes them."
        )
    source = os.fspath(usage.weights if weights is None else weights)
    if source == "random":
        raise WeightsError(
            f"{path} was trained on random weights, which nobody can build again. Restore it into "
            "the model that it was trained on: san.restore(model, path)."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            pretrained = build_backbone(
                usage.timm_name, len(usage.classes), source, kwargs=usage.kwargs
            )
    except WeightsError as error:
        raise WeightsError(
            f"{path} needs the weights that it was trained on. {error}\n"
            "Here that file is given as san.load(path, weights=FILE), or --weights FILE."
        ) from error
    adapter = restore(pretrained.model.eval(), path, detachable=False)
    adapter.model.to(target)
    return Predictor(adapter, usage, target)


def _read(image: ImageLike) -> bytes:
    """Return the bytes of an image file, or of one made of a PIL image."""
    if not isinstance(image, Image.Image):
        return files.read_bytes(Path(image))
    buffer = io.BytesIO()
    writable = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else image.convert("RGB")
    # With its orientation, so that it is decoded like its file.
    writable.save(buffer, format="PNG", compress_level=1, exif=image.getexif())
    return buffer.getvalue()
