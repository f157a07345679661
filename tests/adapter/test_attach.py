"""Saved adapters: their content, and the files and models that are refused."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import tiny_convnext, tiny_swin, tiny_vit
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import san
from san.adapter.adapter_file import content_hash
from san.errors import AdapterFileError, InvalidValueError

OLD_FILE = Path(__file__).parents[1] / "golden/adapter_old_options.safetensors"


def saved(path: Path, method: str = "san", noise: float = 1.0, **options: Any) -> san.Adapter:
    adapter = san.attach(tiny_vit(), method, **options)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in adapter.model.named_parameters():
            if name in adapter.trainable:
                p.add_(torch.randn_like(p), alpha=noise)
    adapter.save(path)
    return adapter


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def vit_of_round_numbers() -> nn.Module:
    """A tiny ViT with the same weights on every machine and in every version of torch."""
    model = tiny_vit()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            values = torch.arange(p.numel()) * (i + 3) % 13 - 6
            p.copy_(values.view_as(p) / 64)
    return model


def test_a_file_is_small_and_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.safetensors"
    adapter = saved(path, "adapter_plus", bottleneck_dim=2)
    metadata = metadata_of(path)
    assert metadata["format"] == "san-adapter-1"
    assert metadata["method"] == "adapter_plus"
    options = {"width": 2, "std": 0.01, "bias": True, "dropout": 0.0, "drop_path": 0.1}
    assert json.loads(metadata["options"]) == options  # the words of this format
    assert metadata["backbone"] == "VisionTransformer"
    assert metadata["san"] == san.__version__
    assert path.stat().st_size < 4 * adapter.counts.trainable + 8000
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    saved(path)
    before = path.read_bytes()

    def interrupted(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("san.adapter.adapter_file.save_file", interrupted)
    with pytest.raises(OSError, match="No space left"):
        saved(path, "ssf")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == before


def test_options_come_back(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", "lora", targets=["fc1"], rank=2, alpha=3)
    options = san.restore(tiny_vit(), tmp_path / "a.safetensors").options
    assert options["targets"] == ("fc1",)
    assert options["rank"] == 2
    assert options["alpha"] == 3.0


def test_a_file_with_old_names_of_options_is_restored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file was written at commit a10070e, before options were renamed."""
    written = metadata_of(OLD_FILE)
    old_options = {"length": 3, "deep": True, "place": "end", "dropout": 0.1}
    assert json.loads(written["options"]) == old_options
    with caplog.at_level(logging.WARNING):
        adapter = san.restore(vit_of_round_numbers(), OLD_FILE)
    assert not caplog.records  # nobody typed the old words
    current = {"num_prompts": 3, "deep": True, "position": "append", "dropout": 0.1}
    assert adapter.options == current
    ramp = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
    logits = adapter.model.eval()(ramp).flatten()
    assert torch.allclose(logits, torch.tensor(json.loads(written["answer"])), atol=1e-5)
    adapter.save(tmp_path / "again.safetensors")
    again = metadata_of(tmp_path / "again.safetensors")
    again["answer"] = written["answer"]  # which is rounded in another way elsewhere
    assert again == written


@pytest.mark.parametrize(
    ("method", "option", "default"), [("san", "init_std", 0.0), ("adapter", "scale", 1.0)]
)
def test_an_added_option_is_written_where_it_is_not_at_its_default(
    tmp_path: Path, method: str, option: str, default: float
) -> None:
    """At its default, a file is that of the versions without the option."""
    path = tmp_path / "a.safetensors"
    for value in (default, 0.5):
        adapter = saved(path, method, noise=0.1, **{option: value})
        written = json.loads(metadata_of(path)["options"])
        assert written.get(option, default) == value
        assert (option in written) == (value != default)
        restored = san.restore(tiny_vit(), path)
        assert restored.options == adapter.options
        image = torch.ones(1, 3, 16, 16)
        assert torch.equal(restored.model.eval()(image), adapter.model.eval()(image))


def test_restored_into_what_it_was_saved_from_and_merged(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "a.safetensors", "ssf")
    images = torch.randn(2, 3, 16, 16)
    again = san.restore(tiny_vit(), tmp_path / "a.safetensors")
    assert torch.equal(again.model.eval()(images), adapter.model.eval()(images))
    again.merge()
    assert torch.allclose(again.model(images), adapter.model(images), atol=1e-4)
    with pytest.raises(
        InvalidValueError, match="'ssf' has been merged into this model; save before you merge"
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
    backbone = {n: v for n, v in tiny_vit().state_dict().items() if "head" not in n}
    model.load_state_dict(backbone, strict=False)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (another_start, "belongs to a VisionTransformer with other weights or precision"),
        (
            lambda: tiny_vit(act_layer=torch.nn.ReLU),
            "gives other logits here: this VisionTransformer is built in another way",
        ),
        (lambda: tiny_vit(global_pool="avg", fc_norm=False), "gives other logits here"),
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


def rewritten(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: str) -> Path:
    """Write the file again with other tensors, and the hash that fits them, or other metadata."""
    metadata = metadata_of(path)
    tensors = load_file(path) if tensors is None else tensors
    metadata["tensors"] = content_hash(tensors)
    save_file(tensors, path, metadata | changes)
    return path


SCALE = "blocks.0.mlp.fc1.scale"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "blocks.9.extra",
            torch.ones(2),
            r"blocks.9.extra is \(2,\) float32 there and nothing here",
        ),
        (SCALE, None, rf"{SCALE} is nothing there and \(128,\) float32 here"),
        (SCALE, torch.ones(5), rf"{SCALE} is \(5,\) float32 there and \(128,\) float32 here"),
        (
            SCALE,
            torch.ones(128).double(),
            rf"{SCALE} is \(128,\) float64 there and \(128,\) float32 here",
        ),
    ],
)
def test_another_tensor_set_is_refused(
    name: str, value: torch.Tensor | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    saved(path)
    tensors = load_file(path)
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    with pytest.raises(AdapterFileError, match=message):
        san.restore(tiny_vit(), rewritten(path, tensors))


def test_full_fine_tuning_is_tied_to_its_backbone_too(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", "full", noise=0.02)
    with pytest.raises(AdapterFileError, match="gives other logits here"):
        san.restore(tiny_vit(act_layer=torch.nn.ReLU), tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match="float32 there and .* float64 here"):
        san.restore(tiny_vit().double(), tmp_path / "a.safetensors")


def test_a_model_with_a_method_is_refused(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "a.safetensors")
    with pytest.raises(InvalidValueError, match="has 'san' attached already"):
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
        ({"options": '{"norms": null}'}, "cannot be attached: method.train_norms came as None"),
        ({"options": "[1"}, "no readable options"),
        ({"options": "null"}, "no readable options"),
        ({"answer": "3"}, "no readable answer"),
        ({"answer": "[]"}, "gives other logits here"),
        ({"answer": '["a"]'}, "no readable answer"),
        ({"answer": "[NaN]"}, "no readable answer"),
        ({"answer": "[" * 100_000}, "no readable answer"),
        ({"options": '{"a":' * 100_000}, "no readable options"),
        ({"options": '{"rank": 1000000000}', "method": "lora"}, "does not fit this model"),
        ({"options": '{"rank": 1e30}', "method": "lora"}, "cannot be attached"),
        ({"options": f'{{"rank": {10**14}}}', "method": "lora"}, "cannot be attached"),
        ({"options": f'{{"rank": {10**16}}}', "method": "lora"}, "cannot be attached"),
        ({"options": f'{{"rank": {10**18}}}', "method": "lora"}, "cannot be attached"),
        ({"options": f'{{"num_prompts": {10**16}}}', "method": "vpt_deep"}, "cannot be attached"),
        ({"options": f'{{"rank": {10**40}}}', "method": "lora"}, "cannot be attached"),
        ({"options": '{"num_prompts": 1000000000}', "method": "vpt_deep"}, "does not fit"),
        ({"san": "9" * 10_000}, "was written by version"),
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
    with pytest.raises(
        InvalidValueError, match="'linear' was merged before; 'san' is attached now"
    ):
        old.merge()
    with pytest.raises(InvalidValueError, match="'linear' has been merged into this model"):
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
    with pytest.raises(InvalidValueError, match="has a zero, so it cannot be merged"):
        adapter.merge()
    assert [name for name, _ in adapter.model.named_modules()] == names
