"""Attach a method to a stock model; count, merge, save and restore what it added."""

import copy
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from san.adapter_file import (
    FORMAT,
    check_model,
    content_hash,
    logits_match,
    named_parameters,
    probe_logits,
    read_adapter,
    shape_and_dtype,
)
from san.backbones import backbone_tag, family, head_name, sites
from san.errors import AdapterFileError
from san.methods import check_compatible, check_options, method_module, norm_parameters
from san.version import __version__


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters. `method` is what trains besides norm layers and head; `percent` leaves out the head."""

    method: int
    norm: int
    head: int
    trainable: int
    total: int
    percent: float


class Mark(str):
    """What a model bears while a method is attached: the method's name, one object for each attachment."""


@dataclass(frozen=True)
class Adapter:
    """A method attached to a model.

    trainable: the names of exactly the parameters that receive gradients; added: of those that the stock model lacks.
    mark: what the model bears as `adapted_by` as long as this is attached.
    """

    model: nn.Module
    method: str
    options: dict[str, Any]
    trainable: tuple[str, ...]
    added: frozenset[str]
    counts: Counts
    mark: Mark

    def merge(self) -> nn.Module:
        """Fold what was inserted into plain layers, in place: the same outputs, no extra modules, everything frozen.

        A second call changes nothing. Returns the model. Raises ValueError, before anything is changed, where the
        method holds parameters that no plain layer can take in, or where another method is attached by now.
        """
        attached = getattr(self.model, "adapted_by", None)
        if attached is None:
            return self.model
        if attached is not self.mark:
            raise ValueError(
                f"'{self.method}' was merged before; '{attached}' is attached now, and has its own merge()."
            )
        for name in sorted(self.added & named_parameters(self.model).keys()):
            if not is_mergeable(self.model, name):
                raise ValueError(
                    f"'{self.method}' cannot be merged: {name} is part of no layer that a plain one equals."
                )
        inserted = {
            name: module for name, module in self.model.named_modules() if hasattr(module, "merged")
        }
        plain = {name: cast(Any, module).merged() for name, module in inserted.items()}
        for name, layer in plain.items():
            self.model.set_submodule(name, layer.train(inserted[name].training))
        for module in inserted.values():
            if hasattr(module, "settle"):
                cast(Any, module).settle(self.model)
        self.model.requires_grad_(False)
        del self.model.adapted_by  # a stock model again, for whatever comes next
        return self.model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what trained and nothing of what is frozen to a safetensors file, whole or not at all.

        Its metadata name the method, options, backbone, hashes of the frozen weights and of the tensors saved, the
        version of this library, and what the model answers to a fixed image. Raises ValueError after a merge.
        """
        present = named_parameters(self.model)
        if getattr(self.model, "adapted_by", None) is not self.mark:
            raise ValueError(
                f"'{self.method}' has been merged into this model; save before you merge."
            )
        tensors = {name: present[name].detach().cpu().contiguous() for name in self.trainable}
        metadata = {
            "format": FORMAT,
            "method": self.method,
            "options": json.dumps(self.options),
            "backbone": backbone_tag(self.model),
            "frozen": content_hash({n: p for n, p in present.items() if n not in tensors}),
            "tensors": content_hash(tensors),
            "answer": json.dumps(probe_logits(self.model)),
            "san": __version__,
        }
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            unfinished = Path(folder) / path.name
            save_file(tensors, unfinished, metadata)
            unfinished.chmod(0o644)
            unfinished.replace(path)


def attach(model: nn.Module, method: str, /, **options: Any) -> Adapter:
    """Attach `method` to a stock timm model in place and freeze whatever it does not train.

    Raises LookupError on an unknown method or option (with the nearest names), ValueError on a model that has a method
    already, on an option out of range and on a backbone where the method makes no sense, TypeError on a model family
    without sites.
    """
    options = check_options(method, options)
    check_not_attached(model, method)
    check_compatible(method, options, family(model))
    found, before, head = sites(model), named_parameters(model), head_name(model) + "."
    backbone_size = sum(p.numel() for name, p in before.items() if not name.startswith(head))
    stock = set(method_module(method).attach(model, found, **options))
    model.train(model.training)  # what was inserted is in the model's mode
    model.adapted_by = mark = Mark(method)  # type: ignore[assignment]
    after = named_parameters(model)
    assert before.keys() <= after.keys(), f"'{method}' renamed parameters of the stock model."
    assert stock <= before.keys(), f"'{method}' names parameters that are not of the stock model."
    added = after.keys() - before.keys()
    trainable = tuple(name for name in after if name in stock | added or name.startswith(head))
    for name, parameter in after.items():
        parameter.requires_grad_(name in trainable)
    norms = set(norm_parameters(model, found)) & before.keys()
    counts = count_parameters(
        {name: p.numel() for name, p in after.items()}, trainable, norms, head, backbone_size
    )
    return Adapter(model, method, options, trainable, frozenset(added), counts, mark)


def restore(model: nn.Module, path: str | os.PathLike[str]) -> Adapter:
    """Attach to a fresh model what `Adapter.save` wrote, with the saved values.

    The model must have the frozen weights that the adapter was trained on, in the same precision, and the same classes.
    Raises AdapterFileError, before the model is touched, where the file is no adapter, of another version, or of
    another model; that it is this one is checked by what the whole answers to a fixed image.
    """
    tensors, metadata = read_adapter(Path(path))
    check_not_attached(model, metadata["method"])
    method, options = metadata["method"], json.loads(metadata["options"])
    check_model(model, tensors, metadata, path)
    try:
        trial = attach(copy.deepcopy(model), method, **options)
    except (LookupError, ValueError, TypeError) as error:
        raise AdapterFileError(
            f"{path}, written by version {metadata['san']}, cannot be attached: {error}"
        ) from error
    load_tensors(trial, tensors, path)
    if not logits_match(
        probe_logits(trial.model),
        json.loads(metadata["answer"]),
        next(trial.model.parameters()).dtype,
    ):
        raise AdapterFileError(
            f"{path} answers otherwise here: this {backbone_tag(model)} is built in another way."
        )
    adapter = attach(model, method, **options)
    load_tensors(adapter, tensors, path)
    return adapter


def check_not_attached(model: nn.Module, method: str) -> None:
    """Raise ValueError if the model has a method attached."""
    if hasattr(model, "adapted_by"):
        raise ValueError(
            f"This model has '{model.adapted_by}' attached already; build a fresh one for '{method}'."
        )


def is_mergeable(model: nn.Module, name: str) -> bool:
    """Tell whether the parameter called `name` is inside a layer that can be merged."""
    parts = name.split(".")[:-1]
    return any(
        hasattr(model.get_submodule(".".join(parts[:i])), "merged")
        for i in range(1, len(parts) + 1)
    )


def count_parameters(
    size: dict[str, int], trainable: tuple[str, ...], norms: set[str], head: str, backbone_size: int
) -> Counts:
    """Count what trains, from sizes by name; `backbone_size`: of the stock model without its head."""
    in_head = sum(n for name, n in size.items() if name.startswith(head))
    norm = sum(size[name] for name in trainable if name in norms)
    everything = sum(size[name] for name in trainable)
    percent = 100 * (everything - in_head) / backbone_size
    return Counts(
        everything - norm - in_head, norm, in_head, everything, sum(size.values()), percent
    )


@torch.no_grad()
def load_tensors(adapter: Adapter, tensors: dict[str, Tensor], path: Any) -> None:
    """Copy the saved values in; raise AdapterFileError, before any is, unless they are all there and fit."""
    here = named_parameters(adapter.model)
    odd = sorted(set(adapter.trainable) ^ tensors.keys())
    odd += [
        n
        for n in adapter.trainable
        if n in tensors and shape_and_dtype(here[n]) != shape_and_dtype(tensors[n])
    ]
    if odd:
        there, wanted = (
            shape_and_dtype(of[odd[0]]) if odd[0] in of else "nothing" for of in (tensors, here)
        )
        raise AdapterFileError(
            f"{path} does not fit this model: {odd[0]} is {there} there and {wanted} here."
        )
    for name, value in tensors.items():
        here[name].copy_(value)
