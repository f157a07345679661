"""`lora` and `dora` against Hugging Face's peft on a timm ViT: same function, gradients, merge."""

import peft
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_vit
from torch import Tensor, nn

import san


def theirs(targets: list[str], dora: bool) -> nn.Module:
    """peft's model with everything it adds moved away from its start."""
    layers = "|".join(targets)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=rf"blocks\.\d+\.(attn|mlp)\.({layers})",
        use_dora=dora,
        modules_to_save=["head"],
    )
    model = peft.get_peft_model(tiny_vit().double(), config)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.add_(torch.randn_like(p), alpha=0.1)
    return model.eval()


def our_name(theirs: str) -> str:
    """Our name of a parameter of peft's."""
    stock = theirs.removeprefix("base_model.model.").replace("modules_to_save.default.", "")
    for old, new in (
        ("lora_magnitude_vector.default.weight", "magnitude"),
        ("lora_A.default.weight", "lora_a"),
        ("lora_B.default.weight", "lora_b"),
    ):
        stock = stock.replace(old, new)
    return stock


def ours(targets: list[str], dora: bool, model: nn.Module) -> tuple[san.Adapter, dict[str, Tensor]]:
    """Our model with peft's values, and peft's trained tensors by our names."""
    method = "dora" if dora else "lora"
    adapter = san.attach(tiny_vit().double(), method, rank=4, alpha=6, targets=targets)
    found = {our_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    parameters = dict(adapter.model.named_parameters())
    assert found.keys() == set(adapter.trainable)
    with torch.no_grad():
        for name, p in found.items():
            parameters[name].copy_(p.reshape(parameters[name].shape))
    adapter.model.eval()
    return adapter, found


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("targets", [["qkv"], ["qkv", "proj", "fc1", "fc2"]])
def test_equal_to_peft(targets: list[str], dora: bool) -> None:
    model = theirs(targets, dora)
    adapter, found = ours(targets, dora, model)
    torch.manual_seed(5)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    labels = torch.arange(4)
    a = adapter.model(images)
    b = model(images)
    assert (a - b).abs().max() < 1e-12
    assert (a - tiny_vit().double().eval()(images)).abs().max() > 1e-3
    F.cross_entropy(a, labels).backward()
    F.cross_entropy(b, labels).backward()
    gradients = {name: p.grad for name, p in adapter.model.named_parameters()}
    for name, p in found.items():
        assert (gradients[name].reshape(p.shape) - p.grad).abs().max() < 1e-12, name
    assert (adapter.merge()(images) - b).abs().max() < 1e-12
