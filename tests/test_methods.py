"""What is each method's own: options, wiring, refusals. The contract of all is in test_contract.py."""

import pytest
import timm
import torch
from conftest import tiny_convnext, tiny_dino, tiny_swin, tiny_vit
from torch import nn

import san
from san import methods
from san.backbones import sites


def test_lora_targets() -> None:
    fused, whole = tiny_vit(), tiny_vit()
    assert san.attach(fused, "lora", targets=["qkv"], rank=2).counts.method == 2 * 2 * (32 + 96)
    assert san.attach(whole, "lora", targets=["k", "proj", "fc1", "fc2"], rank=2).counts.method == 2 * 2 * (
        64 + 64 + 160 + 160
    )
    assert whole.blocks[0].attn.qkv.starts == (32,)
    with pytest.raises(ValueError, match="qkv or slices of it, not both"):
        san.attach(tiny_vit(), "lora", targets=["q", "qkv"])
    with pytest.raises(LookupError, match="Unknown target 'fc3'"):
        san.attach(tiny_vit(), "lora", targets=["fc3"])


def test_ranges_of_the_others() -> None:
    assert san.attach(tiny_vit(), "vpt_shallow", length=3).counts.method == 3 * 32
    with pytest.raises(ValueError, match="vpt.length came as 0"):
        san.attach(tiny_vit(), "vpt_deep", length=0)
    with pytest.raises(ValueError, match="partial.blocks came as 3; allowed: 1 to 2"):
        san.attach(tiny_vit(), "partial", blocks=3)
    with pytest.raises(ValueError, match="width came as 0"):
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
