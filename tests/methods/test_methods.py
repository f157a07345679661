"""Each method's own: options, wiring, refusals. The contract of all is in test_contract.py."""

import copy
import logging
from typing import Any

import pytest
import timm
import torch
from conftest import tiny_convnext, tiny_swin, tiny_vit
from torch import nn

import san
from san import methods, renamed_keys
from san.backbones import branches
from san.errors import InvalidValueError, UnknownNameError, UnsupportedModelError
from san.layers.prompted_windows import PromptedWindowAttention
from san.layers.scaled import ScaledConv2d, ScaledLinear


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


@pytest.mark.parametrize(
    ("make", "targets", "message"),
    [
        (tiny_vit, ["q", "qkv"], "not qkv with slices of it"),
        (tiny_vit, ["fc3"], r"Unknown target 'fc3'\. Did you mean fc\d"),
        (tiny_vit, [1], r"method\.targets came as \[1\]"),
        (tiny_vit, "q", r"method\.targets came as 'q'; allowed: `array`"),
        (
            tiny_convnext,
            ["q", "v"],
            "'lora' cannot be used on a ConvNeXt: it has no q, v; "
            r".*targets=\[fc1,fc2\] is allowed",
        ),
        (lambda: tiny_convnext(conv_mlp=True), ["fc1"], "targets that it has: none"),
    ],
)
def test_other_targets_are_refused(make, targets: Any, message: str) -> None:
    with pytest.raises((InvalidValueError, UnknownNameError), match=message):
        san.attach(make(), "lora", targets=targets)


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


@pytest.mark.parametrize(
    ("method", "option", "value", "allowed"),
    [
        ("vpt_deep", "num_prompts", 0, "`int` >= 1"),
        ("partial", "blocks", 0, "`int` >= 1"),
        ("partial", "blocks", 3, "1 to 2 on this backbone"),
        ("adaptformer", "bottleneck_dim", 0, "`int` >= 1"),
        ("adaptformer", "bottleneck_dim", 8.0, "`int`"),
        ("adapter", "dropout", 1.0, "`float` < 1"),
        ("adapter", "init_std", -1.0, "`float` >= 0"),
        ("adapter_plus", "drop_path", 1.0, "`float` < 1"),
        ("ssf", "init_std", -1.0, "`float` >= 0"),
        ("lora", "rank", 0, "`int` >= 1"),
        ("lora", "rank", True, "`int`"),
        ("lora", "dropout", -0.1, "`float` >= 0"),
        ("lora", "scale", float("nan"), "a finite number"),
        ("lora", "alpha", float("inf"), "a finite number"),
        ("san", "train_norms", 1, "`bool`"),
    ],
)
def test_values_out_of_range_are_refused(
    method: str, option: str, value: float, allowed: str
) -> None:
    model = tiny_vit()
    before = dict(model.named_parameters()).keys()
    with pytest.raises(InvalidValueError) as caught:
        san.attach(model, method, **{option: value})
    assert f"method.{option} came as {value}; allowed: {allowed}" in str(caught.value)
    assert before == dict(model.named_parameters()).keys()  # nothing is half attached


def test_values_are_converted_to_their_types() -> None:
    options = methods.check_options("lora", {"scale": 3, "alpha": 16, "targets": ["fc1"]})
    assert type(options["scale"]) is type(options["alpha"]) is float
    assert options["targets"] == ("fc1",)
    assert methods.check_options("lora", {"alpha": None})["alpha"] is None


@pytest.mark.parametrize(
    ("method", "old", "current"),
    [
        ("adapter", {"width": 4, "std": 0.0}, {"bottleneck_dim": 4, "init_std": 0.0}),
        ("adapter_plus", {"width": 4, "std": 0.0}, {"bottleneck_dim": 4, "init_std": 0.0}),
        ("adaptformer", {"width": 4}, {"bottleneck_dim": 4}),
        ("ssf", {"std": 0.1}, {"init_std": 0.1}),
        ("vpt_deep", {"length": 3, "place": "end"}, {"num_prompts": 3, "position": "append"}),
        ("vpt_shallow", {"place": "front"}, {"position": "prepend"}),
        (
            "san",
            {"norms": False, "neurons": False},
            {"train_norms": False, "train_output_scale": False},
        ),
        ("san_lora", {"norms": True}, {"train_norms": True}),
    ],
)
def test_old_names_of_options_still_work(
    method: str,
    old: dict[str, Any],
    current: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renamed_keys, "_warned", set())
    expected = methods.check_options(method, current)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert methods.check_options(method, old, warn=False) == expected
        assert not caplog.records
        assert methods.check_options(method, old) == expected
    said = " ".join(caplog.messages)
    assert all(f"method.{name}" in said for name in (old.keys() | current.keys()))
    with pytest.raises(InvalidValueError, match="came by its old name, too; give one of them"):
        methods.check_options(method, old | current)


def test_partial_crosses_stages() -> None:
    trainable = san.attach(tiny_swin(), "partial", blocks=3).trainable
    assert "layers.0.blocks.1.norm1.weight" in trainable
    assert "layers.1.downsample.reduction.weight" in trainable
    assert "layers.0.blocks.0.norm1.weight" not in trainable


def test_houlsby_places_two_adapters_a_block() -> None:
    both = san.attach(tiny_vit(), "adapter", placement="houlsby")
    after_mlp = san.attach(tiny_vit(), "adapter", placement="mlp")
    assert both.counts.method == 2 * after_mlp.counts.method > 0


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


def test_san_arms() -> None:
    tied = tiny_vit()
    san.attach(tied, "san")
    assert tied.blocks[1].attn.qkv.pre.scale is tied.patch_embed.proj.scale
    assert tied.blocks[1].attn.proj.pre is None
    assert tied.blocks[1].mlp.fc1.pre.scale is tied.blocks[1].attn.proj.scale
    assert tied.blocks[1].mlp.fc2.pre.scale is tied.blocks[1].mlp.fc1.scale
    preceding = tiny_vit()
    san.attach(preceding, "san", qkv_anterior="preceding")
    assert preceding.blocks[0].attn.qkv.pre.scale is preceding.patch_embed.proj.scale
    assert preceding.blocks[1].attn.qkv.pre.scale is preceding.blocks[0].mlp.fc2.scale
    neurons = tiny_vit()
    adapter = san.attach(neurons, "san_neurons", train_norms=False)
    scaled = [m for m in neurons.modules() if isinstance(m, ScaledLinear | ScaledConv2d)]
    assert len(scaled) == 1 + 2 * 4
    assert all(layer.pre is None for layer in scaled)
    assert adapter.counts.norm == 0
    values = tiny_vit()
    san.attach(values, "san", proj_anterior="v")
    randomise(values, {"scale"})
    attention = values.blocks[0].attn
    assert torch.equal(attention.proj.pre(), attention.qkv.scale[64:])
    shifted = san.attach(tiny_vit(), "san", shift=True)
    assert shifted.counts.method == 2 * san.attach(tiny_vit(), "san").counts.method


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


@pytest.mark.parametrize("deep", [False, True])
def test_prompts_of_a_swin_stay_with_their_image(deep: bool) -> None:
    model = tiny_swin().double().eval()
    san.attach(model, "vpt_deep", deep=deep)
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    alone = torch.cat([model(image.unsqueeze(0)) for image in images])
    assert torch.allclose(model(images), alone, atol=1e-12)
    assert not torch.allclose(model(images), tiny_swin().double().eval()(images), atol=1e-3)


def test_shallow_prompts_of_a_swin_refuse_gradient_checkpointing() -> None:
    model = san.attach(tiny_swin(), "vpt_shallow").model
    model.set_grad_checkpointing(True)
    logits = model(torch.randn(2, 3, 32, 32))
    with pytest.raises(InvalidValueError, match="Shallow prompts cannot be recomputed in a Swin"):
        logits.sum().backward()


@pytest.mark.parametrize(("make", "side"), [(tiny_vit, 16), (tiny_swin, 32)])
@pytest.mark.parametrize("method", ["adaptformer", "adapter_plus", "vpt_deep", "san", "dora"])
def test_checkpointing_gives_the_same_gradients(method: str, make, side: int) -> None:
    drop = {"adaptformer": {"dropout": 0.0}, "adapter_plus": {"drop_path": 0.0}}.get(method, {})
    model = san.attach(make(), method, **drop).model.train()
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
@pytest.mark.parametrize("method", ["adaptformer", "vpt_deep", "vpt_shallow"])
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


def test_attention_of_windows_without_prompts_is_the_stock_one() -> None:
    windows = torch.randn(8, 16, 16, dtype=torch.float64)
    no_prompts = torch.empty(2, 0, 16, dtype=torch.float64)
    blocks = tiny_swin().double().eval().layers[0].blocks
    assert [block.attn_mask is not None for block in blocks] == [False, True]
    for block in blocks:
        ours = PromptedWindowAttention(block.attn, keep=True).eval()
        mask = block.attn_mask if block.attn_mask is None else block.attn_mask.double()
        ours.normed.put(no_prompts)
        assert torch.allclose(ours(windows, mask), block.attn(windows, mask), atol=1e-12)


def test_each_image_drops_its_own_prompts() -> None:
    prompts = san.attach(tiny_vit(), "vpt_shallow", dropout=0.5).model.blocks[0].prompts.train()
    torch.manual_seed(0)
    one, two = prompts(2)
    assert not torch.equal(one, two)
    assert torch.equal(prompts.eval()(2)[1], prompts.tokens[0])


def test_prompts_are_appended_where_asked() -> None:
    x = torch.randn(1, 5, 32)
    placed = []
    for position in ("prepend", "append"):
        model = san.attach(tiny_vit().eval(), "vpt_shallow", position=position).model
        placed += model.blocks[0].prompts.pre_block(model.blocks[0], (x,))
    prepended, appended = placed
    assert torch.equal(prepended[:, :1], x[:, :1])
    assert torch.equal(prepended[:, 6:], x[:, 1:])
    assert torch.equal(appended[:, :5], x)
    assert prepended.shape == appended.shape == (1, 10, 32)


def test_prompts_need_attention() -> None:
    for method in ("vpt_shallow", "vpt_deep"):
        with pytest.raises(
            InvalidValueError, match=f"'{method}' cannot be used on a ConvNeXt: it has no attention"
        ):
            san.attach(tiny_convnext(), method)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("sann", {}, r"Unknown method 'sann'\. Did you mean san"),
        (None, {}, "Unknown method 'None'"),
        (
            "san",
            {"propagaton": "off"},
            r"Unknown option of san 'propagaton'\. Did you mean propagation",
        ),
        ("full", {"model": 1}, "Unknown option of full 'model'.* Allowed: none"),
        (
            "san",
            {"qkv_anterior": "next"},
            "Unknown method.qkv_anterior 'next'. Allowed: patch, preceding",
        ),
    ],
)
def test_unknown_names_say_what_is_near(method: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        san.attach(tiny_vit(), method, **options)


def test_impossible_calls_say_what_to_do() -> None:
    with pytest.raises(InvalidValueError, match="train_output_scale=false trains the propagated"):
        san.attach(tiny_vit(), "san", train_output_scale=False, propagation="off")
    model = tiny_vit()
    san.attach(model, "ssf")
    with pytest.raises(
        InvalidValueError, match="has 'ssf' attached already; build a fresh one for 'san'"
    ):
        san.attach(model, "san")
    with pytest.raises(UnsupportedModelError, match="No sites are known for a ResNet"):
        san.attach(timm.create_model("resnet10t"), "san")
