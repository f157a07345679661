"""How a file of pre-trained weights gets into a timm model.

Weights are never silently random: which tensors no file has filled is known of every model.
"""

import contextlib
import json
import logging
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from san.backbones.families import classifier_name
from san.backbones.npz import check_npz, check_npz_blocks
from san.errors import WeightsError

_BLOCK = re.compile(r"((?:layers|stages)\.\d+\.)?blocks\.\d+\.")
# Parts that change the features of every place.
_BEFORE_THE_HEAD = (
    "blocks.",
    "cls_token",
    "layers.",
    "norm_pre.",
    "patch_embed.",
    "pos_embed",
    "reg_token",
    "stages.",
    "stem.",
)
# What timm's converters, each in its own way, raise on what they do not expect.
_CONVERTER_ERRORS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
# What numpy and timm raise on a file that is not whole, or not of this model.
_NPZ_ERRORS = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
log = logging.getLogger(__name__)
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


def load_tensors(timm_name: str, options: Mapping[str, Any], path: Path) -> Pretrained:
    """Build a timm model and fill all but its classifier from a safetensors file, as timm does.

    timm converts names and sizes of other versions of a model. Raises WeightsError if the file
    cannot be read or holds another model.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read, or is corrupt or truncated ({error}). Fetch it again."
        ) from error
    layout = tuple((name, tuple(t.shape), t.dtype) for name, t in sorted(tensors.items()))
    try:
        fit = _fit(timm_name, json.dumps(options, sort_keys=True), layout)
        model = _create_filled(timm_name, options, tensors)
    except _CONVERTER_ERRORS as error:
        raise _another_model(path, _first_reason(error)) from error
    _check_same_model(model, tensors, fit, path)
    return Pretrained(model, fit.fresh)


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
        check_npz(model, path)
        loader.load_pretrained(str(path))
        fresh = {name for name, tensor in state.items() if tensor.isnan().any()}
        check_npz_blocks(path, _count_in_blocks(state, fresh))
    except _NPZ_ERRORS as error:
        reason = _first_reason(error)
        raise WeightsError(f"{path} cannot be read as weights of this model: {reason}") from error
    classifier = classifier_name(model) + "."
    for name, tensor in state.items():
        if name in fresh or name.startswith(classifier):
            tensor.copy_(initial[name])
    return Pretrained(model, _without(fresh, classifier))


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


@dataclass(frozen=True)
class _Fit:
    """How a file fits a model, beside the classifier.

    fresh: tensors of the model that it does not fill; unread: of the file that the model lacks.
    """

    fresh: frozenset[str]
    unread: frozenset[str]


@cache
def _fit(timm_name: str, options: str, layout: Layout) -> _Fit:
    """Return how a file with this layout fits.

    It is tried with a file of NaN: what is not NaN afterwards does not come from the file.
    """
    hollow = {}
    for name, shape, dtype in layout:
        value = torch.nan if dtype.is_floating_point else 0
        hollow[name] = torch.full(shape, value, dtype=dtype)
    with torch.random.fork_rng(devices=[]), _unread_tensors() as unread:
        model = _create_filled(timm_name, json.loads(options), hollow)
    fresh = {name for name, tensor in _floating(model).items() if not tensor.isnan().any()}
    classifier = classifier_name(model) + "."
    return _Fit(_without(fresh, classifier), _without(unread, classifier))


@contextlib.contextmanager
def _unread_tensors() -> Iterator[set[str]]:
    """Yield a set that gets the names which the models built in the block do not load."""
    unread: set[str] = set()

    def note_unread(_module: nn.Module, keys: Any) -> None:
        unread.update(keys.unexpected_keys)

    def watch(module: nn.Module, _name: str, _child: nn.Module | None) -> None:
        """Set the hook on a module as it gets its first part."""
        if not module._load_state_dict_post_hooks:
            hooked: Any = module
            hooked.register_load_state_dict_post_hook(note_unread)

    # The model is built and filled in one call, so it is met as it gets its first part.
    handle = register_module_module_registration_hook(watch)
    try:
        yield unread
    finally:
        handle.remove()


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


def _another_model(path: Path, difference: str) -> WeightsError:
    return WeightsError(
        f"{path} holds another model: {difference} Name the model of this file "
        "(backbone=timm backbone.name=...), and leave out backbone.kwargs that change its tensors."
    )


def _check_same_model(model: nn.Module, tensors: Collection[str], fit: _Fit, path: Path) -> None:
    """Raise WeightsError if a file has other blocks than the model, or parts that it lacks.

    What stands behind the blocks (norms, pooling) may be left out, with a warning: how features are
    pooled is the user's choice.
    """
    there = set(_blocks(tensors))
    here = set(_blocks(model.state_dict()))
    if there and there != here:
        differing = min(there ^ here)
        raise _another_model(
            path, f"it has {len(there)} blocks, this one {len(here)}; one has no {differing}*."
        )
    unfilled = [block for block in here if not _is_filled(block, model, fit.fresh)]
    if unfilled:
        raise _another_model(path, f"nothing in it is for {min(unfilled)}*.")
    essential = sorted(name for name in fit.unread if name.startswith(_BEFORE_THE_HEAD))
    if essential:
        raise _another_model(path, f"this one has no {essential[0]} ({len(essential)} such).")
    if fit.unread:
        names = ", ".join(sorted(fit.unread))
        log.warning("%s: the model has no %s; left out.", path, names)


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


def _count_in_blocks(state: Mapping[str, Tensor], fresh: Collection[str]) -> int:
    """Return how many numbers of a model's blocks were filled."""
    return sum(t.numel() for name, t in state.items() if _BLOCK.match(name) and name not in fresh)
