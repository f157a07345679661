"""The file of an adapter: what trained, with what it needs to fit again."""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from san.backbones import as_bytes, backbone_tag, input_size
from san.errors import AdapterFileError
from san.version import __version__

FORMAT = "san-adapter-1"


def check_model(
    model: nn.Module, tensors: dict[str, Tensor], metadata: dict[str, str], path: Any
) -> None:
    """Raise AdapterFileError unless the model is of the saved kind and has the saved one's frozen weights."""
    tag = backbone_tag(model)
    if tag != metadata["backbone"]:
        raise AdapterFileError(f"{path} belongs to a {metadata['backbone']}; this is a {tag}.")
    if (
        content_hash({n: p for n, p in named_parameters(model).items() if n not in tensors})
        != metadata["frozen"]
    ):
        raise AdapterFileError(
            f"{path} belongs to a {tag} with other weights or precision. Build the model that it was trained on."
        )


def logits_match(ours: list[float], theirs: list[float], dtype: torch.dtype) -> bool:
    """Tell whether two answers agree to what devices and versions may change, against the largest logit."""
    if len(ours) != len(theirs) or not all(isinstance(value, float) for value in theirs):
        return False
    here, there = torch.tensor(ours), torch.tensor(theirs)
    tolerance = 5e-2 if dtype in (torch.float16, torch.bfloat16) else 3e-3
    return torch.allclose(
        here, there, rtol=0, atol=tolerance * float(there.abs().max()), equal_nan=True
    )


@torch.no_grad()
def probe_logits(model: nn.Module) -> list[float]:
    """Return the logits, in evaluation mode, of one image that is a ramp from -1 to 1."""
    channels, side = (
        next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)),
        input_size(model),
    )
    ramp = torch.linspace(-1, 1, channels * side * side).view(1, channels, side, side)
    training = [module for module in model.modules() if module.training]
    try:
        logits: list[float] = model.eval()(ramp.to(next(model.parameters()))).flatten().tolist()
    finally:
        for module in training:
            module.training = True
    return logits


def shape_and_dtype(tensor: Tensor) -> str:
    """Return shape and type in words."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def read_adapter(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and metadata of a saved adapter; raise AdapterFileError where the file is none."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(f"{path} cannot be read as an adapter: {error}") from error
    if metadata.get("format") != FORMAT:
        raise AdapterFileError(
            f"{path} has format {metadata.get('format')}; {FORMAT} is allowed: save it anew."
        )
    missing = {
        "method",
        "options",
        "backbone",
        "frozen",
        "tensors",
        "answer",
        "san",
    } - metadata.keys()
    if missing:
        raise AdapterFileError(
            f"{path} does not say its {', '.join(sorted(missing))}: save it anew."
        )
    if version_key(metadata["san"]) > version_key(__version__):
        raise AdapterFileError(
            f"{path} was written by version {metadata['san']} of san, this is {__version__}: update."
        )
    if content_hash(tensors) != metadata["tensors"]:
        raise AdapterFileError(
            f"{path} is corrupt: its tensors are not those that were saved. Fetch it again."
        )
    for name, kind in (("options", dict), ("answer", list)):
        with contextlib.suppress(ValueError):
            if isinstance(json.loads(metadata[name]), kind):
                continue
        raise AdapterFileError(f"{path} has no readable {name}: save it anew.")
    return tensors, metadata


def version_key(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, for comparing."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 over names, shapes, types and values."""
    sha = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        sha.update(f"{name} {shape_and_dtype(value)}".encode())
        sha.update(as_bytes(value))
    return sha.hexdigest()


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by name; a shared one has the name of its first place."""
    return dict(model.named_parameters())
