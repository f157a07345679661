"""Saved adapters: what they hold, and what is refused."""

import copy
import json
from pathlib import Path

import pytest
import torch
from conftest import tiny_swin, tiny_vit
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import san
from san.errors import AdapterFileError


def saved(path: Path, method: str = "san", **options) -> san.Adapter:
    adapter = san.attach(tiny_vit(), method, **options)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in adapter.model.named_parameters():
            if name in adapter.trainable:
                p.add_(torch.randn_like(p))
    adapter.save(path)
    return adapter


def changed(path: Path, **metadata: str) -> Path:
    """Write the file again with other metadata."""
    with safe_open(path, "pt") as file:
        old = file.metadata()
    save_file(load_file(path), path, old | metadata)
    return path


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
    assert (adapter.options["targets"], adapter.options["rank"], adapter.options["alpha"]) == (("fc1",), 2, 3)


def test_restored_into_what_it_was_saved_from_and_merged(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "a.safetensors", "ssf")
    images = torch.randn(2, 3, 16, 16)
    again = san.restore(tiny_vit(), tmp_path / "a.safetensors")
    assert torch.equal(again.model.eval()(images), adapter.model.eval()(images))
    again.merge()
    assert torch.allclose(again.model(images), adapter.model(images), atol=1e-4)
    with pytest.raises(ValueError, match="'ssf' has been merged into this model; save before you merge"):
        again.save(tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def another_start():
    torch.manual_seed(9)
    model = tiny_vit()
    torch.nn.init.normal_(model.blocks[0].mlp.fc1.weight)
    return model


def seven_classes():
    model = tiny_vit(classes=7)
    model.load_state_dict({n: v for n, v in tiny_vit().state_dict().items() if "head" not in n}, strict=False)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (another_start, "belongs to VisionTransformer, with other weights or precision"),
        (lambda: tiny_vit().double(), "with other weights or precision"),
        (tiny_swin, "belongs to VisionTransformer, with other weights or precision than this SwinTransformer has"),
        (seven_classes, r"does not fit this model: head.weight is \(10, 32\) there and \(7, 32\) here"),
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


def test_another_tensor_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    saved(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_file({**tensors, "blocks.9.extra": torch.ones(2)}, path, metadata)
    with pytest.raises(AdapterFileError, match=r"blocks.9.extra is \(2,\) there and nothing here"):
        san.restore(tiny_vit(), path)
    short = {n: v for n, v in tensors.items() if n != "blocks.0.mlp.fc1.scale"}
    save_file(short, path, metadata)
    with pytest.raises(AdapterFileError, match=r"blocks.0.mlp.fc1.scale is nothing there and \(128,\) here"):
        san.restore(tiny_vit(), path)
    save_file({**tensors, "blocks.0.mlp.fc1.scale": torch.ones(5)}, path, metadata)
    with pytest.raises(AdapterFileError, match=r"blocks.0.mlp.fc1.scale is \(5,\) there and \(128,\) here"):
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
    with pytest.raises(AdapterFileError, match="does not say its backbone, frozen, options, san"):
        san.restore(tiny_vit(), path)
    saved(path)
    with pytest.raises(AdapterFileError, match="has format san-adapter-7; san-adapter-1 is allowed"):
        san.restore(tiny_vit(), changed(path, format="san-adapter-7"))
    with pytest.raises(AdapterFileError, match=r"version 0.1.0, cannot be attached: Unknown method 'sam'"):
        san.restore(tiny_vit(), changed(path, format="san-adapter-1", method="sam"))
    with pytest.raises(AdapterFileError, match="cannot be attached: Unknown option of san 'wings'"):
        san.restore(tiny_vit(), changed(path, method="san", options='{"wings": 2}'))
    with pytest.raises(AdapterFileError, match="options"):
        san.restore(tiny_vit(), changed(path, options="[1"))


def test_a_stream_with_a_zero_is_not_merged() -> None:
    from conftest import tiny_convnext

    adapter = san.attach(tiny_convnext(), "ssf")
    with torch.no_grad():
        adapter.model.norm_pre.scale[3] = 0
    names = [name for name, _ in adapter.model.named_modules()]
    with pytest.raises(ValueError, match="A stream's scale has a zero"):
        adapter.merge()
    assert [name for name, _ in adapter.model.named_modules()] == names
