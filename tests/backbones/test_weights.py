"""Tags, files and originals give the same tensors; what no file fills is known and never frozen."""

from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from original_weights import as_npz
from safetensors.torch import save_file
from torch import Tensor, nn

import san
from san.backbones import Pretrained, build_backbone
from san.errors import WeightsError

VIT = "vit_tiny_patch16_224.augreg_in21k"
SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = "swin_tiny_patch4_window7_224.ms_in22k"
SMALL_SWIN = {"img_size": 56, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
CONVNEXT = "convnext_tiny.fb_in22k"
SMALL_CONVNEXT = {"depths": [1, 1, 2, 1], "dims": [8, 12, 16, 24]}


def stock(name: str, **kwargs: Any) -> nn.Module:
    """A model with the classes of its tag and with no constant in it."""
    torch.manual_seed(1)
    model = timm.create_model(name, pretrained=False, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return model


def by_tag(
    name: str, classes: int, path: Path, kwargs: dict[str, Any], patch: pytest.MonkeyPatch
) -> Pretrained:
    """Build with the tag's weights, for which the file stands in the hub's cache."""
    patch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(path))
    torch.manual_seed(0)
    return build_backbone(name, classes, "timm", None, kwargs)


def by_file(name: str, classes: int, path: Path, kwargs: dict[str, Any]) -> Pretrained:
    torch.manual_seed(0)
    return build_backbone(name, classes, str(path), None, kwargs)


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Swin's tensors as its authors saved them: with buffers, and merging after a stage."""
    old = {}
    for name, tensor in state.items():
        old_name = name.replace("layers.1.downsample", "layers.0.downsample")
        old[old_name.replace("head.fc.", "head.")] = tensor
    old["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    old["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    return old


CASES = {
    "as saved": (VIT, SMALL_VIT, SMALL_VIT),
    "other image size": (VIT, SMALL_VIT, SMALL_VIT | {"img_size": 48}),
    "other patch size": (VIT, SMALL_VIT, SMALL_VIT | {"patch_size": 16}),
    "swin": (SWIN, SMALL_SWIN, SMALL_SWIN),
    "swin, old names and buffers": (SWIN, SMALL_SWIN, SMALL_SWIN),
    "swin, other window": (SWIN, SMALL_SWIN, SMALL_SWIN | {"img_size": 64, "window_size": 4}),
    "convnext": (CONVNEXT, SMALL_CONVNEXT, SMALL_CONVNEXT),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("same_classes", [True, False])
# Of timm's resizing of windows.
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence", "ignore:torch.searchsorted")
def test_a_tag_and_a_file_give_the_same_model(
    case: str, same_classes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, saved, wanted = CASES[case]
    source = stock(name, **saved)
    state = source.state_dict()
    if "old names" in case:
        state = old_names(state)
    path = tmp_path / "w.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    classes = source.num_classes if same_classes else 3
    tag = by_tag(name, classes, path, wanted, monkeypatch)
    file = by_file(name, classes, path, wanted)
    assert tag.fresh == file.fresh == frozenset()
    there = tag.model.state_dict()
    here = file.model.state_dict()
    assert there.keys() == here.keys()
    assert all(torch.equal(there[key], here[key]) for key in here)
    # The head is fresh, by the seed, and the same whatever the file has.
    torch.manual_seed(0)
    random = timm.create_model(name, num_classes=classes, **wanted).state_dict()
    head = "head.fc.weight" if "head.fc.weight" in here else "head.weight"
    assert torch.equal(here[head], random[head])
    filled = [k for k in here if not k.startswith(head.removesuffix(".weight")) and here[k].ndim]
    assert all(not torch.equal(here[k], random[k]) for k in filled if here[k].is_floating_point())
    assert tag.model.pretrained_cfg["num_classes"] == source.pretrained_cfg["num_classes"]
    assert "state_dict" not in tag.model.pretrained_cfg


@pytest.mark.parametrize("name", [VIT, "vit_base_patch16_224.orig_in21k"])
@pytest.mark.parametrize("prefix", ["", "opt/target/"])
@pytest.mark.parametrize("classes", [3, 5])
def test_an_original_npz_loads_exactly(
    name: str, prefix: str, classes: int, tmp_path: Path
) -> None:
    source = stock(name, num_classes=5, **SMALL_VIT)
    as_npz(source, tmp_path / "w.npz", prefix, logits="orig" in name)
    loaded = by_file(name, classes, tmp_path / "w.npz", SMALL_VIT)
    assert loaded.fresh == frozenset()
    state = loaded.model.state_dict()
    for key, tensor in source.state_dict().items():
        if not key.startswith("head."):
            assert torch.equal(state[key], tensor), key
    torch.manual_seed(0)
    random = timm.create_model(name, num_classes=classes, **SMALL_VIT)
    assert torch.equal(state["head.weight"], random.head.weight)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"patch_size": 16}, r"its patches are \(8, 8\) pixels, those of the model \(16, 16\)"),
        ({"depth": 1}, "it has 2 blocks, the model 1"),
        ({"depth": 3}, "it has 2 blocks, the model 3"),
        ({"embed_dim": 64}, "size of tensor"),
        ({"num_heads": 4}, "its blocks have 2 heads, the model's 4"),
    ],
)
def test_an_npz_of_another_model_is_refused(
    kwargs: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    as_npz(stock(VIT, **SMALL_VIT), tmp_path / "w.npz")
    with pytest.raises(WeightsError, match=f"w.npz cannot be read as weights of this .*{reason}"):
        by_file(VIT, 3, tmp_path / "w.npz", SMALL_VIT | kwargs)


def test_a_patch_embedding_of_five_dimensions_is_refused(tmp_path: Path) -> None:
    tensors = dict(stock(VIT, **SMALL_VIT).state_dict())
    tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"][None].contiguous()
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="holds another model: Input tensor should be 4D"):
        by_file(VIT, 3, tmp_path / "w.safetensors", SMALL_VIT | {"patch_size": 16})


@pytest.mark.parametrize("change", ["one number", "extra", "no bias"])
def test_arrays_that_do_not_fit_are_refused(change: str, tmp_path: Path) -> None:
    as_npz(stock(VIT, **SMALL_VIT), tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as whole:
        arrays = dict(whole)
    kwargs = dict(SMALL_VIT)
    if change == "one number":
        arrays["Transformer/encoderblock_0/LayerNorm_0/scale"] = np.ones(1, np.float32)
    if change == "extra":
        arrays["Transformer/encoderblock_0/LayerScale/scale"] = np.ones(32, np.float32)
    if change == "no bias":
        kwargs["qkv_bias"] = False
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(WeightsError, match="cannot be read as weights of this model"):
        by_file(VIT, 3, tmp_path / "w.npz", kwargs)


def test_what_an_npz_does_not_fill_is_known(tmp_path: Path) -> None:
    as_npz(stock(VIT, **SMALL_VIT), tmp_path / "w.npz")
    loaded = by_file(VIT, 3, tmp_path / "w.npz", SMALL_VIT | {"qk_norm": True})
    assert len(loaded.fresh) == 2 * 2 * 2  # weight and bias of two norms in two blocks


def test_an_npz_with_a_pickle_in_it_is_not_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    class Pickled:
        def __reduce__(self) -> tuple[Any, ...]:
            return (mark.touch, ())

    np.savez(tmp_path / "w.npz", **{"embedding/kernel": np.array([Pickled()], dtype=object)})
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        by_file(VIT, 3, tmp_path / "w.npz", SMALL_VIT)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("kwargs", "fresh"),
    [
        ({"global_pool": "map"}, "attn_pool.latent"),
        ({"qk_norm": True}, "blocks.0.attn.k_norm.bias"),
        ({"init_values": 1e-5}, "blocks.0.ls1.gamma"),
    ],
)
def test_tensors_that_no_file_fills_are_named_and_must_train(
    kwargs: dict[str, Any], fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_file(stock(VIT, **SMALL_VIT).state_dict(), path)
    for classes in (3, 21843):  # the second is the tag's own number
        tag = by_tag(VIT, classes, path, SMALL_VIT | kwargs, monkeypatch)
        file = by_file(VIT, classes, path, SMALL_VIT | kwargs)
        assert tag.fresh == file.fresh
        assert fresh in file.fresh
    everything = [name for name, _ in file.model.named_parameters()]
    file.check_trained(everything, "full")
    adapter = san.attach(file.model, "linear")
    with pytest.raises(WeightsError, match=r"are in no weights file, and 'linear' does not train"):
        file.check_trained(adapter.trainable, "linear")


def test_a_file_with_nothing_for_the_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"other.weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="holds another model: nothing in it is for blocks.0"):
        by_file(VIT, 3, path, SMALL_VIT)


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ({"init_values": 0.1}, "blocks.0.ls1.gamma"),
        ({"qk_norm": True}, "blocks.0.attn.k_norm.bias"),
        ({"qkv_bias": True}, "blocks.0.attn.qkv.bias"),
        ({"depth": 3}, "it has 3 blocks, this one 2; one has no blocks.2"),
    ],
)
def test_a_file_with_more_than_the_model_is_refused(
    more: dict[str, Any], missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    wanted = SMALL_VIT | ({"qkv_bias": False} if "qkv_bias" in more else {})
    save_file(stock(VIT, **SMALL_VIT | more).state_dict(), path)
    with pytest.raises(
        WeightsError, match=f"holds another model: .*{missing}.*backbone.name="
    ) as a:
        by_file(VIT, 3, path, wanted)
    with pytest.raises(WeightsError) as b:
        by_tag(VIT, 3, path, wanted, monkeypatch)
    assert str(a.value) == str(b.value)


def test_what_is_pooled_in_another_way_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "w.safetensors"
    save_file(stock(VIT, **SMALL_VIT, global_pool="map").state_dict(), path)
    assert by_file(VIT, 3, path, SMALL_VIT).fresh == frozenset()
    assert "the model has no attn_pool." in caplog.text


def test_weights_that_timm_has_as_a_pickle_alone_are_refused() -> None:
    pickled = [
        name
        for name in timm.list_pretrained("vit*") + timm.list_pretrained("swin*")
        if not timm.get_pretrained_cfg(name).hf_hub_id
    ]
    assert len(pickled) >= 3
    for name in pickled[:3]:
        with pytest.raises(WeightsError, match="in a format that can run code"):
            build_backbone(name, 3, "timm")
