"""A model that is cut where training begins computes what the whole one does."""

from collections.abc import Callable

import pytest
import torch
from conftest import tiny_convnext, tiny_dino, tiny_eva, tiny_swin, tiny_vit
from statements import installed_methods
from test_contract import SMALL
from torch import nn

import san
from san.backbones import FrozenPrefix, frozen_prefix

FAMILIES = [tiny_vit, tiny_dino, tiny_eva, tiny_swin, tiny_convnext]


def pooled_vit() -> nn.Module:
    return tiny_vit(global_pool="avg", fc_norm=True)


def cut(model: nn.Module, method: str, **options: object) -> FrozenPrefix | None:
    adapter = san.attach(model, method, **options)
    return frozen_prefix(model, adapter.trainable)


def side_of(model: nn.Module) -> int:
    return 16 if hasattr(model, "blocks") else 32


def assert_equal_in_any_batch(model: nn.Module, prefix: FrozenPrefix) -> None:
    """Features that were computed in one order give the logits, and the gradients, of another."""
    images = torch.randn(12, 3, side_of(model), side_of(model))
    with torch.no_grad():
        features = torch.cat([prefix.features(batch) for batch in images.split(8)])
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = torch.randperm(12)[:5]
    gradients = []
    for whole, inputs in ((model, images), (prefix.rest, features)):
        logits = whole(inputs[rows])
        gradients.append((logits, *torch.autograd.grad(logits.square().sum(), trained.values())))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    in_rest = {name: p for name, p in prefix.rest.named_parameters() if p.requires_grad}
    assert in_rest.keys() == trained.keys()
    assert all(in_rest[name] is trained[name] for name in trained)


@pytest.mark.parametrize("make", [*FAMILIES, pooled_vit])
@pytest.mark.parametrize(("method", "options"), [("linear", {}), ("mlp", {"dropout": 0.0})])
def test_before_the_head(
    make: Callable[[], nn.Module], method: str, options: dict[str, float]
) -> None:
    model = make().train()
    prefix = cut(model, method, **options)
    assert prefix is not None
    assert_equal_in_any_batch(model, prefix)


@pytest.mark.parametrize("make", [tiny_vit, tiny_dino, tiny_swin, tiny_convnext, pooled_vit])
def test_before_a_block(make: Callable[[], nn.Module]) -> None:
    model = make().train()
    prefix = cut(model, "partial", blocks=1)
    assert prefix is not None
    assert_equal_in_any_batch(model, prefix)


def test_what_comes_before_is_not_run() -> None:
    model = tiny_vit()
    prefix = cut(model, "partial", blocks=1)
    assert prefix is not None
    assert prefix.cut == "blocks.1"
    features = prefix.features(torch.randn(2, 3, 16, 16))
    for name in ("patch_embed", "blocks.0"):
        model.get_submodule(name).register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    prefix.rest(features)
    with pytest.raises(pytest.fail.Exception):
        model(torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("method", installed_methods())
def test_only_methods_that_train_the_end_have_one(
    make: Callable[[], nn.Module], method: str
) -> None:
    model = make()
    options = {"settings": SMALL[method]} if method in SMALL else {}
    try:
        prefix = cut(model, method, **options)
    except san.errors.InvalidValueError as error:
        pytest.skip(str(error))  # it cannot be attached to this family
    expected = method in ("linear", "mlp") or (method == "partial" and make is not tiny_eva)
    assert (prefix is not None) == expected


def test_all_blocks_of_partial_leave_nothing_to_keep() -> None:
    assert cut(tiny_vit(), "partial", blocks=2) is None
