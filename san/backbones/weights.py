"""Files of pre-trained weights: where they are, how they are fetched and identified."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from torch import Tensor, nn

from san.backbones.families import classifier_name
from san.errors import WeightsError, suggest
from san.installation import PACKAGE
from san.runtime.paths import expand_path

_PACKAGED = PACKAGE / "weights"
# What timm calls a file on the hub, and that file in a format that runs no code.
_HUB_FILES = {
    None: "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}


def find_weights(weights: str) -> Path:
    """Return the path of a weights file: as given, or shipped with the package."""
    # A user's file may bear the name of a packaged one; then it is meant.
    candidates = [expand_path(weights), _PACKAGED / weights]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        tried = " and ".join(dict.fromkeys(str(path) for path in candidates))
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


def check_sha256(path: Path, expected: str | None) -> None:
    """Raise WeightsError if a file is not the one expected."""
    if expected is None:
        return
    found = file_sha256(path)
    if found != expected:
        raise WeightsError(
            f"{path} has the sha256 {found}; expected {expected}. Fetch it again, "
            "or give backbone.sha256=null if this file is meant."
        )


def fetch_weights(timm_name: str) -> Path:
    """Return the file of timm's weights of a tag: in the local cache, or fetched from the hub.

    Raises WeightsError if there is no such tag, no such file, or no way to the hub.
    """
    if timm_name not in timm.list_pretrained():
        hint = suggest(timm_name, timm.list_pretrained())
        raise WeightsError(f"timm has no pre-trained weights called '{timm_name}'.{hint}")
    config: Any = timm.get_pretrained_cfg(timm_name)
    file = _HUB_FILES.get(config.hf_hub_filename)
    if not config.hf_hub_id or file is None:
        raise WeightsError(
            f"timm has the weights of {timm_name} in a format that can run code "
            f"({config.url or config.hf_hub_filename}), which is not read. Convert them where you "
            "trust them, and name the file with backbone.weights=FILE.safetensors."
        )
    repo = _hub_repo(timm_name, config.hf_hub_id)
    cached = huggingface_hub.try_to_load_from_cache(repo, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # Ask once, before the hub's client asks again and again for minutes.
        url = huggingface_hub.hf_hub_url(repo, file)
        huggingface_hub.get_session().head(url, timeout=10)
        return Path(huggingface_hub.hf_hub_download(repo, file))
    # The hub raises whatever its transport does.
    except Exception as error:
        raise WeightsError(_unreachable(timm_name, repo, file, error)) from error


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hex; a process reads an unchanged file once."""
    stat = path.stat()
    # The path alone would miss a file that was replaced.
    return _read_sha256(path, stat.st_size, stat.st_mtime_ns)


def weights_hash(model: nn.Module) -> str:
    """Return 16 hex digits of a sha256 over the names and values of all tensors.

    Those of the classifier are left out.
    """
    classifier = classifier_name(model) + "."
    sha = hashlib.sha256()
    # Sorted, so that the order in which a version of timm builds its layers does not matter.
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(classifier):
            sha.update(name.encode())
            sha.update(as_bytes(tensor))
    return sha.hexdigest()[:16]


def as_bytes(tensor: Tensor) -> bytes:
    """Return a tensor's values as bytes."""
    flat = tensor.detach().cpu().contiguous().flatten()
    # Viewed as bytes first: numpy has no bfloat16.
    return flat.view(torch.uint8).numpy().tobytes()


@cache
def _read_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Read the file that has this size and time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub_repo(timm_name: str, hub_id: str) -> str:
    """Return the repository of a weights tag on the hub; timm gives it, or its owner."""
    is_owner = "/" not in hub_id or hub_id.endswith("/")
    return hub_id + timm_name if is_owner else hub_id


def _unreachable(timm_name: str, repo: str, file: str, error: Exception) -> str:
    """Return the error for weights that are neither in the cache nor can be fetched."""
    folder = huggingface_hub.constants.HF_HUB_CACHE
    return (
        f"The weights of {timm_name} ({file} of {repo}) are not in the cache {folder}, "
        f"and cannot be fetched ({type(error).__name__}: {error}). "
        "Where there is a network, run\n"
        f"    python -c \"import timm; timm.create_model('{timm_name}', pretrained=True)\"\n"
        "and copy that cache here, or name a local file with backbone.weights=FILE.safetensors."
    )
