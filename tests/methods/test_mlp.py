"""The head with hidden layers: its equations, and statistics that are part of what it learns."""

import copy
import math
from pathlib import Path

import pytest
import timm
import torch
from conftest import tiny_convnext, tiny_swin, tiny_vit
from test_contract import steps
from torch import Tensor, nn

import san
from san.backbones import classifier_name
from san.errors import UnsupportedModelError
from san.methods.mlp import MLPHead
from san.training.ema import WeightAverage

FAMILIES = [tiny_vit, tiny_swin, tiny_convnext]


def side_of(model: nn.Module) -> int:
    return 16 if hasattr(model, "blocks") else 32


def disturbed(head: MLPHead) -> MLPHead:
    """A head whose parameters and statistics are not those of the start."""
    torch.manual_seed(2)
    with torch.no_grad():
        for tensor in (*head.parameters(), *head.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return head


def head_of(make, **options: float) -> MLPHead:
    model = san.attach(make().double(), "mlp", **options).model
    head = model.get_submodule(classifier_name(model))
    assert isinstance(head, MLPHead)
    return head


def normalized(x: Tensor, mean: Tensor, variance: Tensor, norm: nn.Module) -> Tensor:
    return norm.weight * (x - mean) / (variance + norm.eps).sqrt() + norm.bias


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("training", [False, True])
def test_logits_are_those_of_the_equations(make, training: bool) -> None:
    head = disturbed(head_of(make, hidden_layers=3, dropout=0.0)).train(training)
    x = torch.randn(7, head.in_features, dtype=torch.float64)
    expected = x
    running = []
    for i in range(0, 12, 4):
        linear = head.hidden[i]
        norm = head.hidden[i + 2]
        expected = (expected @ linear.weight.T + linear.bias).clamp(min=0)
        mean = norm.running_mean.clone()
        variance = norm.running_var.clone()
        if training:
            running.append(0.9 * mean + 0.1 * expected.mean(0))
            running.append(0.9 * variance + 0.1 * expected.var(0, unbiased=True))
            mean = expected.mean(0)
            variance = expected.var(0, unbiased=False)
        expected = normalized(expected, mean, variance, norm)
    expected = expected @ head.weight.T + head.bias
    assert torch.allclose(head(x), expected, atol=1e-10)
    norms = [module for module in head.modules() if isinstance(module, nn.BatchNorm1d)]
    moved = [value for norm in norms for value in (norm.running_mean, norm.running_var)]
    if training:
        assert len(running) == len(moved) == 6
        assert all(torch.allclose(a, b) for a, b in zip(moved, running, strict=True))


def test_the_count_of_the_official_code_on_a_small_vit() -> None:
    """mlp3_vpt: 48 channels, 10 classes, MLP_NUM 3."""
    head = MLPHead(nn.Linear(48, 10), 3, 0.1)
    assert sum(p.numel() for p in head.parameters()) == 7_834


def test_hidden_layers_begin_as_kaiming_normal_by_fan_out() -> None:
    linear = MLPHead(nn.Linear(256, 10), 1, 0.1).hidden[0]
    assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)
    assert 0 < linear.bias.abs().max() <= 1 / 16


def test_dropout_acts_while_it_trains() -> None:
    head = head_of(tiny_vit, dropout=0.5)
    x = torch.randn(4096, head.in_features, dtype=torch.float64)
    zeros = (head.hidden(x) == 0).double().mean()
    assert abs(zeros - 0.5) < 0.02
    assert (head.eval().hidden(x) == 0).sum() == 0


def test_an_only_image_is_normalized_by_the_running_statistics() -> None:
    head = disturbed(head_of(tiny_vit, dropout=0.0)).train()
    before = copy.deepcopy(head.state_dict())
    x = torch.randn(1, head.in_features, dtype=torch.float64)
    logits = head(x)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert torch.equal(head.eval()(x), logits)


@pytest.mark.parametrize("make", FAMILIES)
def test_statistics_are_saved_and_come_back(make, tmp_path: Path) -> None:
    stock = make().eval()
    images = torch.randn(8, 3, side_of(stock), side_of(stock))
    stock_logits = stock(images)
    adapter = san.attach(stock, "mlp", hidden_layers=2)
    assert len(adapter.buffers) == 2 * 3
    steps(adapter.model.train(), images)
    expected = adapter.model.eval()(images)
    own = adapter.saved_tensors()
    assert all(own[name] == 3 for name in adapter.buffers if name.endswith("batches_tracked"))
    size = adapter.saved_bytes
    assert size == 4 * adapter.counts.trainable + sum(own[n].nbytes for n in adapter.buffers)
    path = tmp_path / "a.safetensors"
    adapter.save(path)
    assert torch.equal(san.restore(make().eval(), path).model(images), expected)
    with adapter.disabled() as plain:
        assert adapter.saved_bytes == size
        assert torch.equal(plain(images), stock_logits)
    assert torch.equal(adapter.model(images), expected)
    plain = adapter.detach()
    assert torch.equal(plain(images), stock_logits)


def test_statistics_of_the_backbone_stay_where_they_are() -> None:
    model = timm.create_model(
        "vit_small_resnet26d_224", num_classes=3, img_size=64, embed_dim=32, depth=1, num_heads=2
    )
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    adapter = san.attach(model, "mlp")
    steps(model.train(), torch.randn(3, 3, 64, 64), 1)
    moved = {n for n, b in model.named_buffers() if n in before and not torch.equal(b, before[n])}
    assert len(before) > 20
    assert not moved
    own = adapter.saved_tensors()
    assert all(own[n].any() for n in adapter.buffers)


def test_an_average_of_the_weights_averages_the_statistics() -> None:
    model = tiny_vit()
    adapter = san.attach(model, "mlp")
    average = WeightAverage(model, 0.75)
    own = adapter.saved_tensors()
    (mean, *_) = (name for name in adapter.buffers if name.endswith("running_mean"))
    steps(model, torch.randn(8, 3, 16, 16), 1)
    average.update()
    last = own[mean].clone()
    assert last.any()
    with average.applied():
        assert torch.allclose(own[mean], 0.25 * last)
    assert torch.equal(own[mean], last)


def test_a_model_without_a_classifier_is_refused() -> None:
    model = tiny_vit(0)
    with pytest.raises(UnsupportedModelError, match="has no classifier for 'mlp'"):
        san.attach(model, "mlp")
    assert not hasattr(model, "adapted_by")
