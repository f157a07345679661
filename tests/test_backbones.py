"""Weights: shipped, local, broken, absent. Sites."""

from pathlib import Path

import pytest
import timm
import torch
from conftest import composed, tiny_vit
from safetensors.torch import save_file
from torch import nn

from san import backbones
from san.errors import WeightsError

NAME = "vit_tiny_patch16_224"
SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


def saved(path: Path, **changes: int) -> nn.Module:
    model = timm.create_model(NAME, num_classes=7, **SMALL | changes)
    save_file(model.state_dict(), path)
    return model


def test_the_shipped_weights_are_the_ones_the_configuration_names() -> None:
    b = composed()["backbone"]
    path = backbones.find(b["weights"])
    assert backbones.file_sha256(path) == b["sha256"]
    assert path.stat().st_size < 4 * 2**20
    assert path.with_suffix(".md").is_file()
    model = backbones.build(b["timm"], 10, b["weights"], b["sha256"], b["arguments"])
    parameters = sum(p.numel() for p in model.parameters())
    assert 0.5e6 < parameters < 1.5e6
    assert backbones.input_size(model) == 32


def test_local_weights_fill_all_but_the_head(tmp_path: Path) -> None:
    source = saved(tmp_path / "w.safetensors")
    model = backbones.build(NAME, 3, str(tmp_path / "w.safetensors"), None, SMALL)
    assert model.head.out_features == 3
    assert torch.equal(model.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight)
    assert backbones.weights_hash(model) == backbones.weights_hash(source)


def test_a_vit_b16_loads_from_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model("vit_base_patch16_224.augreg_in21k", pretrained=False)
    save_file(source.state_dict(), tmp_path / "b16.safetensors")
    b = composed("backbone=vit_b16_augreg_in21k")["backbone"]
    model = backbones.build(b["timm"], 100, str(tmp_path / "b16.safetensors"), None, b["arguments"])
    assert model.head.out_features == 100
    assert torch.equal(model.blocks[11].mlp.fc2.weight, source.blocks[11].mlp.fc2.weight)


def test_random_weights_have_to_be_asked_for() -> None:
    assert backbones.weights_key(NAME, "random") == f"random:{NAME}"
    first, second = (backbones.build(NAME, 3, "random", None, SMALL) for _ in range(2))
    assert backbones.weights_hash(first) != backbones.weights_hash(second)
    with pytest.raises(WeightsError):
        backbones.build(NAME, 3, "vit_nano_that_is_not_there.safetensors", None, SMALL)


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
        ("truncated", r"w\.safetensors is corrupt or truncated"),
        ("garbage", r"w\.safetensors is corrupt or truncated"),
        ("empty", r"w\.safetensors is corrupt or truncated"),
        ("another model", r"w\.safetensors holds another model: \d+ tensors differ, first "),
        ("too deep", r"w\.safetensors holds another model: 12 tensors differ"),
    ],
)
def test_broken_weights_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        backbones.build(NAME, 3, broken(kind, tmp_path / "w.safetensors"), None, SMALL)


def test_wrong_hash_missing_file_and_pickles_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="is corrupt: its sha256 is .*, expected 00. Fetch it again"):
        backbones.build(NAME, 3, str(tmp_path / "w.safetensors"), "00", SMALL)
    with pytest.raises(WeightsError, match="No weights at .* takes 'timm', 'random' or the path"):
        backbones.build(NAME, 3, "nowhere.safetensors", None, SMALL)
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="other formats can run code when read"):
        backbones.build(NAME, 3, str(tmp_path / "w.pth"), None, SMALL)
    (tmp_path / "w.npz").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"w\.npz cannot be read as weights of"):
        backbones.build("vit_tiny_patch16_224.augreg_in21k", 3, str(tmp_path / "w.npz"), None, {})


def test_without_network_or_cache_the_error_says_how_to_fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class NoNetwork:
        def head(self, *_: object, **__: object) -> None:
            raise ConnectionError("no route")

    monkeypatch.setattr(backbones.huggingface_hub, "get_session", NoNetwork)
    monkeypatch.setattr(backbones.huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(WeightsError) as error:
        backbones.build("vit_base_patch16_224.augreg_in21k", 3, "timm")
    for part in (
        "model.safetensors of timm/vit_base_patch16_224.augreg_in21k",
        "are not in the cache",
        "pretrained=True",
        "backbone.weights=FILE",
    ):
        assert part in str(error.value)
    with pytest.raises(WeightsError, match="timm has no pre-trained weights called"):
        backbones.build("vit_base_patch16_224.no_such_tag", 3, "timm")


def test_sites_of_a_vit_follow_the_computation() -> None:
    model = tiny_vit()
    found = backbones.sites(model)
    assert len(found) == 1 + 2 * 6 + 1
    names = [s.name for s in found]
    for site in found:
        module = model.get_submodule(site.name)
        assert len(module.weight) == site.channels
        assert site.anterior is None or names.index(site.anterior) < names.index(site.name)
    by_name = {s.name: s for s in found}
    assert by_name["blocks.1.attn.qkv"].anterior == "blocks.0.mlp.fc2"
    assert by_name["blocks.1.mlp.fc1"].anterior == "blocks.1.attn.proj"
    assert by_name["blocks.0.attn.qkv"].anterior == by_name["blocks.0.norm1"].anterior == "patch_embed.proj"
    assert by_name["norm"].anterior == "blocks.1.mlp.fc2"
