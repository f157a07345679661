"""A timm model with pre-trained weights: from the package, a file, timm's cache or the hub.

Weights are never silently random.
"""

import hashlib
import json
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

from san.backbones.families import (
    classifier_name,
    family_of_name,
    input_size_of_name,
    model_parameters,
    pretrained_config,
)
from san.errors import InvalidValueError, WeightsError, choose, suggest
from san.schema import from_mapping

_PACKAGED = Path(__file__).parents[1] / "weights"
_HUB_FILE = "model.safetensors"
_DECIDED_ELSEWHERE = {
    "num_classes": "the task says how many classes there are",
    "in_chans": "images have three channels",
    "device": "device= is an option of the run",
    "dtype": "precision= is an option of the run",
}


@dataclass(frozen=True)
class Backbone:
    """A pre-trained model as a configuration names it; nothing is built or loaded before `build`.

    name: of the configuration. timm_name: an architecture of timm, perhaps with a weights tag.
    kwargs: of timm.create_model. weights, sha256: as in `build_backbone`. normalize: how its images
    are normalized; `timm` means as for the tag.
    """

    name: str
    timm_name: str
    kwargs: Mapping[str, Any]
    weights: str
    sha256: str | None
    normalize: str

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Backbone":
        """Return the backbone of a configuration.

        Raises UnknownNameError on an unknown key, InvalidValueError on a wrong or missing value.
        """
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
        """What identifies the weights before they are loaded.

        `timm:NAME` or `random:NAME`, or 16 hex digits of a file's sha256.
        """
        if self.weights in ("timm", "random"):
            return f"{self.weights}:{self.timm_name}"
        return file_sha256(find_weights(self.weights))[:16]

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and standard deviation per channel of the images the tag was trained on.

        Raises UnknownNameError on an unknown tag, InvalidValueError on a name without one.
        """
        config = pretrained_config(self.timm_name)
        if config is None:
            raise InvalidValueError(
                f"timm does not say how images for '{self.timm_name}' are normalized; "
                "name it with data.normalize=..."
            )
        return tuple(config.mean), tuple(config.std)

    def check_kwargs(self) -> None:
        """Raise UnknownNameError or InvalidValueError on arguments that no run can be made with."""
        if self.kwargs:
            check_kwargs(self.timm_name, json.dumps(self.kwargs, sort_keys=True))

    def build(self, classes: int) -> nn.Module:
        """Build the model, as `build_backbone` does."""
        return build_backbone(self.timm_name, classes, self.weights, self.sha256, self.kwargs)


def build_backbone(
    timm_name: str,
    classes: int,
    weights: str,
    sha256: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a timm model with a fresh head of `classes` outputs and its weights everywhere else.

    weights: `timm` (those of the tag in `timm_name`, from timm's cache or the hub), a file
    (`.safetensors` or `.npz`), or `random`, which has to be asked for. sha256: of that file, None
    if it is not to be checked.
    Raises WeightsError that says what to do if the weights cannot be had, InvalidValueError if timm
    refuses the arguments.
    """
    options = {"num_classes": classes, **(kwargs or {})}
    if weights == "timm":
        return _load_from_hub(timm_name, options)
    if weights == "random":
        return _create_model(timm_name, options)
    path = find_weights(weights)
    _check_sha256(path, sha256)
    if path.suffix == ".npz":
        return _load_npz(timm_name, path, options)
    model = _create_model(timm_name, options)
    _load_safetensors(model, path)
    return model


@cache
def check_kwargs(timm_name: str, kwargs: str) -> None:
    """Try arguments of a model (as JSON), on a device without memory.

    Raises UnknownNameError on one that the model does not have, InvalidValueError on one that is
    decided elsewhere, or with which no model is made that turns their images into logits.
    """
    options: dict[str, Any] = json.loads(kwargs)
    allowed = set(model_parameters(timm_name)) - _DECIDED_ELSEWHERE.keys()
    for key in options:
        if key in _DECIDED_ELSEWHERE:
            raise InvalidValueError(
                f"backbone.kwargs.{key} is not an option: {_DECIDED_ELSEWHERE[key]}."
            )
        choose(key, sorted(allowed), f"argument of {timm_name}")
    side = options.get("img_size")
    if isinstance(side, list) and len(set(side)) != 1:
        raise InvalidValueError(
            f"backbone.kwargs.img_size came as {side}; allowed: one number, as images are square."
        )
    size = input_size_of_name(timm_name, options)
    with torch.device("meta"):
        model = _create_model(timm_name, {"num_classes": 2, **options})
        images = torch.empty(1, 3, size, size)
        try:
            shape = tuple(model.eval()(images).shape)
        except (RuntimeError, AssertionError, TypeError, ValueError, IndexError) as error:
            raise _not_built(timm_name, options, error) from error
    if shape != (1, 2):
        raise _not_built(timm_name, options, f"its output is {shape} and not one row of logits")


def _not_built(timm_name: str, options: Mapping[str, Any], reason: object) -> InvalidValueError:
    return InvalidValueError(
        f"timm cannot build {timm_name} with {dict(options)}: {reason}. See backbone.kwargs."
    )


def _create_model(timm_name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a timm model with random weights."""
    try:
        model: nn.Module = timm.create_model(timm_name, pretrained=False, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise _not_built(timm_name, options, error) from error
    return model


def find_weights(weights: str) -> Path:
    """Return the path of a weights file: as given, or shipped with the package."""
    # A user's file may bear the name of a packaged one; then it is meant.
    candidates = [Path(weights).expanduser(), _PACKAGED / weights]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        tried = " and ".join(str(path) for path in candidates)
        raise WeightsError(
            f"No weights at {tried}. "
            "backbone.weights takes 'timm', 'random' or the path of a .safetensors or .npz file."
        )
    if path.suffix not in (".safetensors", ".npz"):
        raise WeightsError(
            f"{path} is not a .safetensors or .npz file; other formats are not read, "
            "because they can run code."
        )
    return path


def _check_sha256(path: Path, expected: str | None) -> None:
    """Raise WeightsError if a file is not the one expected."""
    if expected is None:
        return
    found = file_sha256(path)
    if found != expected:
        raise WeightsError(
            f"{path} is corrupt: its sha256 is {found}, expected {expected}. Fetch it again."
        )


def _load_from_hub(timm_name: str, options: Mapping[str, Any]) -> nn.Module:
    """Load timm's weights of a tag from the local cache, or from the hub if it can be reached."""
    if timm_name not in timm.list_pretrained():
        hint = suggest(timm_name, timm.list_pretrained())
        raise WeightsError(f"timm has no pre-trained weights called '{timm_name}'.{hint}")
    repo = _hub_repo(timm_name)
    cached = huggingface_hub.try_to_load_from_cache(repo, _HUB_FILE)
    is_cached = isinstance(cached, str)
    _create_model(timm_name, options)  # so that wrong arguments are not blamed on the hub
    try:
        if not is_cached:
            # Ask once, before timm asks again and again for minutes.
            url = huggingface_hub.hf_hub_url(repo, _HUB_FILE)
            huggingface_hub.get_session().head(url, timeout=10)
        model: nn.Module = timm.create_model(timm_name, pretrained=True, **options)
    # The hub raises whatever its transport does; with a cached file it is not the network.
    except Exception as error:
        if is_cached:
            raise WeightsError(
                f"{cached} cannot be read ({error}). Delete it so that it is fetched again."
            ) from error
        raise WeightsError(_unreachable(timm_name, repo, error)) from error
    return model


def _hub_repo(timm_name: str) -> str:
    """Return the repository of a weights tag on the hub."""
    config: Any = timm.get_pretrained_cfg(timm_name)
    repo: str = config.hf_hub_id
    # timm gives either a repository or its owner.
    is_owner = "/" not in repo or repo.endswith("/")
    return repo + timm_name if is_owner else repo


def _unreachable(timm_name: str, repo: str, error: Exception) -> str:
    """Return the error for weights that are neither in the cache nor within reach."""
    folder = huggingface_hub.constants.HF_HUB_CACHE
    return (
        f"The weights of {timm_name} ({_HUB_FILE} of {repo}) are not in the cache {folder}, "
        f"and the hub cannot be reached ({type(error).__name__}). Where there is a network, run\n"
        f"    python -c \"import timm; timm.create_model('{timm_name}', pretrained=True)\"\n"
        "and copy that cache here, or name a local file with backbone.weights=FILE.safetensors."
    )


def _load_npz(timm_name: str, path: Path, options: Mapping[str, Any]) -> nn.Module:
    """Let timm convert an original `.npz` of the Vision Transformer authors."""
    overlay = {"file": str(path)}
    try:
        model: nn.Module = timm.create_model(
            timm_name,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            **options,
        )
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as weights of {timm_name}: {error}") from error
    return model


def _load_safetensors(model: nn.Module, path: Path) -> None:
    """Fill all but the classifier from a file, strictly; raise WeightsError on any difference."""
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is corrupt or truncated ({error}). Fetch it again.") from error
    # The classifier of the file may have other classes than ours.
    classifier = classifier_name(model) + "."
    expected = _without(model.state_dict(), classifier)
    stored = _without(stored, classifier)
    differing = [
        name
        for name, tensor in expected.items()
        if name not in stored or stored[name].shape != tensor.shape
    ]
    differing += sorted(stored.keys() - expected.keys())
    if differing:
        raise WeightsError(
            f"{path} holds another model: {len(differing)} tensors differ, first {differing[0]}."
        )
    converted = {name: tensor.to(expected[name].dtype) for name, tensor in stored.items()}
    model.load_state_dict(converted, strict=False)


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names do not begin with `prefix`."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hex; a process reads an unchanged file once."""
    stat = path.stat()
    # The path alone would miss a file that was replaced.
    return _read_sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _read_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Read the file that has this size and time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_hash(model: nn.Module) -> str:
    """Return 16 hex digits of a sha256 over the names and values of all tensors.

    Those of the classifier are left out.
    """
    backbone = _without(model.state_dict(), classifier_name(model) + ".")
    sha = hashlib.sha256()
    # Sorted, so that the order in which a version of timm builds its layers does not matter.
    for name, tensor in sorted(backbone.items()):
        sha.update(name.encode())
        sha.update(as_bytes(tensor))
    return sha.hexdigest()[:16]


def as_bytes(tensor: Tensor) -> bytes:
    """Return a tensor's values as bytes."""
    flat = tensor.detach().cpu().contiguous().flatten()
    # Viewed as bytes first: numpy has no bfloat16.
    return flat.view(torch.uint8).numpy().tobytes()
