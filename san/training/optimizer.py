"""The optimizer of a run: which tensors decay, and at which rate each learns."""

from typing import Any, NamedTuple

import torch
from torch import nn

from san.backbones import classifier_name, head_name, layer_depths, undecayed_parameters
from san.training.recipe import DecayOn, Recipe


class _Kind(NamedTuple):
    """What the parameters of a group have in common; those that decay come first."""

    is_exempt: bool
    peak: float
    lr_scale: float


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Optimize the trainable parameters, with torch's fused kernels.

    Each of its groups has its `peak`, and the `lr_scale` by which its rate is multiplied.
    """
    groups = _groups(model, recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameters that learn and decay alike, group by group."""
    named = _trainable(model)
    decaying = _decaying(model, recipe.weight_decay_on)
    peaks = _peaks(model, recipe)
    scales = _layer_scales(model, recipe)
    parameters: dict[_Kind, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        kind = _Kind(
            is_exempt=name not in decaying,
            peak=peaks[name],
            lr_scale=scales[name],
        )
        parameters.setdefault(kind, []).append(parameter)
    groups: list[dict[str, Any]] = []
    for kind in sorted(parameters):
        groups.append(
            {
                "params": parameters[kind],
                "weight_decay": 0.0 if kind.is_exempt else recipe.weight_decay,
                "peak": kind.peak,
                "lr_scale": kind.lr_scale,
            }
        )
    return groups


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _decaying(model: nn.Module, rule: DecayOn) -> set[str]:
    """Return the names of the parameters that decay.

    `matrices`: of two or more axes, whatever they are called. `timm`: those of them that are no
    bias, and that the model does not exempt, as timm's optimizers do. `all`: the code of Convpass,
    FacT and RepAdapter. `all_but_biases`: heekhero/DTL bf6c51e. `all_but_head_bias`: KMnP/vpt
    4410440, with SGD.
    """
    named = _trainable(model)
    matrices = {name for name, parameter in named.items() if parameter.ndim >= 2}
    if rule == "matrices":
        return matrices
    if rule == "all":
        return set(named)
    if rule == "all_but_head_bias":
        return named.keys() - {f"{classifier_name(model)}.bias"}
    biases = {name for name in named if name.rpartition(".")[2] == "bias"}
    if rule == "all_but_biases":
        return named.keys() - biases
    return matrices - biases - undecayed_parameters(model)


def _peaks(model: nn.Module, recipe: Recipe) -> dict[str, float]:
    """Return the peak of the learning rate of each parameter."""
    peaks = dict.fromkeys(_trainable(model), recipe.lr)
    if recipe.head_lr is not None:
        head = f"{head_name(model)}."
        in_head = [name for name in peaks if name.startswith(head)]
        peaks |= dict.fromkeys(in_head, recipe.head_lr)
    return peaks


def _layer_scales(model: nn.Module, recipe: Recipe) -> dict[str, float]:
    """Return by what the learning rate of each parameter is multiplied.

    It is smaller the farther below the head the parameter's layer lies.
    """
    if recipe.layer_decay is None:
        return dict.fromkeys(_trainable(model), 1.0)
    depths = layer_depths(model)
    return {name: recipe.layer_decay**depth for name, depth in depths.items()}
