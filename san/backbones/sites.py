"""Where a method may attach: the operations of a stock timm model, what each reads, and its residual branches.

ViT, Swin and ConvNeXt differ in the lists that these functions make, and nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from timm.layers.mlp import GluMlp, Mlp
from timm.layers.norm import LayerNorm2d
from timm.models.convnext import ConvNeXtBlock
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from san.backbones.families import family

Part = Literal["embedding", "block", "downsampling", "end"]


@dataclass(frozen=True)
class Site:
    """One operation of a backbone whose output channels a method may adapt.

    name: dotted module name. kind: what it is; a `stream` computes nothing, it is the residual stream at that place.
    part: of the backbone. inputs, channels: how many it reads and writes; axis: where the channels are in its output.
    anterior: the site whose output it reads, leaving aside what keeps the channels (norm, residual sum, activation);
    None for the first. reads: from which to which (excluded) of the anterior's channels; where these are fewer than
    `inputs` it reads them several times over, from neighbouring places (patch merging). stage_input: for what reads the
    residual stream first in a block, the site that opened the stream of its stage; else None.
    """

    name: str
    kind: Literal["norm", "linear", "conv", "stream"]
    part: Part
    inputs: int
    channels: int
    axis: int
    anterior: str | None
    reads: tuple[int, int]
    stage_input: str | None = None


@dataclass(frozen=True)
class Branch:
    """One residual branch: stream + exit(... entry(stream)).

    block, entry, exit: dotted module names; entry reads the stream, exit gets what the branch adds to it.
    channels, axis: of the stream. A ConvNeXt block has one branch, an `mlp` that begins with its depthwise convolution.
    """

    block: str
    kind: Literal["attention", "mlp"]
    entry: str
    exit: str
    channels: int
    axis: int


def sites(model: nn.Module) -> tuple[Site, ...]:
    """Return the sites of a stock timm model in the order of computation; raise TypeError where none are known."""
    listed = {"ViT": vit_sites, "Swin": swin_sites, "ConvNeXt": convnext_sites}[family(model)]
    return tuple(listed(model))


def site(
    model: nn.Module,
    name: str,
    part: Part,
    anterior: str | None,
    reads: tuple[int, int] | None = None,
    stage_input: str | None = None,
) -> Site:
    """Describe the module called `name`; unless `reads` says otherwise it reads all channels of its anterior."""
    module = model.get_submodule(name)
    if isinstance(module, nn.Linear):
        inputs, channels, axis = module.in_features, module.out_features, -1
        return Site(
            name,
            "linear",
            part,
            inputs,
            channels,
            axis,
            anterior,
            reads or (0, inputs),
            stage_input,
        )
    if isinstance(module, nn.Conv2d):
        inputs, channels, axis = module.in_channels, module.out_channels, 1
        return Site(
            name, "conv", part, inputs, channels, axis, anterior, reads or (0, inputs), stage_input
        )
    channels, axis = len(cast(Tensor, module.weight)), 1 if isinstance(module, LayerNorm2d) else -1
    return Site(
        name, "norm", part, channels, channels, axis, anterior, reads or (0, channels), stage_input
    )


def has(model: nn.Module, name: str) -> bool:
    """Tell whether there is an operation of that name: a module with weights, not an identity."""
    parent, _, last = name.rpartition(".")
    return getattr(getattr(model.get_submodule(parent), last, None), "weight", None) is not None


def attention_block(model: nn.Module, here: str, stream: str, stage_input: str) -> Iterator[Site]:
    """Sites of a transformer block, of ViT or Swin; it reads the stream that `stream` wrote to last."""
    block: Any = model.get_submodule(here)
    known_block = type(block) in (Block, SwinTransformerBlock)
    if not known_block or not isinstance(block.mlp, Mlp | GluMlp) or not hasattr(block.attn, "qkv"):
        found = type(block).__name__ + (
            f" with a {type(block.mlp).__name__}" if known_block else ""
        )
        raise TypeError(
            f"No sites are known for a {found}; allowed: timm's Block with Mlp or GluMlp."
        )
    qkv, width = f"{here}.attn.qkv", block.attn.proj.in_features
    yield site(model, f"{here}.norm1", "block", stream)
    yield site(model, qkv, "block", stream, stage_input=stage_input)
    for name, third in (("q_norm", 0), ("k_norm", 1)):
        if has(model, f"{here}.attn.{name}"):
            yield site(
                model, f"{here}.attn.{name}", "block", qkv, (third * width, (third + 1) * width)
            )
    values = (2 * width, 3 * width)  # attention mixes places, not channels: proj reads what v wrote
    if has(model, f"{here}.attn.norm"):
        yield site(model, f"{here}.attn.norm", "block", qkv, values)
    yield site(model, f"{here}.attn.proj", "block", qkv, values)
    yield site(model, f"{here}.norm2", "block", f"{here}.attn.proj")
    yield from mlp(model, here, f"{here}.attn.proj")


def mlp(model: nn.Module, here: str, anterior: str) -> Iterator[Site]:
    """Sites of an MLP; in a gated one fc2 reads what the half of fc1 that is no gate wrote."""
    module: Any = model.get_submodule(f"{here}.mlp")
    fc1 = site(model, f"{here}.mlp.fc1", "block", anterior)
    half = fc1.channels // 2
    gated = isinstance(module, GluMlp)
    reads = (
        (0, fc1.channels) if not gated else (0, half) if module.gate_last else (half, fc1.channels)
    )
    yield fc1
    if has(model, f"{here}.mlp.norm"):
        yield site(model, f"{here}.mlp.norm", "block", fc1.name, reads)
    yield site(model, f"{here}.mlp.fc2", "block", fc1.name, reads)


def vit_sites(model: Any) -> Iterator[Site]:
    """Sites of a timm ViT."""
    stage_input = stream = "patch_embed.proj"
    yield site(model, stream, "embedding", None)
    if has(model, "norm_pre"):
        yield site(model, "norm_pre", "embedding", stream)
    for i in range(len(model.blocks)):
        yield from attention_block(model, f"blocks.{i}", stream, stage_input)
        stream = f"blocks.{i}.mlp.fc2"
    for name in ("norm", "fc_norm"):
        if has(model, name):
            yield site(model, name, "end", stream)


def swin_sites(model: Any) -> Iterator[Site]:
    """Sites of a timm Swin. Patch merging reads the stream at four places at once."""
    stage_input = stream = "patch_embed.proj"
    yield site(model, stream, "embedding", None)
    if has(model, "patch_embed.norm"):
        yield site(model, "patch_embed.norm", "embedding", stream)
    for i, layer in enumerate(model.layers):
        if has(model, f"layers.{i}.downsample.reduction"):
            reads = (0, layer.downsample.dim)
            yield site(model, f"layers.{i}.downsample.norm", "downsampling", stream, reads)
            stage_input = f"layers.{i}.downsample.reduction"
            yield site(model, stage_input, "downsampling", stream, reads)
            stream = stage_input
        for j in range(len(layer.blocks)):
            yield from attention_block(model, f"layers.{i}.blocks.{j}", stream, stage_input)
            stream = f"layers.{i}.blocks.{j}.mlp.fc2"
    yield site(model, "norm", "end", stream)


def convnext_sites(model: Any) -> Iterator[Site]:
    """Sites of a timm ConvNeXt. Its last one is the stream before pooling, or the norm that stands there."""
    stream = None
    for name, _ in model.stem.named_children():
        if has(model, f"stem.{name}"):
            found = site(model, f"stem.{name}", "embedding", stream)
            yield found
            stream = found.name if found.kind == "conv" else stream
    stage_input = cast(str, stream)
    for i, stage in enumerate(model.stages):
        if isinstance(stage.downsample, nn.Sequential):
            yield site(model, f"stages.{i}.downsample.0", "downsampling", stream)
            stage_input = f"stages.{i}.downsample.1"
            yield site(model, stage_input, "downsampling", stream)
            stream = stage_input
        for j in range(len(stage.blocks)):
            here = f"stages.{i}.blocks.{j}"
            yield site(model, f"{here}.conv_dw", "block", stream, stage_input=stage_input)
            yield site(model, f"{here}.norm", "block", f"{here}.conv_dw")
            yield from mlp(model, here, f"{here}.conv_dw")
            stream = f"{here}.mlp.fc2"
    width = model.num_features
    if has(model, "norm_pre"):
        yield site(model, "norm_pre", "end", stream)
    else:
        yield Site("norm_pre", "stream", "end", width, width, 1, stream, (0, width))


def branches(model: nn.Module) -> tuple[Branch, ...]:
    """Return the residual branches in the order of computation; raise TypeError where none are known."""
    family(model)
    found = []
    for name, module in model.named_modules():
        block: Any = module
        if type(module) in (Block, SwinTransformerBlock):
            width = block.attn.proj.out_features
            found += [
                Branch(name, "attention", f"{name}.norm1", f"{name}.drop_path1", width, -1),
                Branch(name, "mlp", f"{name}.norm2", f"{name}.drop_path2", width, -1),
            ]
        elif type(module) is ConvNeXtBlock:
            width = block.conv_dw.out_channels
            found.append(Branch(name, "mlp", f"{name}.conv_dw", f"{name}.drop_path", width, 1))
    return tuple(found)
