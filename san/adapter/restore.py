"""Attach what `Adapter.save` wrote to a stock model."""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from san.adapter.adapter_file import (
    SavedAdapter,
    check_model,
    layout_of,
    logits_match,
    probe_logits,
    read_adapter,
    read_tensors,
)
from san.adapter.arguments import check_arguments, check_not_attached
from san.adapter.attach import Adapter, attach, attach_for_good
from san.backbones import backbone_tag
from san.errors import AdapterFileError, SanError
from san.methods import check_options


def restore(model: nn.Module, path: str | os.PathLike[str], detachable: bool = True) -> Adapter:
    """Attach to a stock model the method that `Adapter.save` wrote, with the saved values.

    detachable: False attaches it for good, which keeps no copy of what the stock model had. The
    model must have the frozen weights that the adapter was trained on, in the same precision,
    and the same classes. Raises AdapterFileError, before the model is touched, where the file is
    not an adapter, or is one of a later version or of another model; that it is the same model is
    checked by its logits for a fixed image.
    """
    check_arguments("restore", model, "path", path, (str, os.PathLike))
    path = Path(path)
    saved = read_adapter(path)
    check_not_attached(model, saved.method)
    check_model(model, saved, path)
    options, planned = _plan(model, saved, path)
    _check_layout(saved.layout, planned, path)
    tensors = read_tensors(saved, path)
    trial = attach_for_good(copy.deepcopy(model), saved.method, **options)
    _copy_tensors(trial, tensors)
    dtype = next(trial.model.parameters()).dtype
    if not logits_match(probe_logits(trial.model), saved.probe_logits, dtype):
        raise AdapterFileError(
            f"{path} gives other logits here: this {backbone_tag(model)} is built in another way "
            "than the model that it was trained on."
        )
    attach_it = attach if detachable else attach_for_good
    adapter = attach_it(model, saved.method, **options)
    _copy_tensors(adapter, tensors)
    return adapter


def _plan(
    model: nn.Module, saved: SavedAdapter, path: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return all options of a saved method, and the layout of the tensors it would save here.

    It is attached to a copy on the meta device, where nothing is allocated whatever rank a file
    asks for. Raises AdapterFileError where it cannot be attached.
    """
    try:
        options = check_options(saved.method, saved.options, warn=False)
        with torch.device("meta"):
            plan = attach_for_good(copy.deepcopy(model).to("meta"), saved.method, **options)
    # Sizes that no tensor can have are errors of torch's, and of our counts.
    except (SanError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise AdapterFileError(
            f"{path}, written by version {saved.version}, cannot be attached: {error}"
        ) from error
    return options, layout_of(plan.saved_tensors())


def _check_layout(found: Mapping[str, str], wanted: Mapping[str, str], path: Path) -> None:
    """Raise AdapterFileError unless the saved tensors are those that the method has here."""
    for name in {**wanted, **found}:
        if wanted.get(name) != found.get(name):
            raise AdapterFileError(
                f"{path} does not fit this model: {name} is {found.get(name, 'nothing')} there "
                f"and {wanted.get(name, 'nothing')} here."
            )


@torch.no_grad()
def _copy_tensors(adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
    """Copy the saved values into tensors of the same layout."""
    own = adapter.saved_tensors()
    for name, value in tensors.items():
        own[name].copy_(value)
