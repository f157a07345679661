"""Attach a method to a stock model; count its parameters, merge, save and restore it."""

import copy
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from san.adapter_file import (
    SavedAdapter,
    check_model,
    content_hash,
    layout_of,
    logits_match,
    named_parameters,
    probe_logits,
    read_adapter,
    read_tensors,
    write_adapter,
)
from san.backbones import backbone_tag, family, head_name, sites
from san.counts import ParameterCounts
from san.errors import AdapterFileError, InvalidValueError, SanError
from san.layers.mergeable import FinishesMerge, Mergeable
from san.methods import check_compatible, check_options, method_module, norm_parameters


@dataclass(frozen=True, eq=False)
class Attachment:
    """Token set on a model, as `adapted_by`, while a method is attached; compared by identity.

    hooks: that keep batch norms from moving.
    """

    method: str
    hooks: tuple[RemovableHandle, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """A method attached to a model.

    trainable: the names of exactly the parameters that receive gradients; added: of those that the
    stock model lacks. attachment: the token on the model as long as this adapter is attached.
    """

    model: nn.Module
    method: str
    options: dict[str, Any]
    trainable: tuple[str, ...]
    added: frozenset[str]
    counts: ParameterCounts
    attachment: Attachment

    @property
    def saved_bytes(self) -> int:
        """The bytes of the tensors that `save` writes; a file has a few kB of facts besides."""
        return sum(p.numel() * p.element_size() for p in self._trained().values())

    def merge(self) -> nn.Module:
        """Fold the inserted layers into plain ones, in place, and return the model.

        The outputs stay the same, there are no extra modules, and everything is frozen. A second
        call changes nothing. Raises InvalidValueError, before anything is changed, where the method
        has parameters that no plain layer can take in, or where another method is attached by now.
        """
        attached = getattr(self.model, "adapted_by", None)
        if attached is None:
            return self.model
        if attached is not self.attachment:
            raise InvalidValueError(
                f"'{self.method}' was merged before; '{attached.method}' is attached now, "
                "and has its own merge()."
            )
        for name in sorted(self.added & named_parameters(self.model).keys()):
            if not _is_mergeable(self.model, name):
                raise InvalidValueError(
                    f"'{self.method}' cannot be merged: no plain layer can take in {name}."
                )
        modules = dict(self.model.named_modules())
        layers = {name: m for name, m in modules.items() if isinstance(m, Mergeable)}
        # All are computed before any is replaced: a layer may refuse, and scales are shared.
        plain_layers = {name: layer.merged() for name, layer in layers.items()}
        for name, plain in plain_layers.items():
            plain.train(modules[name].training)
            self.model.set_submodule(name, plain)
        for layer in layers.values():
            if isinstance(layer, FinishesMerge):
                layer.finish_merge(self.model)
        self.model.requires_grad_(False)
        for hook in self.attachment.hooks:
            hook.remove()
        del self.model.adapted_by  # it is a stock model again
        return self.model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trained parameters and no frozen one to a safetensors file.

        The file is complete or not there at all; `san.adapter_file` has its format. Raises
        InvalidValueError after a merge, and where the model's logits are not finite.
        """
        if getattr(self.model, "adapted_by", None) is not self.attachment:
            raise InvalidValueError(
                f"'{self.method}' has been merged into this model; save before you merge."
            )
        parameters = named_parameters(self.model)
        frozen = {name: p for name, p in parameters.items() if name not in self.trainable}
        tensors = {name: p.detach().cpu().contiguous() for name, p in self._trained().items()}
        logits = probe_logits(self.model)
        if not all(map(math.isfinite, logits)):
            raise InvalidValueError(
                f"The logits of this '{self.method}' are not finite: it has diverged. "
                "Nobody could tell a restored one from another; train it with a lower lr."
            )
        saved = SavedAdapter(
            method=self.method,
            options=self.options,
            backbone=backbone_tag(self.model),
            frozen=content_hash(frozen),
            probe_logits=logits,
            digest=content_hash(tensors),
            layout=layout_of(tensors),
        )
        write_adapter(saved, tensors, Path(path))

    def _trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name."""
        parameters = named_parameters(self.model)
        return {name: parameters[name] for name in self.trainable}


def attach(model: nn.Module, method: str, /, **options: Any) -> Adapter:
    """Attach `method` to a stock timm model in place and freeze all that it does not train.

    Raises UnknownNameError on an unknown method or option (with the nearest names),
    InvalidValueError on a model that has a method already, on an option out of range and on a
    backbone where the method makes no sense, UnsupportedModelError on a family without sites.
    """
    options = check_options(method, options)
    _check_not_attached(model, method)
    check_compatible(method, options, family(model))
    found = sites(model)
    head = f"{head_name(model)}."
    stock = {name: p.numel() for name, p in model.named_parameters()}
    stock_trainable = set(method_module(method).attach(model, found, **options))
    model.train(model.training)  # the inserted modules get the model's mode
    parameters = named_parameters(model)
    assert stock.keys() <= parameters.keys(), f"'{method}' renamed parameters of the stock model."
    assert stock_trainable <= stock.keys(), f"'{method}' names parameters that are not stock ones."
    added = frozenset(parameters.keys() - stock.keys())
    trains = stock_trainable | added
    trainable = tuple(name for name in parameters if name in trains or name.startswith(head))
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trainable)
    attachment = Attachment(method, _keep_statistics(model))
    model.adapted_by = attachment  # type: ignore[assignment]
    norms = stock.keys() & norm_parameters(model, found)
    counts = _count_parameters(parameters, trainable, norms, head, stock)
    return Adapter(model, method, options, trainable, added, counts, attachment)


def restore(model: nn.Module, path: str | os.PathLike[str]) -> Adapter:
    """Attach to a fresh model the method that `Adapter.save` wrote, with the saved values.

    The model must have the frozen weights that the adapter was trained on, in the same precision,
    and the same classes. Raises AdapterFileError, before the model is touched, where the file is
    not an adapter, or is one of a later version or of another model; that it is the same model is
    checked by its logits for a fixed image.
    """
    path = Path(path)
    saved = read_adapter(path)
    _check_not_attached(model, saved.method)
    check_model(model, saved, path)
    options, planned = _plan(model, saved, path)
    _check_layout(saved.layout, planned, path)
    tensors = read_tensors(saved, path)
    trial = attach(copy.deepcopy(model), saved.method, **options)
    _copy_tensors(trial, tensors)
    dtype = next(trial.model.parameters()).dtype
    if not logits_match(probe_logits(trial.model), saved.probe_logits, dtype):
        raise AdapterFileError(
            f"{path} gives other logits here: this {backbone_tag(model)} is built in another way "
            "than the model that it was trained on."
        )
    adapter = attach(model, saved.method, **options)
    _copy_tensors(adapter, tensors)
    return adapter


def _plan(
    model: nn.Module, saved: SavedAdapter, path: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return all options of a saved method, and the layout of the tensors it would train here.

    It is attached to a copy on the meta device, where nothing is allocated whatever rank a file
    asks for. Raises AdapterFileError where it cannot be attached.
    """
    try:
        options = check_options(saved.method, saved.options, warn=False)
        with torch.device("meta"):
            plan = attach(copy.deepcopy(model).to("meta"), saved.method, **options)
    # Sizes that no tensor can have are errors of torch's, and of our counts.
    except (SanError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise AdapterFileError(
            f"{path}, written by version {saved.version}, cannot be attached: {error}"
        ) from error
    parameters = named_parameters(plan.model)
    return options, layout_of({name: parameters[name] for name in plan.trainable})


def _check_layout(found: Mapping[str, str], wanted: Mapping[str, str], path: Path) -> None:
    """Raise AdapterFileError unless the saved tensors are those that the method trains here."""
    for name in {**wanted, **found}:
        if wanted.get(name) != found.get(name):
            raise AdapterFileError(
                f"{path} does not fit this model: {name} is {found.get(name, 'nothing')} there "
                f"and {wanted.get(name, 'nothing')} here."
            )


def _keep_statistics(model: nn.Module) -> tuple[RemovableHandle, ...]:
    """Let batch norms, which hybrid ViTs have, use and keep their pre-trained statistics.

    So they do with every method: statistics that move are neither frozen nor trained by gradients,
    and a saved adapter has parameters alone. Return the hooks that see to it.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return tuple(norm.register_forward_pre_hook(_evaluate) for norm in norms)


def _evaluate(module: nn.Module, _inputs: object) -> None:
    module.eval()


def _check_not_attached(model: nn.Module, method: str) -> None:
    """Raise InvalidValueError if the model has a method attached."""
    attached = getattr(model, "adapted_by", None)
    if attached is not None:
        raise InvalidValueError(
            f"This model has '{attached.method}' attached already; "
            f"build a fresh one for '{method}'."
        )


def _is_mergeable(model: nn.Module, parameter: str) -> bool:
    """Tell whether the parameter called so is inside a layer that can be merged."""
    layer = parameter
    while "." in layer:
        layer = layer.rpartition(".")[0]
        if isinstance(model.get_submodule(layer), Mergeable):
            return True
    return False


def _count_parameters(
    parameters: Mapping[str, nn.Parameter],
    trainable: Collection[str],
    norms: Collection[str],
    head: str,
    stock: Mapping[str, int],
) -> ParameterCounts:
    """Count the parameters of a model. stock: sizes of those that were there before, by name."""
    sizes = {name: p.numel() for name, p in parameters.items()}
    in_head = sum(size for name, size in sizes.items() if name.startswith(head))
    in_norms = sum(sizes[name] for name in trainable if name in norms)
    all_trainable = sum(sizes[name] for name in trainable)
    backbone = sum(size for name, size in stock.items() if not name.startswith(head))
    return ParameterCounts(
        method=all_trainable - in_norms - in_head,
        norm=in_norms,
        head=in_head,
        trainable=all_trainable,
        total=sum(sizes.values()),
        percent=100 * (all_trainable - in_head) / backbone,
    )


@torch.no_grad()
def _copy_tensors(adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
    """Copy the saved values into parameters of the same layout."""
    parameters = named_parameters(adapter.model)
    for name, value in tensors.items():
        parameters[name].copy_(value)
