"""SAN's scales, read from the file of an adapter without torch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import tiny_convnext, tiny_dino, tiny_swin, tiny_vit
from torch import nn

import san
from san.backbones import sites
from san.errors import AdapterFileError, MissingFileError
from san.report.adapter_scales import read_scales


@pytest.mark.parametrize("build", [tiny_vit, tiny_dino, tiny_swin, tiny_convnext])
@pytest.mark.parametrize("method", ["san", "san_recalibrated", "ssf"])
def test_scales_come_in_the_order_of_computation(
    build: Callable[[], nn.Module], method: str, tmp_path: Path
) -> None:
    adapter = san.attach(build(), method)
    parameters = dict(adapter.model.named_parameters())
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name.endswith(".scale"):
                parameter.copy_(1 + 0.1 * torch.randn_like(parameter))
    path = tmp_path / "adapter.safetensors"
    adapter.save(path)
    read = read_scales(path)
    order = [site.name for site in sites(build()) if f"{site.name}.scale" in parameters]
    assert len(order) > 8
    assert [one.site for one in read] == order
    for one in read:
        saved = parameters[f"{one.site}.scale"].detach()
        assert one.scales.shape == saved.shape
        assert torch.equal(torch.tensor(one.scales), saved)


def test_untied_scales_of_inputs_are_named_so(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    san.attach(tiny_vit(), "san", propagation="untied").save(path)
    names = [one.site for one in read_scales(path)]
    assert len(names) == 9 + 6
    assert names[:3] == ["patch_embed.proj", "blocks.0.attn.qkv", "blocks.0.attn.qkv (inputs)"]


def test_more_than_nine_blocks_are_in_order(tmp_path: Path) -> None:
    adapter = san.attach(tiny_vit(), "san")
    file = tmp_path / "adapter.safetensors"
    from safetensors.torch import save_file

    save_file({f"blocks.{i}.mlp.fc1.scale": torch.ones(2) for i in range(12)}, file)
    assert [one.site for one in read_scales(file)] == [f"blocks.{i}.mlp.fc1" for i in range(12)]
    assert adapter.method == "san"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_type_of_parameters_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    model = san.attach(tiny_vit().to(dtype), "san")
    scale = model.model.patch_embed.proj.scale
    with torch.no_grad():
        scale.copy_(torch.linspace(0.5, 1.5, len(scale)))
    path = tmp_path / "adapter.safetensors"
    model.save(path)
    first = read_scales(path)[0]
    assert first.scales.tolist() == scale.tolist()


def test_scales_that_a_site_alone_reads_are_those_of_its_inputs(tmp_path: Path) -> None:
    model = san.attach(tiny_vit(), "san", train_output_scale=False)
    path = tmp_path / "adapter.safetensors"
    model.save(path)
    found = [one.site for one in read_scales(path)]
    assert found[:3] == [
        "patch_embed.proj",
        "blocks.0.mlp.fc1 (inputs)",
        "blocks.0.mlp.fc2 (inputs)",
    ]


def test_files_without_scales_are_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    with pytest.raises(MissingFileError, match="does not exist"):
        read_scales(path)
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(AdapterFileError, match="cannot be read as an adapter"):
        read_scales(path)
    san.attach(tiny_vit(), "lora").save(path)
    with pytest.raises(AdapterFileError, match=r"holds no scales; .* \(san, ssf\) is allowed"):
        read_scales(path)


def test_neither_torch_nor_matplotlib_is_imported() -> None:
    program = (
        "import sys, san.report.adapter_scales, san.report.figures.save, "
        "san.report.figures.accuracy_parameters; "
        "print({'torch', 'matplotlib', 'textalloc'} & set(sys.modules))"
    )
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert made.stdout == "set()\n"
