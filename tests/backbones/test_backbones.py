"""Weights: shipped, local, broken, absent. Sites."""

from pathlib import Path

import pytest
import timm
import torch
from conftest import composed, tiny_convnext, tiny_dino, tiny_eva, tiny_swin, tiny_vit
from safetensors.torch import save_file
from timm.layers import DropPath
from torch import nn

import san
from san import backbones
from san.backbones import Backbone, weights
from san.errors import (
    InvalidValueError,
    UnknownNameError,
    UnsupportedModelError,
    WeightsError,
)
from san.experiment import from_config
from san.layers.scaled import fold_into_last_stage

NAME = "vit_tiny_patch16_224"
SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


def small_vit(weights: str | Path, sha256: str | None = None) -> Backbone:
    return Backbone("small", NAME, SMALL, str(weights), sha256, "imagenet")


def configured(*overrides: str) -> Backbone:
    return Backbone.from_config(composed(*overrides)["backbone"])


def saved(path: Path, **changes: int) -> nn.Module:
    model = timm.create_model(NAME, num_classes=7, **SMALL | changes)
    save_file(model.state_dict(), path)
    return model


def test_the_shipped_weights_are_the_ones_the_configuration_names() -> None:
    backbone = configured()
    path = weights.find_weights(backbone.weights)
    assert backbones.file_sha256(path) == backbone.sha256
    assert path.stat().st_size < 4 * 2**20
    assert path.with_suffix(".md").is_file()
    model = backbone.build(10).model
    parameters = sum(p.numel() for p in model.parameters())
    assert 0.5e6 < parameters < 1.5e6
    assert backbones.input_size(model) == backbone.image_size == 32


def drop_rates(model: nn.Module) -> list[float]:
    """The rates of stochastic depth on the branches, from the stem to the head."""
    return [round(m.drop_prob, 4) for m in model.modules() if isinstance(m, DropPath)]


def test_stochastic_depth_is_built_as_told_and_off_in_evaluation() -> None:
    shipped = configured()
    assert shipped.with_drop_path(None) is shipped
    assert drop_rates(shipped.build(3).model) == []
    torch.manual_seed(0)
    stock = shipped.build(3).model
    torch.manual_seed(0)
    model = shipped.with_drop_path(0.5).build(3).model
    wanted = [round(0.5 * block / 5, 4) for block in range(1, 6) for _ in range(2)]
    assert drop_rates(model) == wanted
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), stock.eval()(images))
        once = model.train()(images)
        assert not torch.allclose(once, model(images))


def test_swin_has_timms_rate_unless_told() -> None:
    words = ["backbone=swin_b_in22k", "backbone.weights=random"]
    with torch.device("meta"):
        assert drop_rates(configured(*words).build(3).model) == []
        timms = configured(*words, "~backbone.kwargs.drop_path_rate")
        assert max(drop_rates(timms.with_drop_path(None).build(3).model)) == 0.1
        assert max(drop_rates(timms.with_drop_path(0.3).build(3).model)) == 0.3


def test_two_rates_of_stochastic_depth_are_refused() -> None:
    message = r"drop_path came as 0\.2, and backbone\.kwargs\.drop_path_rate as 0\.0; give one"
    words = ["backbone=swin_b_in22k", "drop_path=0.2", "device=cpu"]
    with pytest.raises(InvalidValueError, match=message):
        from_config(composed(*words))


def test_local_weights_fill_all_but_the_head(tmp_path: Path) -> None:
    source = saved(tmp_path / "w.safetensors")
    model = small_vit(tmp_path / "w.safetensors").build(3).model
    assert model.head.out_features == 3
    assert torch.equal(model.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight)
    assert backbones.weights_hash(model) == backbones.weights_hash(source)


def test_a_vit_b16_loads_from_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model("vit_base_patch16_224.augreg_in21k", pretrained=False)
    save_file(source.state_dict(), tmp_path / "b16.safetensors")
    backbone = configured(
        "backbone=vit_b16_augreg_in21k", f"backbone.weights={tmp_path / 'b16.safetensors'}"
    )
    model = backbone.build(100).model
    assert model.head.out_features == 100
    assert torch.equal(model.blocks[11].mlp.fc2.weight, source.blocks[11].mlp.fc2.weight)


def test_random_weights_have_to_be_asked_for() -> None:
    backbone = small_vit("random")
    assert backbone.weights_key == f"random:{NAME}"
    first, second = (backbones.weights_hash(backbone.build(3).model) for _ in range(2))
    assert first != second
    with pytest.raises(WeightsError, match="No weights at"):
        small_vit("vit_nano_that_is_not_there.safetensors").build(3)


def broken(kind: str, path: Path) -> str:
    saved(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    if kind == "garbage":
        path.write_bytes(b"not a model" * 100)
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "another model":
        saved(path, embed_dim=64)
    if kind == "too deep":
        saved(path, depth=2)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", r"w\.safetensors cannot be read, or is corrupt or truncated"),
        ("garbage", r"w\.safetensors cannot be read, or is corrupt or truncated"),
        ("empty", r"w\.safetensors cannot be read, or is corrupt or truncated"),
        ("another model", r"w\.safetensors holds another model: size mismatch for cls_token"),
        ("too deep", r"w\.safetensors holds another model: it has 2 blocks, this one 1"),
    ],
)
def test_broken_weights_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        small_vit(broken(kind, tmp_path / "w.safetensors")).build(3)


def test_wrong_hash_missing_file_and_pickles_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "w.safetensors")
    wrong = small_vit(tmp_path / "w.safetensors", "00")
    with pytest.raises(
        WeightsError,
        match="has the sha256 .*; expected 00. Fetch it again, or give backbone.sha256=null",
    ):
        wrong.build(3)
    with pytest.raises(WeightsError, match="No weights at .* takes 'timm', 'random' or the path"):
        small_vit("nowhere.safetensors").build(3)
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="other formats are not read, because they can run code"):
        small_vit(tmp_path / "w.pth").build(3)
    (tmp_path / "w.npz").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"w\.npz cannot be read as weights of"):
        backbones.build_backbone(
            "vit_tiny_patch16_224.augreg_in21k", 3, str(tmp_path / "w.npz"), None, {}
        )


def test_without_network_or_cache_the_error_says_how_to_fetch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class NoNetwork:
        def head(self, *_: object, **__: object) -> None:
            raise ConnectionError("no route")

    monkeypatch.setattr(weights.huggingface_hub, "get_session", NoNetwork)
    monkeypatch.setattr(weights.huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(WeightsError) as error:
        backbones.build_backbone("vit_base_patch16_224.augreg_in21k", 3, "timm")
    for part in (
        "model.safetensors of timm/vit_base_patch16_224.augreg_in21k",
        "are not in the cache",
        "pretrained=True",
        "backbone.weights=FILE",
    ):
        assert part in str(error.value)
    with pytest.raises(WeightsError, match=r"weights called .* Did you mean vit_base_patch16_224"):
        backbones.build_backbone("vit_base_patch16_224.no_such_tag", 3, "timm")


def test_a_backbone_is_made_of_a_checked_configuration() -> None:
    config = composed()["backbone"]
    assert Backbone.from_config(config).name == "vit_nano"
    with pytest.raises(UnknownNameError, match="key of backbone 'weight'. Did you mean weights"):
        Backbone.from_config(config | {"weight": "random"})
    with pytest.raises(InvalidValueError, match="backbone: kwargs came as 3"):
        Backbone.from_config(config | {"kwargs": 3})
    with pytest.raises(InvalidValueError, match="backbone has no `weights`"):
        Backbone.from_config({key: config[key] for key in config if key != "weights"})


def test_facts_of_a_backbone_are_known_before_it_is_built() -> None:
    swin = configured("backbone=swin_b_in22k")
    assert swin.family == "Swin"
    assert swin.image_size == 224
    assert swin.weights_key == f"timm:{swin.timm_name}"
    assert swin.normalization == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Backbone("a", NAME, {"img_size": (48, 48)}, "random", None, "timm").image_size == 48


def test_what_timm_does_not_know_or_take_is_refused() -> None:
    unknown = Backbone("a", "vit_base_patch16_224.augreg_in22k", {}, "random", None, "timm")
    with pytest.raises(UnknownNameError, match="Did you mean vit_base_patch16_224.augreg_in21k"):
        _ = unknown.normalization
    with pytest.raises(UnknownNameError, match="timm has no pre-trained weights called"):
        _ = unknown.image_size
    nothing = Backbone("a", NAME, {"init_values": None}, "random", None, "timm")
    with pytest.raises(InvalidValueError, match=r"kwargs\.init_values came as null.*leave it out"):
        nothing.check_kwargs()
    with pytest.raises(InvalidValueError, match=r"timm cannot build .*'size': 16.*backbone.kwargs"):
        backbones.build_backbone(NAME, 3, "random", None, {"size": 16})


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (tiny_vit, 1 + 2 * 6 + 1),
        (tiny_dino, 1 + 2 * 8 + 1),
        (tiny_eva, 1 + 2 * 6 + 1),
        (tiny_swin, 2 + 4 * 6 + 2 + 1),
        (tiny_convnext, 2 + 6 * 4 + 3 * 2 + 1),
    ],
)
def test_sites_follow_the_computation(make, count: int) -> None:
    """Hooks see the sites run in the order of the list, and each has the sizes that it says."""
    model = make().eval()
    found = backbones.sites(model)
    assert len(found) == count
    seen = []
    for site in found:

        def note(module, inputs, output, site=site) -> None:
            seen.append(site.name)
            # The norms of q and k work by heads.
            if not site.name.endswith(("q_norm", "k_norm")):
                assert output.shape[site.axis] == site.channels

        model.get_submodule(site.name).register_forward_hook(note)
    size = 32 if make in (tiny_swin, tiny_convnext) else 16
    model(torch.randn(1, 3, size, size))
    assert seen == [site.name for site in found]


@pytest.mark.parametrize("make", [tiny_vit, tiny_dino, tiny_eva, tiny_swin, tiny_convnext])
def test_anteriors_fit(make) -> None:
    found = {site.name: site for site in backbones.sites(make())}
    order = list(found)
    first, *others = found.values()
    assert first.anterior is None
    assert len(others) > 10
    for site in others:
        anterior = found[site.anterior]
        start, stop = site.reads
        assert order.index(anterior.name) < order.index(site.name)
        assert 0 <= start < stop <= anterior.channels
        # The norms of q and k work by heads.
        if not site.name.endswith(("q_norm", "k_norm")):
            assert site.inputs % (stop - start) == 0
        if site.stage_input is not None:
            assert found[site.stage_input].channels == site.inputs


def test_what_reads_what() -> None:
    models = [tiny_vit(), tiny_dino(), tiny_swin(), tiny_convnext()]
    listed = [{site.name: site for site in backbones.sites(model)} for model in models]
    vit, dino, swin, convnext = listed
    assert vit["blocks.1.attn.qkv"].anterior == "blocks.0.mlp.fc2"
    assert vit["blocks.1.attn.qkv"].stage_input == "patch_embed.proj"
    assert vit["blocks.1.mlp.fc1"].anterior == "blocks.1.attn.proj"
    assert vit["blocks.1.attn.proj"].reads == (64, 96)  # the values
    assert vit["norm"].anterior == "blocks.1.mlp.fc2"
    assert dino["blocks.0.mlp.fc2"].reads == (32, 64)  # what the gate does not hold
    reduction = swin["layers.1.downsample.reduction"]
    assert reduction.anterior == "layers.0.blocks.1.mlp.fc2"
    assert reduction.reads == (0, 16)
    assert reduction.inputs == 64
    assert swin["layers.1.blocks.1.attn.qkv"].stage_input == "layers.1.downsample.reduction"
    assert convnext["stages.0.blocks.0.conv_dw"].anterior == "stem.0"
    assert convnext["stages.3.blocks.1.conv_dw"].anterior == "stages.3.blocks.0.mlp.fc2"
    assert convnext["stages.3.blocks.1.conv_dw"].stage_input == "stages.3.downsample.1"
    assert convnext["stages.2.blocks.0.mlp.fc1"].anterior == "stages.2.blocks.0.conv_dw"
    assert convnext["stages.2.downsample.1"].anterior == "stages.1.blocks.0.mlp.fc2"
    assert convnext["norm_pre"].kind == "stream"


NAMES = {
    "vit_small_patch14_dinov2": {"img_size": 56},
    "vit_small_patch14_reg4_dinov2": {"img_size": 56},
    "vit_base_patch32_clip_224": {},
    "deit3_small_patch16_224": {},
    "vit_small_patch16_dinov3": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {},
    "convnext_atto": {},  # its MLPs are convolutions
    "convnextv2_atto": {},  # its MLPs have a response norm
    "convnext_tiny": {},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["san", "ssf", "adapter"])
def test_any_by_name(name: str, method: str) -> None:
    model = timm.create_model(name, num_classes=5, **NAMES[name]).eval()
    stock = [type(module) for module in model.modules()]
    size = backbones.input_size(model)
    images = torch.randn(1, 3, size, size)
    before = model(images)
    adapter = san.attach(model, method, **({} if method == "san" else {"init_std": 0.0}))
    assert torch.allclose(model(images), before, atol=1e-5)
    if method != "adapter":
        assert [type(module) for module in adapter.merge().modules()] == stock


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_base_patch16_rpn_224", "No sites are known for a ResPostBlock"),
        ("vit_base_mci_224", "its patch_embed.proj is a Identity without weight"),
        ("eva02_tiny_patch14_224", "No sites are known for a EvaBlock with this EvaAttention"),
        ("beit_base_patch16_224", "No sites are known for a Beit"),
        ("swinv2_tiny_window8_256", "No sites are known for a SwinTransformerV2"),
        ("vit_small_patch16_18x2_224", "No sites are known for a ParallelThingsBlock"),
        (
            "deit_tiny_distilled_patch16_224",
            "classifier of this VisionTransformerDistilled is a tuple",
        ),
    ],
)
def test_models_of_another_build_are_refused(name: str, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        san.attach(timm.create_model(name, num_classes=5), "san")


def test_families_are_known_by_name_before_anything_is_built() -> None:
    named = {
        "ViT": (
            "vit_tiny_r_s16_p8_224.augreg_in21k",
            "vit_base_patch16_224.augreg_in21k",
            "vit_small_patch14_dinov2.lvd142m",
            "deit_tiny_patch16_224",
        ),
        "Swin": ("swin_base_patch4_window7_224.ms_in22k",),
        "ConvNeXt": ("convnext_base.fb_in22k", "convnextv2_atto"),
    }
    for family, names in named.items():
        assert {backbones.family_of_name(name) for name in names} == {family}
    known = r"No sites are known for a resnet50 \(timm.models.resnet\); allowed: timm's Vis"
    with pytest.raises(UnsupportedModelError, match=known):
        backbones.family_of_name("resnet50.a1_in1k")
    with pytest.raises(UnknownNameError, match=r"called 'convnext_bse'. Did you mean convnext_bas"):
        backbones.family_of_name("convnext_bse.fb_in22k")


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"conv_mlp": True}, {"use_grn": True}])
def test_scaling_the_stream_of_a_convnext(options: dict[str, bool]) -> None:
    model = tiny_convnext(**options).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = model.forward_features(images)
    scale = torch.rand(24, dtype=torch.float64) - 0.5
    shift = torch.randn(24, dtype=torch.float64)
    fold_into_last_stage(model, scale, shift)
    expected = before * scale[:, None, None] + shift[:, None, None]
    assert torch.allclose(model.forward_features(images), expected, atol=1e-12)
