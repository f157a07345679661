"""Attach a method to a stock model; count, merge, save and restore what it added."""

import copy
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from san import __version__
from san.backbones import as_bytes, backbone_tag, family, head_name, sites
from san.errors import AdapterFileError
from san.methods import check_options, check_pair, module_of, norm_parameters

FORMAT = "san-adapter-1"


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters. `method` is what trains besides norm layers and head; `percent` leaves out the head."""

    method: int
    norm: int
    head: int
    trainable: int
    total: int
    percent: float


@dataclass(frozen=True)
class Adapter:
    """A method attached to a model.

    trainable: the names of exactly the parameters that receive gradients; added: of those that the stock model lacks.
    """

    model: nn.Module
    method: str
    options: dict[str, Any]
    trainable: tuple[str, ...]
    added: frozenset[str]
    counts: Counts

    def merge(self) -> nn.Module:
        """Fold what was inserted into plain, frozen layers, in place: the same outputs, no extra modules.

        A second call changes nothing. Returns the model. Raises ValueError, before anything is changed, where the
        method holds parameters that no plain layer can take in.
        """
        for name in sorted(self.added & parameters(self.model).keys()):
            if not folds(self.model, name):
                raise ValueError(
                    f"'{self.method}' cannot be merged: {name} is part of no layer that a plain one equals."
                )
        inserted = {name: module for name, module in self.model.named_modules() if hasattr(module, "merged")}
        plain = {name: cast(Any, module).merged() for name, module in inserted.items()}
        for name, layer in plain.items():
            layer.train(inserted[name].training).requires_grad_(False)
            self.model.set_submodule(name, layer)
        for module in inserted.values():
            if hasattr(module, "settle"):
                cast(Any, module).settle(self.model)
        if hasattr(self.model, "adapted_by"):
            del self.model.adapted_by  # a stock model again, for whatever comes next
        return self.model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what trained and nothing of what is frozen to a safetensors file, whole or not at all.

        Its metadata name the method, options, backbone, a hash of the frozen weights, and the version of this library.
        Raises ValueError after a merge.
        """
        present = parameters(self.model)
        if not present.keys() >= set(self.trainable) or not hasattr(self.model, "adapted_by"):
            raise ValueError(f"'{self.method}' has been merged into this model; save before you merge.")
        metadata = {
            "format": FORMAT,
            "method": self.method,
            "options": json.dumps(self.options),
            "backbone": backbone_tag(self.model),
            "frozen": frozen_hash(self.model, self.trainable),
            "san": __version__,
        }
        tensors = {name: present[name].detach().cpu().contiguous() for name in self.trainable}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            unfinished = Path(folder) / path.name
            save_file(tensors, unfinished, metadata)
            unfinished.chmod(0o644)
            unfinished.replace(path)


def attach(model: nn.Module, method: str, **options: Any) -> Adapter:
    """Attach `method` to a stock timm model in place and freeze whatever it does not train.

    Raises LookupError on an unknown method or option (with the nearest names), ValueError on a model that has a method
    already, on an option out of range and on a backbone where the method makes no sense, TypeError on a model family
    without sites.
    """
    options = check_options(method, options)
    if hasattr(model, "adapted_by"):
        raise ValueError(f"This model has '{model.adapted_by}' attached already; build a fresh one for '{method}'.")
    check_pair(method, options, family(model))
    found, before, head = sites(model), parameters(model), head_name(model) + "."
    backbone_size = sum(p.numel() for name, p in before.items() if not name.startswith(head))
    stock = set(module_of(method).attach(model, found, **options))
    model.train(model.training)  # what was inserted is in the model's mode
    model.adapted_by = method  # type: ignore[assignment]
    after = parameters(model)
    assert before.keys() <= after.keys(), f"'{method}' renamed parameters of the stock model."
    assert stock <= before.keys(), f"'{method}' names parameters that are not of the stock model."
    added = after.keys() - before.keys()
    trainable = tuple(name for name in after if name in stock | added or name.startswith(head))
    for name, parameter in after.items():
        parameter.requires_grad_(name in trainable)
    norms = set(norm_parameters(model, found)) & before.keys()
    counts = count({name: p.numel() for name, p in after.items()}, trainable, norms, head, backbone_size)
    return Adapter(model, method, options, trainable, frozenset(added), counts)


def restore(model: nn.Module, path: str | os.PathLike[str]) -> Adapter:
    """Attach to a fresh model what `Adapter.save` wrote, with the saved values.

    The model must have the frozen weights that the adapter was trained on, in the same precision, and the same classes.
    Raises AdapterFileError, before the model is touched, where the file is no adapter, of another version, or of
    another model.
    """
    tensors, metadata = read(Path(path))
    try:
        method, options = metadata["method"], dict(json.loads(metadata["options"]))
    except ValueError as error:
        raise AdapterFileError(f"{path} has no readable options ({error}): save it anew.") from error
    if frozen_hash(model, tuple(tensors)) != metadata["frozen"]:
        raise AdapterFileError(
            f"{path} belongs to {metadata['backbone']}, with other weights or precision than this "
            f"{backbone_tag(model)} has. Build the model that it was trained on."
        )
    try:
        trial = attach(copy.deepcopy(model), method, **options)
    except (LookupError, ValueError) as error:
        raise AdapterFileError(f"{path}, written by version {metadata['san']}, cannot be attached: {error}") from error
    wanted = parameters(trial.model)
    odd = sorted(set(trial.trainable) ^ tensors.keys())
    odd += [n for n in trial.trainable if n in tensors and wanted[n].shape != tensors[n].shape]
    if odd:
        shapes = [tuple(of[odd[0]].shape) if odd[0] in of else "nothing" for of in (tensors, wanted)]
        raise AdapterFileError(f"{path} does not fit this model: {odd[0]} is {shapes[0]} there and {shapes[1]} here.")
    adapter = attach(model, method, **options)
    here = parameters(model)
    with torch.no_grad():
        for name, value in tensors.items():
            here[name].copy_(value)
    return adapter


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and metadata of a saved adapter; raise AdapterFileError where the file is none."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(f"{path} cannot be read as an adapter: {error}") from error
    if metadata.get("format") != FORMAT:
        raise AdapterFileError(f"{path} has format {metadata.get('format')}; {FORMAT} is allowed: save it anew.")
    missing = {"method", "options", "backbone", "frozen", "san"} - metadata.keys()
    if missing:
        raise AdapterFileError(f"{path} does not say its {', '.join(sorted(missing))}: save it anew.")
    return tensors, metadata


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by name; a shared one has the name of its first place."""
    return dict(model.named_parameters())


def folds(model: nn.Module, name: str) -> bool:
    """Tell whether the parameter called `name` is inside a layer that can be merged."""
    parts = name.split(".")[:-1]
    return any(hasattr(model.get_submodule(".".join(parts[:i])), "merged") for i in range(1, len(parts) + 1))


def frozen_hash(model: nn.Module, trained: tuple[str, ...]) -> str:
    """Return a sha256 over names and values of all parameters but those in `trained`."""
    sha = hashlib.sha256()
    for name, value in sorted(parameters(model).items()):
        if name not in trained:
            sha.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            sha.update(as_bytes(value))
    return sha.hexdigest()


def count(size: dict[str, int], trainable: tuple[str, ...], norms: set[str], head: str, backbone_size: int) -> Counts:
    """Count what trains, from sizes by name; `backbone_size`: of the stock model without its head."""
    in_head = sum(n for name, n in size.items() if name.startswith(head))
    norm = sum(size[name] for name in trainable if name in norms)
    everything = sum(size[name] for name in trainable)
    percent = 100 * (everything - in_head) / backbone_size
    return Counts(everything - norm - in_head, norm, in_head, everything, sum(size.values()), percent)
