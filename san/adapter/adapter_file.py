"""The file of an adapter: its tensors, and the facts that tell which model they fit.

The tensors are those that trained, and the buffers that the method added. Safetensors of format
`san-adapter-1`; all values of its metadata are text:

    format      this format
    method      name of the method
    options     its options (JSON), in the words of record schema 1, see `san.renamed_keys`
    backbone    timm's architecture and weights tag, or the class of the model
    frozen      hash of the frozen weights
    tensors     hash of the tensors in the file
    answer      logits of the whole model for a fixed image (JSON)
    san         version of this library
    usage       where it is known, what it takes to answer with this file alone (JSON): names of
                the classes, the backbone, input size, resize, normalization by name and numbers;
                see `san.adapter.usage`. Files of before it was added have none
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from san.adapter.usage import Usage
from san.backbones import as_bytes, backbone_tag, input_size
from san.errors import AdapterFileError, InvalidValueError, SanError
from san.renamed_keys import schema_1_options
from san.runtime.files import atomic_write, check_regular, parse_json
from san.version import __version__

T = TypeVar("T")
FORMAT = "san-adapter-1"


# What safetensors calls the types that parameters and buffers have.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
}


@dataclass(frozen=True)
class SavedAdapter:
    """What a file says beside its tensors.

    frozen: hash of the frozen weights. digest: of the tensors. layout: their shapes and types.
    probe_logits: of the adapted model, by `probe_logits`. usage: None where it is not known.
    """

    method: str
    options: Mapping[str, Any]
    backbone: str
    frozen: str
    probe_logits: Sequence[float]
    digest: str
    layout: Mapping[str, str]
    version: str = __version__
    usage: Usage | None = None


def write_adapter(saved: SavedAdapter, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a file that is complete or not there at all."""
    metadata = {
        "format": FORMAT,
        "method": saved.method,
        "options": json.dumps(schema_1_options(saved.method, saved.options)),
        "backbone": saved.backbone,
        "frozen": saved.frozen,
        "tensors": saved.digest,
        "answer": json.dumps(saved.probe_logits, allow_nan=False),
        "san": saved.version,
    }
    if saved.usage is not None:
        metadata["usage"] = json.dumps(saved.usage.facts())
    with atomic_write(path) as unfinished:
        save_file(dict(tensors), unfinished, metadata)


def read_adapter(path: Path) -> SavedAdapter:
    """Return what a file says, without its tensors.

    Raises AdapterFileError where it is not a saved adapter.
    """
    with _opened(path) as file:
        metadata: dict[str, str] = file.metadata() or {}
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        layout = {name: _slice_layout(part) for name, part in slices.items()}
    _check_metadata(metadata, path)
    return SavedAdapter(
        method=metadata["method"],
        options=_parse_json(metadata["options"], dict[str, Any], "options", path),
        backbone=metadata["backbone"],
        frozen=metadata["frozen"],
        probe_logits=_parse_json(metadata["answer"], list[float], "answer", path),
        digest=metadata["tensors"],
        layout=layout,
        version=metadata["san"],
        usage=_read_usage(metadata, path),
    )


def _read_usage(metadata: Mapping[str, str], path: Path) -> Usage | None:
    """Return how an adapter is used, None where its file does not say."""
    if "usage" not in metadata:
        return None
    facts = _parse_json(metadata["usage"], dict[str, Any], "usage", path)
    try:
        return Usage.from_facts(facts)
    except (SanError, TypeError) as error:
        raise AdapterFileError(f"{path} has no readable usage: {error}") from error


def read_tensors(saved: SavedAdapter, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, once their layout is known to be that of the model.

    Raises AdapterFileError where they are not those that were saved.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in saved.layout}
    if content_hash(tensors) != saved.digest:
        raise AdapterFileError(
            f"{path} is corrupt: its tensors are not those that were saved. Fetch it again."
        )
    return tensors


def check_model(model: nn.Module, saved: SavedAdapter, path: Path) -> None:
    """Raise AdapterFileError unless the model is of the saved kind and has its frozen weights."""
    tag = backbone_tag(model)
    if tag != saved.backbone:
        raise AdapterFileError(f"{path} belongs to a {saved.backbone}; this is a {tag}.")
    frozen = {n: p for n, p in named_parameters(model).items() if n not in saved.layout}
    if content_hash(frozen) != saved.frozen:
        raise AdapterFileError(
            f"{path} belongs to a {tag} with other weights or precision. "
            "Build the model that it was trained on."
        )


@torch.no_grad()
def probe_logits(model: nn.Module) -> list[float]:
    """Return the logits, in evaluation mode, for one image that is a ramp from -1 to 1."""
    channels = next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    side = input_size(model)
    ramp = torch.linspace(-1, 1, channels * side * side)
    image = ramp.view(1, channels, side, side).to(next(model.parameters()))
    in_training = [module for module in model.modules() if module.training]
    try:
        logits: list[float] = model.eval()(image).flatten().tolist()
    finally:
        for module in in_training:
            module.training = True
    return logits


def logits_match(ours: Sequence[float], saved: Sequence[float], dtype: torch.dtype) -> bool:
    """Tell whether two answers differ by no more than devices and versions may change.

    The tolerance is relative to the largest logit and depends on the type of the parameters.
    """
    if len(saved) != len(ours):
        return False
    expected = torch.tensor(saved, dtype=torch.double)
    relative = 5e-2 if dtype in (torch.float16, torch.bfloat16) else 3e-3
    tolerance = relative * float(expected.abs().max())
    found = torch.tensor(ours, dtype=torch.double)
    return torch.allclose(found, expected, rtol=0, atol=tolerance)


def layout_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return shape and type of each tensor, in words."""
    return {name: _shape_and_dtype(tensor) for name, tensor in tensors.items()}


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 over names, shapes, types and values."""
    sha = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        sha.update(f"{name} {_shape_and_dtype(value)}".encode())
        sha.update(as_bytes(value))
    return sha.hexdigest()


def _shape_and_dtype(tensor: Tensor) -> str:
    """Return shape and type in words."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by name; a shared one has the name of its first place."""
    return dict(model.named_parameters())


def _check_metadata(metadata: Mapping[str, str], path: Path) -> None:
    """Raise AdapterFileError on another format, a later version, or facts that are missing."""
    if metadata.get("format") != FORMAT:
        raise AdapterFileError(
            f"{path} has format {metadata.get('format')}; {FORMAT} is allowed: save it again."
        )
    required = {"method", "options", "backbone", "frozen", "tensors", "answer", "san"}
    missing = sorted(required - metadata.keys())
    if missing:
        raise AdapterFileError(f"{path} does not say its {', '.join(missing)}: save it again.")
    version = metadata["san"]
    if _version_key(version) > _version_key(__version__):
        raise AdapterFileError(
            f"{path} was written by version {version} of san, this is {__version__}: update."
        )


def _version_key(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, of at most nine digits, for comparing."""
    return tuple(int(part) for part in re.findall(r"\d{1,9}", text)[:3])


def _parse_json(text: str, kind: type[T], name: str, path: Path) -> T:
    """Return a value of the metadata; raise AdapterFileError where it is not a `kind`."""
    try:
        value: T = parse_json(text, kind)
    except InvalidValueError as error:
        raise AdapterFileError(f"{path} has no readable {name} ({error}): save it again.") from None
    return value


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; raise AdapterFileError for whatever is wrong with it."""
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(f"{path} cannot be read as an adapter: {error}") from error


def _slice_layout(part: Any) -> str:
    """Return shape and type of a tensor that has not been read, as `_shape_and_dtype` does."""
    dtype = part.get_dtype()
    return f"{tuple(part.get_shape())} {_DTYPES.get(dtype, dtype)}"
