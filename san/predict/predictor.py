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

from san.adapter.adapter_file import SavedAdapter, read_adapter
from san.adapter.arguments import check_argument
from san.adapter.attach import Adapter
from san.adapter.restore import restore
from san.adapter.usage import Usage
from san.backbones import Backbone, Pretrained
from san.data.arrays import Pixels
from san.data.images import decode_image
from san.data.resize import resize
from san.errors import AdapterFileError, DataError, InvalidValueError, SanError, WeightsError
from san.predict.foreign_backbone import build_foreign
from san.runtime import files
from san.runtime.device import pick_device
from san.runtime.formatting import printable_line
from san.runtime.paths import printable_path
from san.training.loop import autocast

ImageLike = str | os.PathLike[str] | Image.Image
_KINDS = (str, os.PathLike, Image.Image)


@dataclass(frozen=True, eq=False)
class Predictor:
    """What `load` returns: a model in evaluation mode, and how images become its input.

    It is for one thread at a time, as the adapter hooks the modules of its one model: load it once
    for each thread.
    """

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

        images: several; one alone is `[image]`. Raises DataError, which names it, where one cannot
        be read, InvalidValueError on anything else.
        """
        _check_several("predict", images)
        if batch_size < 1:
            raise InvalidValueError(f"batch_size came as {batch_size}; allowed: 1 or more.")
        answers = [torch.zeros(0, len(self.classes), dtype=torch.double)]
        rest = iter(images)
        while batch := list(islice(rest, batch_size)):
            answers.append(self(self.prepare(batch)))
        return torch.cat(answers)

    def prepare(self, images: Sequence[ImageLike]) -> Tensor:
        """Return image files or PIL images as the model's input, `(B, 3, side, side)`.

        images: as of `predict`, and at least one; the errors are the same.
        """
        _check_several("prepare", images)
        if not len(images):
            raise InvalidValueError("prepare came with no images; one is needed at least.")
        return self.normalize([self.pixels(image) for image in images])

    def pixels(self, image: ImageLike) -> Pixels:
        """Return one image as pixels of the model's size, uint8 `(side, side, 3)`.

        Errors as in `predict`.
        """
        if not isinstance(image, _KINDS):
            raise InvalidValueError(
                f"An image came as {type(image).__name__}; allowed: the path of a file, or a PIL "
                "image. Predictor(...) itself takes the tensors that `prepare` returns."
            )
        try:
            decoded = decode_image(_read(image), as_shown=True)
        except (SanError, OSError, ValueError) as error:
            name = "The PIL image"
            if not isinstance(image, Image.Image):
                name = printable_line(printable_path(os.fspath(image)))
            raise DataError(f"{name} cannot be read ({str(error).rstrip('.')}).") from error
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
    Raises AdapterFileError where the file is no adapter, lacks what is needed, names a backbone
    that cannot be built, or belongs to other weights; WeightsError where the weights cannot be had:
    no weights are ever random; InvalidValueError where the file has another usage than is given.
    """
    check_argument("san.load(path)", "path", path, (str, os.PathLike))
    path = Path(path)
    target = pick_device(device)
    usage = _usage_of(path, usage)
    source = os.fspath(usage.weights if weights is None else weights)
    if source == "random":
        raise WeightsError(
            f"{path} was trained on random weights, which nobody can build again. Restore it into "
            "the model that it was trained on: san.restore(model, path)."
        )
    pretrained = _build(usage, source, path)
    adapter = restore(pretrained.model.eval(), path, detachable=False)
    adapter.model.to(target)
    return Predictor(adapter, usage, target)


def _usage_of(path: Path, given: Usage | None) -> Usage:
    """Return how an adapter is used: as its file says or, where that does not, as is given."""
    saved = _read_adapter(path).usage
    if saved is not None and given is not None and given != saved:
        raise InvalidValueError(
            f"{path} says itself how it is used, and not as the usage that is given; leave usage= "
            "out. Weights in another place are san.load(path, weights=FILE)."
        )
    usage = saved or given
    if usage is None:
        raise AdapterFileError(
            f"{path} has no class names, input size, resize, normalization and backbone: it was "
            "saved before adapters had them, or without `usage`. san.load(path, usage=san.Usage("
            "classes=..., ...)) takes them; san.restore(model, path) needs none; a run with "
            "save_adapter=true writes them."
        )
    return usage


def _read_adapter(path: Path) -> SavedAdapter:
    """Return what a file says; where it is another file of a run, its error says which to give."""
    kinds = {".json": "the record of a run", ".csv": "a CSV file"}
    kind = kinds.get(path.suffix)
    try:
        return read_adapter(path)
    except AdapterFileError as error:
        if kind is None or not path.is_file():
            raise
        adapter = path.with_suffix(".safetensors")
        advice = "Give an ADAPTER.safetensors, which a run with save_adapter=true writes."
        if adapter.is_file():
            advice = f"Its adapter is {adapter}."
        raise AdapterFileError(f"{path} is {kind}, no adapter. {advice}") from error


def _build(usage: Usage, weights: str, path: Path) -> Pretrained:
    """Return the backbone of an adapter."""
    backbone = Backbone(
        name=usage.timm_name,
        timm_name=usage.timm_name,
        kwargs=usage.kwargs,
        weights=weights,
        sha256=None,
        normalize=usage.normalize,
    )
    try:
        with torch.random.fork_rng(devices=[]):
            return build_foreign(backbone, len(usage.classes), usage.image_size)
    except WeightsError as error:
        raise WeightsError(
            f"{path} needs the weights that it was trained on. {error}\n"
            "Here that file is given as san.load(path, weights=FILE), or --weights FILE."
        ) from error
    except SanError as error:
        raise AdapterFileError(f"{path} names a backbone that is not built: {error}") from error


def _check_several(call: str, images: object) -> None:
    """Raise InvalidValueError on one image where several are expected."""
    if isinstance(images, (*_KINDS, bytes)):
        raise InvalidValueError(
            f"{call} came with one {type(images).__name__}; it takes several images, of which one "
            f"may be the only one: predictor.{call}([image])."
        )


def _read(image: ImageLike) -> bytes:
    """Return the bytes of an image file, or of one made of a PIL image."""
    if not isinstance(image, Image.Image):
        return files.read_bytes(Path(image))
    buffer = io.BytesIO()
    # With its orientation, so that it is decoded like its file.
    exif = image.getexif()
    if image.mode.startswith(("I", "F")):
        image.save(buffer, format="TIFF", exif=exif)  # deep, so that it is refused like its file
        return buffer.getvalue()
    writable = image
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        writable = image.convert("RGBA" if image.has_transparency_data else "RGB")
    writable.save(buffer, format="PNG", compress_level=1, exif=exif)
    return buffer.getvalue()
