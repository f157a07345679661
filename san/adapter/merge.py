"""Fold the layers of a method into plain ones."""

from collections.abc import Collection

from torch import nn

from san.errors import InvalidValueError
from san.layers.mergeable import FinishesMerge, Mergeable


def merge_layers(model: nn.Module, method: str, added: Collection[str]) -> None:
    """Put a plain layer in the place of each that the method inserted; freeze everything.

    added: names of the parameters of these. Raises InvalidValueError, before anything is changed,
    where one is of no layer that a plain one can take the place of.
    """
    modules = dict(model.named_modules())
    layers: dict[str, Mergeable] = {}
    for name, module in modules.items():
        # What is inside another goes with it.
        if isinstance(module, Mergeable) and not _is_inside(name, layers):
            layers[name] = module
    names = {name for name, _ in model.named_parameters()}
    for name in sorted(names.intersection(added)):
        if not _is_inside(name, layers):
            raise InvalidValueError(
                f"'{method}' cannot be merged: no plain layer can take in {name}."
            )
    # All are computed before any is replaced: a layer may refuse, and scales are shared.
    plain_layers = {name: layer.merged() for name, layer in layers.items()}
    for name, plain in plain_layers.items():
        plain.train(modules[name].training)
        model.set_submodule(name, plain)
    for layer in layers.values():
        if isinstance(layer, FinishesMerge):
            layer.finish_merge(model)
    model.requires_grad_(False)


def _is_inside(parameter: str, layers: Collection[str]) -> bool:
    """Tell whether the parameter called so is of one of these layers."""
    name = parameter
    while "." in name:
        name = name.rpartition(".")[0]
        if name in layers:
            return True
    return False
