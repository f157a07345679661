"""Which tensors decay, and at which rate each learns."""

from collections.abc import Callable

import pytest
from conftest import RECIPE, tiny_convnext, tiny_dino, tiny_eva, tiny_swin, tiny_vit
from timm.models import VisionTransformer
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn, optim

import san
from san.training.optimizer import make_optimizer
from san.training.recipe import Recipe

FAMILIES = [tiny_vit, tiny_dino, tiny_eva, tiny_swin, tiny_convnext]


def names_of(model: nn.Module) -> dict[int, str]:
    return {id(p): name for name, p in model.named_parameters()}


def optimized(model: nn.Module, **changes: object) -> optim.Optimizer:
    """The optimizer of a recipe; each trainable tensor is in one of its groups."""
    optimizer = make_optimizer(model, Recipe(**RECIPE | changes))
    found = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    return optimizer


def decaying(model: nn.Module, **changes: object) -> set[str]:
    names = names_of(model)
    found = set()
    for group in optimized(model, **changes).param_groups:
        assert group["weight_decay"] in (0.0, 1e-2)
        if group["weight_decay"]:
            found |= {names[id(p)] for p in group["params"]}
    return found


def scales(optimizer: optim.Optimizer, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Peak and scale of the learning rate by name."""
    names = names_of(model)
    return {
        names[id(p)]: (group["peak"], group["lr_scale"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def attached(method: str) -> tuple[VisionTransformer, dict[str, nn.Parameter]]:
    model = tiny_vit(3)
    san.attach(model, method)
    return model, {name: p for name, p in model.named_parameters() if p.requires_grad}


def test_rules_of_decay_when_everything_trains() -> None:
    model, named = attached("full")
    matrices = {name for name, p in named.items() if p.ndim >= 2}
    assert {"pos_embed", "cls_token", "head.weight"} < matrices
    assert decaying(model) == decaying(model, weight_decay_on="matrices") == matrices
    assert decaying(model, weight_decay_on="timm") == matrices - {"pos_embed", "cls_token"}
    assert decaying(model, weight_decay_on="all") == set(named)
    assert decaying(model, weight_decay_on="all_but_head_bias") == set(named) - {"head.bias"}
    norms = {name for name in named if "norm" in name and name.endswith("weight")}
    assert len(norms) == 5
    assert decaying(model, weight_decay_on="all_but_biases") == matrices | norms


def test_rules_of_decay_of_lora() -> None:
    model, named = attached("lora")
    low_rank = set(named) - {"head.weight", "head.bias"}
    assert len(low_rank) == 2 * 2
    for rule in ("matrices", "timm", "all_but_biases", "all_but_head_bias"):
        assert decaying(model, weight_decay_on=rule) == low_rank | {"head.weight"}, rule
    assert decaying(model, weight_decay_on="all") == set(named)


def test_rules_of_decay_of_ssf() -> None:
    model, named = attached("ssf")
    vectors = set(named) - {"head.weight", "head.bias"}
    assert len(vectors) > 2 * 12
    for rule in ("matrices", "timm"):
        assert decaying(model, weight_decay_on=rule) == {"head.weight"}, rule
    for rule in ("all_but_biases", "all_but_head_bias"):
        assert decaying(model, weight_decay_on=rule) == vectors | {"head.weight"}, rule
    assert decaying(model, weight_decay_on="all") == set(named)


@pytest.mark.parametrize("make", FAMILIES)
def test_timms_rule_is_timms(make: Callable[[], nn.Module]) -> None:
    model = make()
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
    _, decay = param_groups_weight_decay(model, 1e-2, no_weight_decay_list=exempt)
    assert decay["weight_decay"] == 1e-2
    names = names_of(model)
    wanted = {names[id(p)] for p in decay["params"]}
    assert decaying(model, weight_decay_on="timm") == wanted
    assert len(wanted) > 5


def test_the_head_bias_of_a_convnext_is_the_classifiers() -> None:
    model = tiny_convnext()
    named = {name for name, _ in model.named_parameters()}
    assert "head.norm.bias" in named
    assert named - decaying(model, weight_decay_on="all_but_head_bias") == {"head.fc.bias"}


@pytest.mark.parametrize("make", FAMILIES)
def test_layer_decay_is_timms(make: Callable[[], nn.Module]) -> None:
    model = make()
    names = names_of(model)
    wanted = {}
    for group in param_groups_layer_decay(model, layer_decay=0.7):
        for parameter in group["params"]:
            wanted[names[id(parameter)]] = (1e-2, group["lr_scale"])
    found = scales(optimized(model, layer_decay=0.7), model)
    assert found == {name: (peak, pytest.approx(s)) for name, (peak, s) in wanted.items()}
    assert len({scale for _, scale in found.values()}) >= 4  # stem, blocks, head


@pytest.mark.parametrize("method", ["lora", "ssf", "adapter", "san", "vpt_shallow", "vpt_deep"])
def test_what_a_method_puts_into_a_block_learns_as_the_block_does(method: str) -> None:
    model, named = attached(method)
    found = scales(optimized(model, layer_decay=0.5), model)
    assert found.keys() == named.keys()
    assert found["head.weight"] == (1e-2, 1.0)
    in_blocks = 0
    for name, (_, scale) in found.items():
        if name.startswith("blocks."):
            in_blocks += 1
            assert scale == 0.5 ** (2 - int(name.split(".")[1])), name
        if name.startswith("patch_embed."):
            assert scale == 0.5**3, name
    assert in_blocks > 0 or method == "vpt_shallow"


def test_a_decay_of_one_changes_nothing() -> None:
    model = tiny_vit(3)
    assert set(scales(optimized(model, layer_decay=1.0), model).values()) == {(1e-2, 1.0)}


@pytest.mark.parametrize("make", FAMILIES)
def test_the_head_has_a_peak_of_its_own(make: Callable[[], nn.Module]) -> None:
    model = make()
    found = scales(optimized(model, head_lr=0.5), model)
    own = {name for name, (peak, _) in found.items() if peak == 0.5}
    assert own == {name for name in found if name.startswith("head.")}
    assert len(own) >= 2
    assert {found[name] for name in found.keys() - own} == {(1e-2, 1.0)}


def test_betas_are_adamws() -> None:
    model = tiny_vit(3)
    assert optimized(model).defaults["betas"] == (0.9, 0.999)
    optimizer = optimized(model, betas=[0.8, 0.95])
    assert all(group["betas"] == (0.8, 0.95) for group in optimizer.param_groups)
    assert optimized(model, optimizer="sgd", betas=[0.8, 0.95]).defaults["momentum"] == 0.9


def test_by_default_there_are_two_groups_in_the_order_of_checkpoints() -> None:
    """An optimizer's state is saved by number: matrices first, as in every checkpoint so far."""
    model, named = attached("san")
    matrices, vectors = optimized(model).param_groups
    names = names_of(model)
    order = [names[id(p)] for p in [*matrices["params"], *vectors["params"]]]
    wanted = [name for name, p in named.items() if p.ndim >= 2]
    assert order == wanted + [name for name, p in named.items() if p.ndim < 2]
