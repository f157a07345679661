"""Saved adapters: what they hold, and what is refused."""

import copy
import json
from pathlib import Path

import pytest
import timm
import torch
from conftest import tiny_convnext, tiny_swin, tiny_vit
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import san
from san.adapter_file import content_hash
from san.errors import AdapterFileError


def saved(path: Path, method: str = "san", noise: float = 1.0, **options) -> san.Adapter:
    adapter = san.attach(tiny_vit(), method, **options)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in adapter.model.named_parameters():
            if name in adapter.trainable:
                p.add_(torch.randn_like(p), alpha=noise)
    adapter.save(path)
    return adapter


def test_a_file_is_small_and_says_what_it_is(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "deep" / "a.safetensors", "san", shift=True)
    with safe_open(tmp_path / "deep" / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["method"] == "san"
    assert json.loads(metadata["options"]) == adapter.options
    assert adapter.options["shift"] is True
    assert metadata["backbone"] == "VisionTransformer"
    assert metadata["san"] == san.__version__
    size = (tmp_path / "deep" / "a.safetensors").stat().st_size
    assert size < 4 * adapter.counts.trainable + 8000
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.safetensors"]
    assert (tmp_path / "deep" / "a.safetensors").stat().st_mode & 0o777 == 0o644


def test_options_come_back(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", "lora", targets=["fc1"], rank=2, alpha=3)
    adapter = san.restore(tiny_vit(), tmp_path / "a.safetensors")
    assert (adapter.options["targets"], adapter.options["rank"], adapter.options["alpha"]) == (
        ("fc1",),
        2,
        3,
    )


def test_restored_into_what_it_was_saved_from_and_merged(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "a.safetensors", "ssf")
    images = torch.randn(2, 3, 16, 16)
    again = san.restore(tiny_vit(), tmp_path / "a.safetensors")
    assert torch.equal(again.model.eval()(images), adapter.model.eval()(images))
    again.merge()
    assert torch.allclose(again.model(images), adapter.model(images), atol=1e-4)
    with pytest.raises(
        ValueError, match="'ssf' has been merged into this model; save before you merge"
    ):
        again.save(tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def another_start():
    torch.manual_seed(9)
    model = tiny_vit()
    torch.nn.init.normal_(model.blocks[0].mlp.fc1.weight)
    return model


def seven_classes():
    model = tiny_vit(classes=7)
    model.load_state_dict(
        {n: v for n, v in tiny_vit().state_dict().items() if "head" not in n}, strict=False
    )
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (another_start, "belongs to a VisionTransformer with other weights or precision"),
        (
            lambda: tiny_vit(act_layer=torch.nn.ReLU),
            "answers otherwise here: this VisionTransformer is built in another",
        ),
        (lambda: tiny_vit(global_pool="avg", fc_norm=False), "answers otherwise here"),
        (lambda: tiny_vit().double(), "with other weights or precision"),
        (tiny_swin, "belongs to a VisionTransformer; this is a SwinTransformer"),
        (
            seven_classes,
            r"does not fit this model: head.weight is \(10, 32\) float32 there and \(7, 32\) ",
        ),
    ],
)
def test_another_model_is_refused_and_left_alone(make, message: str, tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors")
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(AdapterFileError, match=message):
        san.restore(model, tmp_path / "a.safetensors")
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not hasattr(model, "adapted_by")


def rewritten(path: Path, tensors: dict[str, torch.Tensor] | None = None, **metadata: str) -> Path:
    """Write the file again with other tensors, and the hash that fits them, or other metadata."""
    with safe_open(path, "pt") as file:
        old = file.metadata()
    tensors = load_file(path) if tensors is None else tensors
    save_file(tensors, path, old | {"tensors": content_hash(tensors)} | metadata)
    return path


def test_another_tensor_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    saved(path)
    tensors = load_file(path)
    name = "blocks.0.mlp.fc1.scale"
    for changed, message in [
        (
            {**tensors, "blocks.9.extra": torch.ones(2)},
            r"blocks.9.extra is \(2,\) float32 there and nothing here",
        ),
        (
            {n: v for n, v in tensors.items() if n != name},
            rf"{name} is nothing there and \(128,\) float32 here",
        ),
        (
            {**tensors, name: torch.ones(5)},
            rf"{name} is \(5,\) float32 there and \(128,\) float32 here",
        ),
        (
            {**tensors, name: tensors[name].double()},
            rf"{name} is \(128,\) float64 there and \(128,\) float32 here",
        ),
    ]:
        with pytest.raises(AdapterFileError, match=message):
            san.restore(tiny_vit(), rewritten(path, changed))


def test_full_fine_tuning_is_tied_to_its_backbone_too(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", "full", noise=0.02)
    with pytest.raises(AdapterFileError, match="answers otherwise here"):
        san.restore(tiny_vit(act_layer=torch.nn.ReLU), tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match="float32 there and .* float64 here"):
        san.restore(tiny_vit().double(), tmp_path / "a.safetensors")


def test_a_model_with_a_method_is_refused(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="has 'san' attached already"):
        san.restore(adapter.model, tmp_path / "a.safetensors")


def test_a_hybrid_is_saved_and_restored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_r_s16_p8_224", num_classes=3)
    fresh = copy.deepcopy(model)
    san.attach(model, "ssf").save(tmp_path / "a.safetensors")
    san.restore(fresh, tmp_path / "a.safetensors")
    images = torch.randn(1, 3, 224, 224)
    assert torch.equal(fresh.eval()(images), model.eval()(images))


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    saved(path)
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        AdapterFileError, match="is corrupt: its tensors are not those that were saved"
    ):
        san.restore(tiny_vit(), path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(AdapterFileError, match="cannot be read as an adapter"):
        san.restore(tiny_vit(), path)
    path.write_bytes(b"\x80\x04\x95 a pickle")
    with pytest.raises(AdapterFileError, match="cannot be read as an adapter"):
        san.restore(tiny_vit(), path)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(AdapterFileError, match="has format None; san-adapter-1 is allowed"):
        san.restore(tiny_vit(), path)
    save_file({"x": torch.ones(1)}, path, {"format": "san-adapter-1", "method": "san"})
    with pytest.raises(
        AdapterFileError, match="does not say its answer, backbone, frozen, options, san, tensors"
    ):
        san.restore(tiny_vit(), path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "san-adapter-7"}, "has format san-adapter-7; san-adapter-1 is allowed"),
        ({"san": "99.0.0"}, "was written by version 99.0.0 of san, this is 0.1.0: update"),
        ({"backbone": "resnet50"}, "belongs to a resnet50; this is a VisionTransformer"),
        ({"method": "sam"}, r"version 0.1.0, cannot be attached: Unknown method 'sam'"),
        ({"options": '{"wings": 2}'}, "cannot be attached: Unknown option of san 'wings'"),
        ({"options": '{"model": 1}'}, "cannot be attached: Unknown option of san 'model'"),
        ({"options": '{"norms": null}'}, "cannot be attached: method.norms came as None"),
        ({"options": "[1"}, "no readable options"),
        ({"options": "null"}, "no readable options"),
        ({"answer": "3"}, "no readable answer"),
        ({"answer": "[]"}, "answers otherwise here"),
        ({"answer": '["a"]'}, "answers otherwise here"),
    ],
)
def test_other_metadata_are_refused(metadata: dict[str, str], message: str, tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match=message):
        san.restore(tiny_vit(), rewritten(tmp_path / "a.safetensors", **metadata))


def test_an_old_handle_touches_nothing(tmp_path: Path) -> None:
    model = tiny_vit()
    old = san.attach(model, "linear")
    old.merge()
    new = san.attach(model, "san")
    with pytest.raises(ValueError, match="'linear' was merged before; 'san' is attached now"):
        old.merge()
    with pytest.raises(ValueError, match="'linear' has been merged into this model"):
        old.save(tmp_path / "a.safetensors")
    new.save(tmp_path / "b.safetensors")
    assert san.restore(tiny_vit(), tmp_path / "b.safetensors").method == "san"


def test_saving_leaves_the_modes_alone(tmp_path: Path) -> None:
    adapter = san.attach(tiny_vit().train(), "lora", dropout=0.5)
    adapter.model.blocks[1].eval()
    before = [module.training for module in adapter.model.modules()]
    adapter.save(tmp_path / "a.safetensors")
    assert [module.training for module in adapter.model.modules()] == before


def test_a_convnext_without_biases_merges() -> None:
    model = tiny_convnext(conv_bias=False).double().eval()
    adapter = san.attach(model, "ssf")
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = model(images)
    assert torch.allclose(adapter.merge()(images), before, atol=1e-12)


def test_a_stream_with_a_zero_is_not_merged() -> None:
    adapter = san.attach(tiny_convnext(), "ssf")
    with torch.no_grad():
        adapter.model.norm_pre.scale[3] = 0
    names = [name for name, _ in adapter.model.named_modules()]
    with pytest.raises(ValueError, match="A stream's scale has a zero"):
        adapter.merge()
    assert [name for name, _ in adapter.model.named_modules()] == names
