"""What autograd keeps of a training step, in exact bytes: speed that needs no clock."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from conftest import tiny_eva, tiny_swin, tiny_vit
from steps import Batch, floor_step, saved_bytes
from torch import nn

import san

DEPTH, WIDTH, SIDE, BATCH = 3, 64, 64, 8
TOKENS = (SIDE // 8) ** 2 + 1
NUMBER = 4  # bytes


def vit(**options: object) -> nn.Module:
    """A ViT in which activations of a batch are many times the weights."""
    facts = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "patch_size": 8}
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=SIDE, num_classes=10, **facts, **options
    ).train()


def saved(model: nn.Module, images: torch.Tensor) -> int:
    """Bytes that a training step of a model keeps."""
    return saved_bytes(model, batch_of(images))


def floor(model: nn.Module, images: torch.Tensor) -> int:
    """Bytes that the least work keeps: gradients of the activations alone."""
    least = copy.deepcopy(model)
    floor_step(least, batch_of(images))
    return saved(least, images)


def batch_of(images: torch.Tensor) -> Batch:
    return Batch(images, torch.zeros(len(images), dtype=torch.long), bf16=False)


def folded(model: nn.Module) -> int:
    """Bytes of a copy of the weights of all linear and convolutional layers but the head."""
    layers = (nn.Linear, nn.Conv2d)
    weights = [m.weight for n, m in model.named_modules() if isinstance(m, layers) and n != "head"]
    return NUMBER * sum(weight.numel() for weight in weights)


@pytest.mark.parametrize("method", ["san", "san_recalibrated", "san_neurons", "ssf"])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_scales_keep_two_outputs_a_block(method: str, approximate: str) -> None:
    """Those of proj and fc2, which nobody else keeps; and the embedding's. No input, no norm's."""
    model = vit(act_layer=lambda: nn.GELU(approximate))
    images = torch.randn(BATCH, 3, SIDE, SIDE)
    least = floor(model, images)
    weights = folded(model)
    san.attach(model, method)
    stream = NUMBER * BATCH * TOKENS * WIDTH
    extra = saved(model, images) - least - weights
    assert (2 * DEPTH + 0.9) * stream < extra < (2 * DEPTH + 1.2) * stream


def test_the_head_does_not_keep_all_tokens() -> None:
    model = vit()
    images = torch.randn(BATCH, 3, SIDE, SIDE)
    least = floor(model, images)
    san.attach(model, "norm")  # whose gradients need no other activation
    assert saved(model, images) < 1.01 * least


@pytest.mark.parametrize("make", [tiny_vit, tiny_swin, tiny_eva])
def test_propagation_keeps_no_more_than_scales_alone(make: Callable[[], nn.Module]) -> None:
    """Norms apply the input scales behind them, and a GELU differentiates by that of fc2."""
    side = 32 if make is tiny_swin else 16
    images = torch.randn(4, 3, side, side)
    found = {}
    for propagation in ("off", "tied", "recalibrated", "untied"):
        model = make().train()
        san.attach(model, "san", propagation=propagation)
        found[propagation] = saved(model, images)
    least = found.pop("off")
    few = 0.02 * least  # the scales themselves
    if make is tiny_eva:  # its MLPs are gated: nobody else has what fc2 reads
        few = least
    for propagation, size in found.items():
        assert size < least + few, propagation
