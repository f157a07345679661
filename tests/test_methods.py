"""The contract of all methods, on a two-block ViT."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import tiny_vit

import san
from san import methods

METHODS = methods.names()
ADDS_TOKENS, NOT_MERGED = {"vpt"}, {"vpt", "adaptformer"}
IDENTICAL_AT_START = {
    "adaptformer": {}, "bitfit": {}, "full": {}, "linear": {}, "lora": {}, "norm": {}, "partial": {}, "san": {},
    "ssf": {"std": 0.0},
}  # fmt: skip


def step(model: torch.nn.Module, count: int = 3) -> list[float]:
    g = torch.Generator().manual_seed(1)
    images, labels = torch.randn(8, 3, 16, 16, generator=g), torch.arange(8)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_all_methods_are_under_test() -> None:
    assert len(METHODS) == 10
    assert set(METHODS) == set(IDENTICAL_AT_START) | ADDS_TOKENS


@pytest.mark.parametrize("method", IDENTICAL_AT_START)
def test_starts_at_the_pretrained_function(method: str) -> None:
    model, images = tiny_vit().eval(), torch.randn(2, 3, 16, 16)
    before = model(images)
    san.attach(model, method, **IDENTICAL_AT_START[method])
    assert torch.allclose(model(images), before, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_trains_exactly_what_it_names(method: str) -> None:
    model = tiny_vit()
    adapter = san.attach(model, method)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = step(model)
    assert losses[-1] < losses[0]
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    assert moved == set(adapter.trainable)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(adapter.trainable)


@pytest.mark.parametrize("method", METHODS)
def test_merges_to_the_stock_model(method: str) -> None:
    model = tiny_vit().double()
    adapter = san.attach(model, method)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    model.double()
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g, dtype=p.dtype), alpha=0.1)
    before, twin = model.eval()(images), copy.deepcopy(model)
    assert torch.equal(twin(images), before)
    if method in NOT_MERGED:
        with pytest.raises(ValueError, match=f"'{method}' cannot be merged"):
            adapter.merge()
        return
    adapter.merge()
    assert [type(m) for m in model.modules()] == [type(m) for m in tiny_vit().modules()]
    assert torch.allclose(model(images), before, atol=1e-12)


# ViT-B/16, 100 classes: method, norm, head, trainable; the official implementations' and the closed formulas'.
COUNTS = {
    "adaptformer": (156_768, 0, 76_900, 233_668),
    "bitfit": (83_712, 19_200, 76_900, 179_812),
    "lora": (294_912, 0, 76_900, 371_812),
    "norm": (0, 38_400, 76_900, 115_300),
    "partial": (7_084_800, 4_608, 76_900, 7_166_308),
    "vpt": (46_080, 0, 76_900, 122_980),
    "full": (85_760_256, 38_400, 76_900, 85_875_556),
    "linear": (0, 0, 76_900, 76_900),
    "ssf": (205_824, 0, 76_900, 282_724),
    "san": (83_712, 38_400, 76_900, 199_012),
}


@pytest.mark.parametrize("method", METHODS)
def test_counts_at_vit_b16(method: str) -> None:
    c = san.attach(timm.create_model("vit_base_patch16_224", num_classes=100), method).counts
    assert (c.method, c.norm, c.head, c.trainable) == COUNTS[method]
    assert c.percent == pytest.approx(100 * (c.trainable - c.head) / 85_798_656)


def test_lora_targets() -> None:
    fused, whole = tiny_vit(), tiny_vit()
    assert san.attach(fused, "lora", targets=["qkv"], rank=2).counts.method == 2 * 2 * (32 + 96)
    assert san.attach(whole, "lora", targets=["k", "proj", "fc1", "fc2"], rank=2).counts.method == 2 * 2 * (
        64 + 64 + 160 + 160
    )
    assert whole.blocks[0].attn.qkv.starts == (32,)
    with pytest.raises(ValueError, match="qkv or slices of it, not both"):
        san.attach(tiny_vit(), "lora", targets=["q", "qkv"])
    with pytest.raises(LookupError, match="Unknown target of lora 'fc3'"):
        san.attach(tiny_vit(), "lora", targets=["fc3"])


def test_ranges_of_the_others() -> None:
    assert san.attach(tiny_vit(), "vpt", deep=False, length=3).counts.method == 3 * 32
    with pytest.raises(ValueError, match="vpt.length came as 0"):
        san.attach(tiny_vit(), "vpt", length=0)
    with pytest.raises(ValueError, match="partial.blocks came as 3; allowed: 1 to 2"):
        san.attach(tiny_vit(), "partial", blocks=3)
    with pytest.raises(ValueError, match="adaptformer.width came as 0"):
        san.attach(tiny_vit(), "adaptformer", width=0)


def test_san_arms() -> None:
    tied = tiny_vit()
    san.attach(tied, "san")
    assert tied.blocks[1].attn.qkv.pre is tied.patch_embed.proj.scale
    assert tied.blocks[1].attn.proj.pre is None
    assert tied.blocks[1].mlp.fc1.pre is tied.blocks[1].attn.proj.scale
    assert tied.blocks[1].mlp.fc2.pre is tied.blocks[1].mlp.fc1.scale
    preceding = tiny_vit()
    san.attach(preceding, "san", qkv_anterior="preceding")
    assert preceding.blocks[0].attn.qkv.pre is preceding.patch_embed.proj.scale
    assert preceding.blocks[1].attn.qkv.pre is preceding.blocks[0].mlp.fc2.scale
    neurons = tiny_vit()
    adapter = san.attach(neurons, "san", propagation=False, norms=False)
    assert all(getattr(m, "pre", None) is None for m in neurons.modules())
    assert adapter.counts.norm == 0


def test_bad_calls_say_what_to_do() -> None:
    with pytest.raises(LookupError, match=r"Unknown method 'sann'\. Did you mean san"):
        san.attach(tiny_vit(), "sann")
    with pytest.raises(LookupError, match=r"Unknown option of san 'propagaton'\. Did you mean propagation"):
        san.attach(tiny_vit(), "san", propagaton=True)
    with pytest.raises(ValueError, match=r"method.norms came as 1; a bool is allowed"):
        san.attach(tiny_vit(), "san", norms=1)
    with pytest.raises(ValueError, match="qkv_anterior came as 'next'; allowed: patch, preceding"):
        san.attach(tiny_vit(), "san", qkv_anterior="next")
    model = tiny_vit()
    san.attach(model, "ssf")
    with pytest.raises(ValueError, match="has 'ssf' attached already"):
        san.attach(model, "san")
    with pytest.raises(TypeError, match="No sites are known for a ResNet"):
        san.attach(timm.create_model("resnet10t"), "san")
