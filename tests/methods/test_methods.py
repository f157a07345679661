"""Each method's own: options and wiring. The contract of all is in test_contract.py."""

import copy
from collections.abc import Callable

import pytest
import torch
from conftest import tiny_convnext, tiny_swin, tiny_vit
from torch import nn

import san
from san import methods
from san.backbones import branches
from san.errors import InvalidValueError
from san.layers.scaled import ScaledConv2d, ScaledLinear
from san.methods.adapter import BranchAdapter


def randomise(model: nn.Module, names: set[str]) -> None:
    """Give the parameters called so random values around one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.rpartition(".")[-1] in names:
                p.copy_(0.5 + torch.rand_like(p))


def test_lora_targets() -> None:
    fused = san.attach(tiny_vit(), "lora", targets=["qkv"], rank=2)
    assert fused.counts.method == 2 * 2 * (32 + 96)
    several = san.attach(tiny_vit(), "lora", targets=["k", "proj", "fc1", "fc2"], rank=2)
    assert several.counts.method == 2 * 2 * (64 + 64 + 160 + 160)
    assert several.model.blocks[0].attn.qkv.starts == (32,)


def test_the_scale_of_lora_is_plain_or_by_alpha() -> None:
    assert san.attach(tiny_vit(), "lora", scale=3).model.blocks[0].attn.qkv.scaling == 3
    assert san.attach(tiny_vit(), "lora", alpha=16).model.blocks[0].attn.qkv.scaling == 2
    with pytest.raises(InvalidValueError, match=r"scale came as 2.0 and alpha as 16.0; give one"):
        san.attach(tiny_vit(), "lora", scale=2, alpha=16)
    with pytest.raises(
        InvalidValueError, match=r"method\.alpha came as '16'; allowed: `float \| null`"
    ):
        san.attach(tiny_vit(), "lora", alpha="16")


@pytest.mark.parametrize("place", ["between", "input"])
def test_dropout_of_lora(place: str) -> None:
    layer = san.attach(tiny_vit(), "lora", dropout=0.5, dropout_at=place).model.blocks[0].attn.qkv
    x = torch.ones(4096, 32)
    low = layer.train().down_project(x, None)
    zeros = (low == 0).float().mean()
    assert abs(zeros - (0.5 if place == "between" else 0.0)) < 0.02
    without_dropout = layer.eval().down_project(x, None)[0]
    assert torch.allclose(low.mean(0), without_dropout, atol=0.1)
    assert low.std(0).min() > 0


def test_partial_crosses_stages() -> None:
    trainable = san.attach(tiny_swin(), "partial", blocks=3).trainable
    assert "layers.0.blocks.1.norm1.weight" in trainable
    assert "layers.1.downsample.reduction.weight" in trainable
    assert "layers.0.blocks.0.norm1.weight" not in trainable


def test_partial_takes_downsampling_along_where_it_crosses_it() -> None:
    """As KMnP/vpt does in a Swin, and the same way in a ConvNeXt."""
    for make, stages in ((tiny_swin, "layers.1"), (tiny_convnext, "stages.3")):
        trains = {}
        for blocks in (1, 2, 3):
            names = san.attach(make(), "partial", blocks=blocks).trainable
            trains[blocks] = {name.partition(".weight")[0] for name in names}
        downsampling = {name for name in trains[3] if name.startswith(f"{stages}.downsample")}
        assert downsampling
        assert not downsampling & trains[2]
        firsts = {name.split(".")[3] for name in trains[1] if name.startswith(f"{stages}.blocks")}
        assert firsts == {"1"}


def test_houlsby_places_two_adapters_a_block() -> None:
    both = san.attach(tiny_vit(), "adapter", placement="houlsby")
    after_mlp = san.attach(tiny_vit(), "adapter", placement="mlp")
    assert both.counts.method == 2 * after_mlp.counts.method > 0


@pytest.mark.parametrize(("placement", "expected"), [("mlp", 2), ("houlsby", 4)])
def test_the_scale_of_adapter_is_a_factor_of_what_it_adds(placement: str, expected: int) -> None:
    """At 1 it is the plain sum, to the bit; at 0 the model is the pre-trained one."""
    plain = tiny_vit().eval()
    images = torch.randn(2, 3, 16, 16)
    pretrained = plain(images)
    outputs = []
    for scale in (0.0, 1.0, 10.0):
        options = {"placement": placement, "scale": scale, "init_std": 0.5}
        torch.manual_seed(0)
        model = san.attach(copy.deepcopy(plain), "adapter", **options).model
        outputs.append(model(images))
        adapters = [m for m in model.modules() if isinstance(m, BranchAdapter)]
        assert len(adapters) == expected
        for adapter in adapters:
            y = torch.randn(5, 32)
            (added,) = adapter.before_exit(nn.Identity(), (y,))
            assert torch.allclose(added, y + scale * adapter(y), atol=1e-5)
            assert scale != 1.0 or torch.equal(added, y + adapter(y))
    assert torch.equal(outputs[0], pretrained)
    assert not torch.allclose(outputs[1], pretrained, atol=1e-3)
    assert not torch.allclose(outputs[1], outputs[2], atol=1e-3)


def test_adapter_plus_drops_whole_images_while_training() -> None:
    torch.manual_seed(0)
    adapter = san.attach(tiny_vit(), "adapter_plus", drop_path=0.5).model.blocks[0].adapter
    nn.init.ones_(adapter.up.bias)
    x = torch.zeros(1000, 3, 32)
    added = adapter.train().after_block(nn.Identity(), (x,), x)
    kept = (added != 0).flatten(1)
    assert torch.equal(kept.all(1), kept.any(1))
    assert abs(kept.all(1).float().mean() - 0.5) < 0.1
    without_drop_path = adapter.eval().after_block(nn.Identity(), (x,), x)
    assert torch.allclose(added[kept.all(1)], 2 * without_drop_path[:1])


def test_san_ties_an_input_scale_to_the_anterior_site() -> None:
    model = san.attach(tiny_vit(), "san").model
    block = model.blocks[1]
    assert block.attn.qkv.pre.scale is model.patch_embed.proj.scale
    assert block.attn.proj.pre is None
    assert block.mlp.fc1.pre.scale is block.attn.proj.scale
    assert block.mlp.fc2.pre.scale is block.mlp.fc1.scale


def test_san_reads_the_preceding_site_where_asked() -> None:
    model = san.attach(tiny_vit(), "san", qkv_anterior="preceding").model
    first, second = model.blocks
    assert first.attn.qkv.pre.scale is model.patch_embed.proj.scale
    assert second.attn.qkv.pre.scale is first.mlp.fc2.scale


def test_san_neurons_has_no_input_scale() -> None:
    adapter = san.attach(tiny_vit(), "san_neurons", train_norms=False)
    scaled = [m for m in adapter.model.modules() if isinstance(m, ScaledLinear | ScaledConv2d)]
    assert len(scaled) == 1 + 2 * 4
    assert all(layer.pre is None for layer in scaled)
    assert adapter.counts.norm == 0


def test_san_feeds_proj_from_its_own_channels_of_qkv_where_asked() -> None:
    model = san.attach(tiny_vit(), "san", proj_anterior="v").model
    randomise(model, {"scale"})
    attention = model.blocks[0].attn
    assert torch.equal(attention.proj.pre(), attention.qkv.scale[64:])


def test_san_shifts_every_output_where_asked() -> None:
    plain = san.attach(tiny_vit(), "san").counts
    assert san.attach(tiny_vit(), "san", shift=True).counts.method == 2 * plain.method


def scaled_by_hand(
    model: nn.Module, sources: dict[str, str | None], values: dict[str, torch.Tensor]
) -> nn.Module:
    """A stock model whose weights are scaled by hand.

    sources: the anterior site by the name of each; values: the scales by name of the site.
    """
    with torch.no_grad():
        for name, anterior in sources.items():
            layer = model.get_submodule(name)
            s = values[name]
            p = torch.ones(1) if anterior is None else values[anterior]
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(s[:, None] * p.repeat(layer.in_features // len(p)))
            elif layer.groups > 1:
                layer.weight.mul_((s * p)[:, None, None, None])
            else:
                layer.weight.mul_(s[:, None, None, None] * p[:, None, None])
            if layer.bias is not None:
                layer.bias.mul_(s)
    return model


def swin_wiring(preceding: bool) -> dict[str, str | None]:
    wiring: dict[str, str | None] = {"patch_embed.proj": None}
    stream = opening = "patch_embed.proj"
    for stage in (0, 1):
        if stage == 1:
            wiring["layers.1.downsample.reduction"] = "layers.0.blocks.1.mlp.fc2"
            stream = opening = "layers.1.downsample.reduction"
        for block in (0, 1):
            here = f"layers.{stage}.blocks.{block}"
            wiring[f"{here}.attn.qkv"] = stream if preceding else opening
            wiring[f"{here}.attn.proj"] = None
            wiring[f"{here}.mlp.fc1"] = f"{here}.attn.proj"
            wiring[f"{here}.mlp.fc2"] = f"{here}.mlp.fc1"
            stream = f"{here}.mlp.fc2"
    return wiring


def convnext_wiring(preceding: bool) -> dict[str, str | None]:
    wiring: dict[str, str | None] = {"stem.0": None}
    stream = opening = "stem.0"
    for stage, depth in enumerate((1, 1, 2, 2)):
        if stage:
            opening = f"stages.{stage}.downsample.1"
            wiring[opening] = stream
            stream = opening
        for block in range(depth):
            here = f"stages.{stage}.blocks.{block}"
            wiring[f"{here}.conv_dw"] = stream if preceding else opening
            wiring[f"{here}.mlp.fc1"] = f"{here}.conv_dw"
            wiring[f"{here}.mlp.fc2"] = f"{here}.mlp.fc1"
            stream = f"{here}.mlp.fc2"
    return wiring


@pytest.mark.parametrize("preceding", [False, True])
@pytest.mark.parametrize(
    ("make", "wiring"), [(tiny_swin, swin_wiring), (tiny_convnext, convnext_wiring)]
)
def test_san_beyond_vit_follows_its_table(make, wiring, preceding: bool) -> None:
    """The forward pass equals that of a stock model whose weights were scaled by hand."""
    model = make().double().eval()
    san.attach(model, "san", qkv_anterior="preceding" if preceding else "patch")
    randomise(model, {"scale"})
    sources = wiring(preceding)
    values = {name: model.get_submodule(name).scale.detach() for name in sources}
    assert sum(v.numel() for v in values.values()) == san.attach(make(), "san").counts.method
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = scaled_by_hand(make().double().eval(), sources, values)(images)
    assert torch.allclose(model(images), expected, atol=1e-12)
    assert not torch.allclose(model(images), make().double().eval()(images), atol=1e-2)


@pytest.mark.parametrize("method", ["san_lora", "san_dora"])
def test_san_on_low_rank_updates_is_its_formula(method: str) -> None:
    layer = san.attach(tiny_vit().double(), method, targets=["fc2"]).model.blocks[0].mlp.fc2
    torch.manual_seed(0)
    with torch.no_grad():
        for p in (layer.scale, layer.pre.scale, layer.lora_b):
            p.copy_(torch.rand_like(p) + 0.5)
    x = torch.randn(5, 128, dtype=torch.float64)
    updated = layer.weight + layer.lora_b[0] @ layer.lora_a[0]
    if method == "san_dora":
        updated = updated * (layer.weight.norm(dim=1) / updated.norm(dim=1))[:, None]
    expected = layer.scale * ((layer.pre.scale * x) @ updated.T + layer.bias)
    assert torch.allclose(layer(x), expected, atol=1e-12)


@pytest.mark.parametrize(("make", "side"), [(tiny_vit, 16), (tiny_swin, 32)])
@pytest.mark.parametrize(
    "method",
    ["adaptformer", "adapter_plus", "convpass", "repadapter", "vpt_deep", "san", "dora"],
)
def test_checkpointing_gives_the_same_gradients(method: str, make, side: int) -> None:
    random = {"dropout", "drop_path"} & methods.default_options(method).keys()
    model = san.attach(make(), method, **dict.fromkeys(random, 0.0)).model.train()
    images = torch.randn(2, 3, side, side)
    gradients = []
    for checkpoint in (False, True):
        model.set_grad_checkpointing(checkpoint)
        model.zero_grad()
        model(images).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(("make", "side"), [(tiny_vit, 16), (tiny_swin, 32)])
@pytest.mark.parametrize("method", ["adaptformer", "convpass", "vpt_deep", "vpt_shallow"])
def test_after_a_forward_pass_that_died(method: str, make, side: int) -> None:
    """The next one is as before, and so is that of a copy."""
    model = san.attach(make().eval(), method).model
    images = torch.randn(2, 3, side, side)
    before = model(images)
    block = model.get_submodule(branches(model)[1].block)
    hook = block.mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(images)
    hook.remove()
    assert torch.equal(copy.deepcopy(model)(images), before)
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("place", ["between", "input"])
@pytest.mark.parametrize("method", ["lora", "dora", "san_lora", "san_dora"])
def test_low_rank_updates_with_dropout_are_the_same_function(method: str, place: str) -> None:
    """With a dropout that drops nothing, training acts on activations, as it must on weights."""
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    results = []
    for dropout in (0.0, 1e-12):
        torch.manual_seed(0)
        model = san.attach(
            tiny_vit().double(),
            method,
            dropout=dropout,
            dropout_at=place,
            targets=["q", "v", "fc2"],
        ).model
        randomise(model, {"scale", "lora_a", "lora_b", "magnitude"})
        out = model.train()(images)
        out.square().sum().backward()
        results.append([out, *(p.grad for p in model.parameters() if p.requires_grad)])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("make", [tiny_vit, tiny_swin, tiny_convnext])
def test_bitfit_has_the_gradients_of_the_stock_model_and_computes_none_of_a_convolution(
    make: Callable[[], nn.Module],
) -> None:
    stock = make().double()
    model = copy.deepcopy(stock)
    adapter = san.attach(model, "bitfit")
    side = 16 if make is tiny_vit else 32
    images = torch.randn(3, 3, side, side).double()
    for each in (stock, model):
        each(images).square().sum().backward()
    theirs = dict(stock.named_parameters())
    for name, p in model.named_parameters():
        if name in adapter.trainable:
            torch.testing.assert_close(p.grad, theirs[name].grad, rtol=1e-9, atol=1e-12)
    # torch's own would compute the gradient of a weight that nobody asks for.
    with torch.profiler.profile() as profiler:
        model(images).sum().backward()
    assert "ConvolutionBackward0" not in {event.key for event in profiler.key_averages()}


def test_rlrr_can_start_pretrained_and_its_rows_and_columns_decay() -> None:
    model = tiny_vit().double().eval()
    images = torch.randn(2, 3, 16, 16).double()
    before = model(images)
    adapter = san.attach(model, "rlrr", zero_rows=True, init_std=0.0)
    assert torch.allclose(model(images), before, atol=1e-12)
    matrices = {name for name, p in adapter.named_parameters() if p.ndim > 1}
    assert {name.rpartition(".")[2] for name in matrices} == {"row", "column", "weight"}


def test_rlrr_drops_more_in_later_blocks() -> None:
    model = tiny_vit()
    san.attach(model, "rlrr", dropout=0.4)
    rates = [(b.attn.proj.dropout.p, b.mlp.fc2.dropout.p) for b in model.blocks]
    assert rates == [(0, 0), (0.4, 0.4)]
    assert {b.attn.qkv.dropout.p for b in model.blocks} == {0}
