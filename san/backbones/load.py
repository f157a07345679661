"""A timm model with pre-trained weights, from the package, a file, timm's cache or the hub; never silently random."""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from san.backbones.families import classifier_name, family_of_name, input_size_of_name
from san.errors import WeightsError
from san.schema import from_mapping

PACKAGED = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class Backbone:
    """A pre-trained model as a configuration names it; nothing is built or loaded before `build`.

    name: of the configuration. timm_name: an architecture of timm, perhaps with a weights tag. kwargs: of
    timm.create_model. weights: `timm` (of the tag), `random`, or a `.safetensors` or `.npz` file. sha256: of that file,
    where it is known. normalize: how its images are normalized; `timm` means as the tag was pre-trained.
    """

    name: str
    timm_name: str
    kwargs: Mapping[str, Any]
    weights: str
    sha256: str | None
    normalize: str

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Backbone":
        """Return the backbone of a configuration; raise UnknownNameError or InvalidValueError as `from_mapping` does."""
        return from_mapping(cls, config, "backbone")

    @property
    def family(self) -> str:
        """`ViT`, `Swin` or `ConvNeXt`; raises UnknownNameError or UnsupportedModelError."""
        return family_of_name(self.timm_name)

    @property
    def image_size(self) -> int:
        """The side in pixels of the square images that the model takes."""
        return input_size_of_name(self.timm_name, self.kwargs)

    @property
    def weights_key(self) -> str:
        """What identifies the weights without loading them: a tag of timm, `random`, or a file's sha256."""
        return weights_key(self.timm_name, self.weights)

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and standard deviation per channel that the timm tag was pre-trained with."""
        return pretrained_normalization(self.timm_name)

    def build(self, classes: int) -> nn.Module:
        """Build the model with a fresh head of `classes` outputs and its weights everywhere else.

        Raises WeightsError that says what to do where the weights cannot be had.
        """
        return build_backbone(self.timm_name, classes, self.weights, self.sha256, self.kwargs)


def build_backbone(
    name: str,
    classes: int,
    weights: str,
    sha256: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a timm model with a fresh head of `classes` outputs and pre-trained weights everywhere else.

    weights: `timm` (the pre-trained tag in `name`, from timm's cache or the hub), a `.safetensors` or `.npz` file, or
    `random`, which has to be asked for. sha256: what the file must hash to, where it is known.
    Raises WeightsError that says what to do where the weights cannot be had.
    """
    options = {"num_classes": classes, **(arguments or {})}
    if weights == "timm":
        return load_from_hub(name, options)
    if weights == "random":
        return timm.create_model(name, pretrained=False, **options)
    path = find_weights(weights)
    if sha256 is not None and file_sha256(path) != sha256:
        raise WeightsError(
            f"{path} is corrupt: its sha256 is {file_sha256(path)}, expected {sha256}. Fetch it again."
        )
    if path.suffix == ".npz":
        return load_npz(name, path, options)
    model = timm.create_model(name, pretrained=False, **options)
    load_backbone(model, path)
    return model


def find_weights(weights: str) -> Path:
    """Return the path of a weights file: as given, or shipped with the package."""
    candidates = [Path(weights).expanduser(), PACKAGED / weights]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        tried = " and ".join(str(p) for p in candidates)
        raise WeightsError(
            f"No weights at {tried}. backbone.weights takes 'timm', 'random' or the path of a .safetensors or .npz."
        )
    if path.suffix not in (".safetensors", ".npz"):
        raise WeightsError(
            f"{path} is no .safetensors or .npz file; other formats can run code when read, so none is."
        )
    return path


def load_from_hub(name: str, options: dict[str, Any]) -> nn.Module:
    """Load timm's weights of the tag in `name` from the local cache, or from the hub where there is a network."""
    if name not in timm.list_pretrained():
        near = difflib.get_close_matches(name, timm.list_pretrained(), n=3)
        raise WeightsError(
            f"timm has no pre-trained weights called '{name}'. Nearest: {', '.join(near)}."
        )
    config: Any = timm.get_pretrained_cfg(name)
    repo = config.hf_hub_id + (
        "" if "/" in config.hf_hub_id and not config.hf_hub_id.endswith("/") else name
    )
    cached = huggingface_hub.try_to_load_from_cache(repo, "model.safetensors")
    timm.create_model(
        name, pretrained=False, **options
    )  # what is wrong with the arguments is not the hub's fault
    try:
        if not isinstance(cached, str):  # ask once, before timm asks again and again for minutes
            url = huggingface_hub.hf_hub_url(repo, "model.safetensors")
            huggingface_hub.get_session().head(url, timeout=10)
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub raises whatever its transport does; with a cached file it is not the network
        if isinstance(cached, str):
            raise WeightsError(
                f"{cached} cannot be read ({error}). Delete it so that it is fetched again."
            ) from error
        cache = huggingface_hub.constants.HF_HUB_CACHE
        raise WeightsError(
            f"The weights of {name} (model.safetensors of {repo}) are not in the cache {cache}, and the hub cannot be "
            f"reached ({type(error).__name__}). Where there is a network, run\n"
            f"    python -c \"import timm; timm.create_model('{name}', pretrained=True)\"\n"
            f"and copy that cache here, or name a local file with backbone.weights=FILE.safetensors."
        ) from error


def load_npz(name: str, path: Path, options: dict[str, Any]) -> nn.Module:
    """Let timm convert an original `.npz` of the Vision Transformer authors."""
    try:
        return timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options
        )
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as weights of {name}: {error}") from error


def load_backbone(model: nn.Module, path: Path) -> None:
    """Fill everything but the head from a safetensors file, strictly; raise WeightsError on any difference."""
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is corrupt or truncated ({error}). Fetch it again.") from error
    head = classifier_name(model) + "."
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(head)}
    found = {k: v for k, v in found.items() if not k.startswith(head)}
    wrong = [k for k in wanted if k not in found or found[k].shape != wanted[k].shape] + sorted(
        found.keys() - wanted
    )
    if wrong:
        raise WeightsError(
            f"{path} holds another model: {len(wrong)} tensors differ, first {wrong[0]}."
        )
    model.load_state_dict({k: v.to(wanted[k].dtype) for k, v in found.items()}, strict=False)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hex; a file that has not changed is read once in a process."""
    stat = path.stat()
    return read_sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def read_sha256(path: Path, size: int, changed: int) -> str:
    """Read a file of that size and time, and return its sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_key(name: str, weights: str) -> str:
    """Return what identifies the weights without loading them: a tag of timm, `random`, or a file's sha256."""
    if weights in ("timm", "random"):
        return f"{weights}:{name}"
    return file_sha256(find_weights(weights))[:16]


def weights_hash(model: nn.Module) -> str:
    """Return 16 hex digits of a sha256 over the names and values of all tensors but the classifier's."""
    head = classifier_name(model) + "."
    sha = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if not key.startswith(head):
            sha.update(key.encode())
            sha.update(as_bytes(value))
    return sha.hexdigest()[:16]


def as_bytes(tensor: Tensor) -> bytes:
    """Return a tensor's values as bytes."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def pretrained_normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation per channel that a timm tag was pre-trained with."""
    try:
        config: Any = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        near = difflib.get_close_matches(name, timm.list_pretrained(), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise LookupError(f"timm has no pre-trained weights called '{name}'.{hint}") from error
    if config is None:
        raise LookupError(
            f"timm knows no normalisation of '{name}'. Name one with data.normalise=..."
        )
    return tuple(config.mean), tuple(config.std)
