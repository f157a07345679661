"""Pre-trained weights: where they are, and how they get into a timm model.

Weights are never silently random: which tensors no file has filled is known of every model.
"""

import contextlib
import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from san.backbones.families import classifier_name
from san.errors import WeightsError, suggest

_PACKAGED = Path(__file__).parents[1] / "weights"
# What timm calls a file on the hub, and that file in a format that runs no code.
_HUB_FILES = {
    None: "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}
_BLOCK = re.compile(r"((?:layers|stages)\.\d+\.)?blocks\.\d+\.")
_NPZ_EMBEDDING = "embedding/kernel"
Layout = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]  # name, shape, type of tensors


@dataclass(frozen=True)
class Pretrained:
    """A model with its weights.

    fresh: the tensors, beside the classifier's, that were asked to come from a file and are in
    none; they have their initial values.
    """

    model: nn.Module
    fresh: frozenset[str] = frozenset()

    def check_trained(self, trainable: Collection[str], method: str) -> None:
        """Raise WeightsError if a tensor that is in no file does not train, either."""
        random = sorted(self.fresh.difference(trainable))
        if random:
            raise WeightsError(
                f"{len(random)} tensors of this model (first {random[0]}) are in no weights file, "
                f"and '{method}' does not train them: they would stay random. Leave out the "
                "backbone.kwargs that add them, use method=full, or give backbone.weights=random."
            )


def find_weights(weights: str) -> Path:
    """Return the path of a weights file: as given, or shipped with the package."""
    # A user's file may bear the name of a packaged one; then it is meant.
    candidates = [Path(weights).expanduser(), _PACKAGED / weights]
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
            f"{path} is corrupt: its sha256 is {found}, expected {expected}. Fetch it again."
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


def load_tensors(timm_name: str, options: Mapping[str, Any], path: Path) -> Pretrained:
    """Build a timm model and fill all but its classifier from a safetensors file, as timm does.

    timm converts names and sizes of other versions of a model. Raises WeightsError if the file
    cannot be read or holds another model.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is corrupt or truncated ({error}). Delete it, and fetch it again."
        ) from error
    layout = tuple((name, tuple(t.shape), t.dtype) for name, t in sorted(tensors.items()))
    try:
        fresh = _fresh_tensors(timm_name, json.dumps(options, sort_keys=True), layout)
        model = _create_filled(timm_name, options, tensors)
    # timm's converters fail in their own ways on what they do not expect.
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path} holds another model: {_first_reason(error)}") from error
    _check_same_blocks(model, tensors, fresh, path)
    return Pretrained(model, fresh)


def fill_from_npz(model: nn.Module, path: Path) -> Pretrained:
    """Fill all but the classifier from an original `.npz` of the Vision Transformer authors.

    timm converts it. Raises WeightsError if it cannot be read or is of another patch size, depth or
    width than the model.
    """
    if not hasattr(model, "load_pretrained"):
        raise WeightsError(
            f"{path} is the format of the Vision Transformer authors; a {type(model).__name__} "
            "takes a .safetensors file."
        )
    state = _floating(model)
    initial = {name: tensor.clone() for name, tensor in state.items()}
    for tensor in state.values():
        tensor.fill_(torch.nan)
    loader: Any = model
    try:
        _check_npz(model, path)
        loader.load_pretrained(str(path))
    except (OSError, EOFError, RuntimeError, KeyError, ValueError, zipfile.BadZipFile) as error:
        reason = _first_reason(error)
        raise WeightsError(f"{path} cannot be read as weights of this model: {reason}") from error
    classifier = classifier_name(model) + "."
    fresh = {name for name, tensor in state.items() if tensor.isnan().any()}
    for name, tensor in state.items():
        if name in fresh or name.startswith(classifier):
            tensor.copy_(initial[name])
    return Pretrained(model, _without(fresh, classifier))


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
    """Return the error for weights that are neither in the cache nor within reach."""
    folder = huggingface_hub.constants.HF_HUB_CACHE
    return (
        f"The weights of {timm_name} ({file} of {repo}) are not in the cache {folder}, "
        f"and the hub cannot be reached ({type(error).__name__}). Where there is a network, run\n"
        f"    python -c \"import timm; timm.create_model('{timm_name}', pretrained=True)\"\n"
        "and copy that cache here, or name a local file with backbone.weights=FILE.safetensors."
    )


def _create_filled(
    timm_name: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> nn.Module:
    """Build a model and let timm fill it; the classifier keeps its initial values."""
    overlay = {
        "state_dict": dict(tensors),
        "num_classes": -1,  # never ours, so that timm leaves the classifier out
        "custom_load": False,
    }
    with _quiet_timm():
        model: Any = timm.create_model(
            timm_name, pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    # What timm says of the model, without a second copy of the weights.
    usual: Any = timm.get_pretrained_cfg(timm_name)
    model.pretrained_cfg.pop("state_dict")
    model.pretrained_cfg["num_classes"] = usual.num_classes if usual else None
    filled: nn.Module = model
    return filled


@contextlib.contextmanager
def _quiet_timm() -> Iterator[None]:
    """Keep timm from logging what it loads and lacks: the caller checks that, and says so."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@cache
def _fresh_tensors(timm_name: str, options: str, layout: Layout) -> frozenset[str]:
    """Return the tensors, beside the classifier's, that a file with this layout does not fill.

    It is tried with a file of NaN: what is no NaN afterwards is not from the file.
    """
    hollow = {}
    for name, shape, dtype in layout:
        value = torch.nan if dtype.is_floating_point else 0
        hollow[name] = torch.full(shape, value, dtype=dtype)
    with torch.random.fork_rng(devices=[]):
        model = _create_filled(timm_name, json.loads(options), hollow)
    fresh = {name for name, tensor in _floating(model).items() if not tensor.isnan().any()}
    return _without(fresh, classifier_name(model) + ".")


def _first_reason(error: Exception) -> str:
    """Return the first of the differences that torch lists, or the whole message of others."""
    lines = [line.strip() for line in str(error).splitlines()]
    if len(lines) > 2:
        return f"{lines[1]} And {len(lines) - 2} more."
    return " ".join(lines)


def _floating(model: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point tensors of a model that are saved with it; they share memory."""
    return {name: t for name, t in model.state_dict().items() if t.is_floating_point()}


def _without(names: Collection[str], prefix: str) -> frozenset[str]:
    return frozenset(name for name in names if not name.startswith(prefix))


def _check_same_blocks(
    model: nn.Module, tensors: Collection[str], fresh: Collection[str], path: Path
) -> None:
    """Raise WeightsError if a file has more blocks than the model, or fewer, or none of its own."""
    there = set(_blocks(tensors))
    here = set(_blocks(model.state_dict()))
    if there and there != here:
        raise WeightsError(
            f"{path} holds another model: it has {len(there)} blocks, this one {len(here)}."
        )
    unfilled = [block for block in here if not _is_filled(block, model, fresh)]
    if unfilled:
        raise WeightsError(f"{path} holds another model: nothing in it is for {min(unfilled)}.")


def _blocks(names: Collection[str]) -> Iterator[str]:
    """Yield the beginning `blocks.3.` or `layers.0.blocks.1.` of names that have one."""
    for name in names:
        found = _BLOCK.match(name)
        if found is not None:
            yield found.group()


def _is_filled(block: str, model: nn.Module, fresh: Collection[str]) -> bool:
    """Return whether a file has filled a tensor of a block."""
    names = [name for name in model.state_dict() if name.startswith(block)]
    return any(name not in fresh for name in names)


def _check_npz(model: Any, path: Path) -> None:
    """Raise ValueError if the file is of another patch size or depth; timm checks the width."""
    with np.load(path, allow_pickle=False) as arrays:
        kernels = [name for name in arrays.files if name.endswith(_NPZ_EMBEDDING)]
        if not kernels:
            raise ValueError(f"it has no {_NPZ_EMBEDDING}")
        prefix = kernels[0].removesuffix(_NPZ_EMBEDDING)
        patch = arrays[kernels[0]].shape[:2]
        pattern = re.compile(re.escape(prefix) + r"Transformer/encoderblock_(\d+)/")
        numbered = {found.group(1) for name in arrays.files if (found := pattern.match(name))}
        stacked = f"{prefix}Transformer/encoderblock/LayerNorm_0/scale"
        depth = len(arrays[stacked]) if stacked in arrays.files else len(numbered)
    wanted = tuple(model.patch_embed.proj.weight.shape[-2:])
    if patch != wanted:
        raise ValueError(f"its patches are {patch} pixels, those of the model {wanted}")
    if depth != len(model.blocks):
        raise ValueError(f"it has {depth} blocks, the model {len(model.blocks)}")
