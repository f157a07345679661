"""Models that people bring: without a head, inside a module of their own, with batch norms."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from conftest import tiny_convnext, tiny_eva, tiny_swin, tiny_vit
from torch import Tensor, nn

import san
from san.errors import UnsupportedModelError

HEADLESS = [tiny_vit, tiny_eva, tiny_swin, tiny_convnext]


class Wrapper(nn.Module):
    """A backbone and a head, as somebody writes them."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.classify = nn.Linear(backbone.num_features, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.backbone(images))


def images_for(model: nn.Module) -> Tensor:
    size = 16 if isinstance(model, (type(tiny_vit()), type(tiny_eva()))) else 32
    return torch.randn(2, 3, size, size)


@pytest.mark.parametrize("make", HEADLESS)
@pytest.mark.parametrize("method", ["san", "ssf", "adapter_plus", "linear"])
def test_a_model_without_a_head_trains_the_method_and_the_caller_his_head(
    make, method: str, tmp_path: Path
) -> None:
    wrapper = Wrapper(make(0))
    backbone = wrapper.backbone
    images = images_for(backbone)
    adapter = san.attach(backbone, method)
    wrapper(images).square().sum().backward()
    got = {name for name, p in backbone.named_parameters() if p.grad is not None}
    assert got == set(adapter.trainable)
    assert wrapper.classify.weight.grad is not None
    norm_before_the_head = 2 * backbone.num_features if make is tiny_convnext else 0
    assert adapter.counts.head == norm_before_the_head
    assert adapter.counts.trainable == sum(
        p.numel() for p in backbone.parameters() if p.requires_grad
    )
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if name in adapter.trainable:
                parameter.add_(torch.randn_like(parameter) / 10)
    expected = backbone.eval()(images)
    if adapter.trainable:
        adapter.save(tmp_path / "a.safetensors")
        again = san.restore(make(0).eval(), tmp_path / "a.safetensors")
        assert torch.equal(again.model(images), expected)
    if method in ("san", "ssf"):
        assert torch.allclose(adapter.merge()(images), expected, atol=1e-4)


def test_a_backbone_inside_a_module_is_named() -> None:
    with pytest.raises(UnsupportedModelError, match=r"has one inside: san.attach\(model.backbone"):
        san.attach(Wrapper(tiny_vit(0)), "san")


def hybrid() -> nn.Module:
    """A ViT behind a small ResNet, with batch norms that have statistics of their own."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_small_resnet26d_224", num_classes=3, img_size=64, embed_dim=32, depth=1, num_heads=2
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


@pytest.mark.parametrize("method", ["linear", "san", "adapter", "full", "bitfit"])
def test_batch_norms_do_not_move(method: str, tmp_path: Path) -> None:
    model = hybrid()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images = torch.randn(4, 3, 64, 64)
    adapter = san.attach(model, method, **({"init_std": 0.0} if method == "adapter" else {}))
    expected = hybrid().eval()(images)
    assert torch.allclose(copy.deepcopy(model).train()(images), expected, atol=1e-4)
    model.train()(images).sum().backward()
    assert len(before) > 20
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    adapter.save(tmp_path / "a.safetensors")
    again = san.restore(hybrid().train(), tmp_path / "a.safetensors")
    assert torch.allclose(again.model(images), expected, atol=1e-4)
    if method == "san":
        merged = adapter.merge()
        merged.train()(images)
        moved = [n for n, b in merged.named_buffers() if not torch.equal(before[n], b)]
        assert moved  # a stock model again, which does as stock models do


@pytest.mark.parametrize("make", [tiny_vit, tiny_swin])
@pytest.mark.parametrize("method", ["vpt_shallow", "vpt_deep"])
def test_prompts_give_no_scrambled_maps(make, method: str) -> None:
    model = make()
    images = images_for(model)
    model.forward_intermediates(images)
    san.attach(model, method)
    with pytest.raises(UnsupportedModelError, match="no maps of features by place"):
        model.forward_intermediates(images)
    with pytest.raises(UnsupportedModelError, match="no maps of features by place"):
        copy.deepcopy(model).forward_intermediates(images)
    assert model(images).shape == (2, 10)
