"""Where a method may attach: the operations of a stock timm model, and its residual branches.

ViT, Swin and ConvNeXt differ in the lists that these functions make, and nowhere else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from timm.layers.mlp import GluMlp, Mlp
from timm.layers.norm import LayerNorm2d
from timm.models import ConvNeXt, Eva, SwinTransformer, VisionTransformer
from timm.models.convnext import ConvNeXtBlock
from timm.models.eva import EvaBlock
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from san.backbones.families import family
from san.errors import UnsupportedModelError

# Exactly these classes: a subclass may compute something else.
_TRANSFORMER_BLOCKS = (Block, EvaBlock, SwinTransformerBlock)
Part = Literal["embedding", "block", "downsampling", "end"]


@dataclass(frozen=True)
class Site:
    """One operation of a backbone whose output channels a method may adapt.

    name: dotted module name. kind: what it is; a `stream` computes nothing, it is the residual
    stream at that place. part: of the backbone. inputs, channels: how many it reads and writes;
    axis: where the channels are in its output.
    anterior: the site whose output it reads, leaving aside what keeps the channels (norm, residual
    sum, activation); None for the first. reads: from which to which (excluded) of the anterior's
    channels; if these are fewer than `inputs` it reads them several times over, from neighbouring
    places (patch merging). stage_input: for the first operation of a block to read the residual
    stream, the site that opened the stream of its stage; else None.
    writer: the module, a norm or an activation, that writes what this site reads, and that nobody
    else reads; None where there is none, or something stands between the two.
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
    writer: str | None = None


@dataclass(frozen=True)
class Branch:
    """One residual branch: stream + exit(... entry(stream)).

    block, entry, exit: dotted module names; entry reads the stream, exit gets what the branch adds
    to it. channels, axis: of the stream. A ConvNeXt block has one branch, an `mlp` that begins with
    its depthwise convolution.
    """

    block: str
    kind: Literal["attention", "mlp"]
    entry: str
    exit: str
    channels: int
    axis: int


def sites(model: nn.Module) -> tuple[Site, ...]:
    """Return the sites of a stock timm model in the order of computation.

    Raises UnsupportedModelError for a model whose sites are not known.
    """
    list_sites: Mapping[str, Callable[[Any], Iterator[Site]]]
    list_sites = {
        "ViT": _vit_sites,
        "Eva": _vit_sites,
        "Swin": _swin_sites,
        "ConvNeXt": _convnext_sites,
    }
    return tuple(list_sites[family(model)](model))


def branches(model: nn.Module) -> tuple[Branch, ...]:
    """Return the residual branches in the order of computation.

    Raises UnsupportedModelError for a model whose sites are not known.
    """
    family(model)
    found: list[Branch] = []
    for name, module in model.named_modules():
        block: Any = module
        if type(module) in _TRANSFORMER_BLOCKS:
            found += _transformer_branches(name, block.attn.proj.out_features)
        elif type(module) is ConvNeXtBlock:
            width = block.conv_dw.out_channels
            entry = f"{name}.conv_dw"
            found.append(Branch(name, "mlp", entry, f"{name}.drop_path", width, axis=1))
    return tuple(found)


def _transformer_branches(block: str, width: int) -> Iterator[Branch]:
    """Branches of a block of ViT or Swin."""
    yield Branch(block, "attention", f"{block}.norm1", f"{block}.drop_path1", width, axis=-1)
    yield Branch(block, "mlp", f"{block}.norm2", f"{block}.drop_path2", width, axis=-1)


def _vit_sites(model: VisionTransformer | Eva) -> Iterator[Site]:
    """Sites of a timm ViT, with learned or with rotary positions (Eva)."""
    embedding = "patch_embed.proj"
    yield _site(model, embedding, "embedding", anterior=None)
    if _has_weight(model, "norm_pre"):
        yield _site(model, "norm_pre", "embedding", embedding)
    stream = embedding  # the site that wrote to the residual stream last
    for i in range(len(model.blocks)):
        yield from _attention_block(model, f"blocks.{i}", stream, stage_input=embedding)
        stream = f"blocks.{i}.mlp.fc2"
    for name in ("norm", "fc_norm"):
        if _has_weight(model, name):
            yield _site(model, name, "end", stream)


def _swin_sites(model: SwinTransformer) -> Iterator[Site]:
    """Sites of a timm Swin. Patch merging reads the stream at four places at once."""
    stage_input = "patch_embed.proj"
    yield _site(model, stage_input, "embedding", anterior=None)
    if _has_weight(model, "patch_embed.norm"):
        yield _site(model, "patch_embed.norm", "embedding", stage_input)
    stream = stage_input
    stages: Any = model.layers
    for i, stage in enumerate(stages):
        merging = f"layers.{i}.downsample"
        if _has_weight(model, f"{merging}.reduction"):
            # Its inputs are these channels, at four neighbouring places.
            reads = (0, stage.downsample.dim)
            stage_input = f"{merging}.reduction"
            yield _site(model, f"{merging}.norm", "downsampling", stream, reads)
            norm = f"{merging}.norm"
            yield _site(model, stage_input, "downsampling", stream, reads, writer=norm)
            stream = stage_input
        for j in range(len(stage.blocks)):
            block = f"layers.{i}.blocks.{j}"
            yield from _attention_block(model, block, stream, stage_input)
            stream = f"{block}.mlp.fc2"
    yield _site(model, "norm", "end", stream)


def _convnext_sites(model: ConvNeXt) -> Iterator[Site]:
    """Sites of a timm ConvNeXt.

    The last one is the stream before pooling, or the norm that stands there.
    """
    stem = list(_stem_sites(model))
    yield from stem
    stage_input = [site.name for site in stem if site.kind == "conv"][-1]
    stream = stage_input
    stages: Any = model.stages
    for i, stage in enumerate(stages):
        if isinstance(stage.downsample, nn.Sequential):
            stage_input = f"stages.{i}.downsample.1"
            norm = f"stages.{i}.downsample.0"
            yield _site(model, norm, "downsampling", stream)
            yield _site(model, stage_input, "downsampling", stream, writer=norm)
            stream = stage_input
        for j in range(len(stage.blocks)):
            block = f"stages.{i}.blocks.{j}"
            depthwise = f"{block}.conv_dw"
            yield _site(model, depthwise, "block", stream, stage_input=stage_input)
            yield _site(model, f"{block}.norm", "block", depthwise)
            yield from _mlp_sites(model, block, depthwise, norm=f"{block}.norm")
            stream = f"{block}.mlp.fc2"
    if _has_weight(model, "norm_pre"):
        yield _site(model, "norm_pre", "end", stream)
    else:
        width = model.num_features
        yield Site("norm_pre", "stream", "end", width, width, 1, stream, (0, width))


def _stem_sites(model: ConvNeXt) -> Iterator[Site]:
    """Sites of a ConvNeXt's stem: one convolution or two, and a norm."""
    last_conv = None
    for child, _ in model.stem.named_children():
        name = f"stem.{child}"
        if not _has_weight(model, name):
            continue
        site = _site(model, name, "embedding", last_conv)
        yield site
        if site.kind == "conv":
            last_conv = name


def _attention_block(
    model: nn.Module, block_name: str, stream: str, stage_input: str
) -> Iterator[Site]:
    """Sites of a transformer block, of ViT or Swin.

    stream: the site that wrote last to the residual stream, which the block reads.
    """
    block = _check_attention_block(model.get_submodule(block_name))
    attention = f"{block_name}.attn"
    qkv = f"{attention}.qkv"
    proj = f"{attention}.proj"
    width = block.attn.proj.in_features
    # qkv writes `width` channels of each, one after the other.
    queries = (0, width)
    keys = (width, 2 * width)
    values = (2 * width, 3 * width)
    norm1 = f"{block_name}.norm1"
    norm2 = f"{block_name}.norm2"
    yield _site(model, norm1, "block", stream)
    yield _site(model, qkv, "block", stream, stage_input=stage_input, writer=norm1)
    # Attention mixes places, not channels: proj reads the values.
    for norm, reads in (("q_norm", queries), ("k_norm", keys), ("norm", values)):
        if _has_weight(model, f"{attention}.{norm}"):
            yield _site(model, f"{attention}.{norm}", "block", qkv, reads)
    has_norm = _has_weight(model, f"{attention}.norm")
    yield _site(model, proj, "block", qkv, values, writer=f"{attention}.norm" if has_norm else None)
    yield _site(model, norm2, "block", proj)
    yield from _mlp_sites(model, block_name, proj, norm=norm2)


def _check_attention_block(block: Any) -> Any:
    """Return the block; raise UnsupportedModelError unless its sites are known."""
    found = type(block).__name__
    if type(block) in _TRANSFORMER_BLOCKS:
        has_plain_mlp = isinstance(block.mlp, Mlp | GluMlp)
        if has_plain_mlp and _has_plain_qkv(block.attn):
            return block
        part = block.attn if has_plain_mlp else block.mlp
        found += f" with this {type(part).__name__}"
    raise UnsupportedModelError(
        f"No sites are known for a {found}; allowed: timm's Block or EvaBlock with Mlp or GluMlp, "
        "and with one Linear for queries, keys and values that adds its own bias."
    )


def _has_plain_qkv(attention: Any) -> bool:
    """Return whether one Linear makes queries, keys and values, and nothing else scales them."""
    if not isinstance(getattr(attention, "qkv", None), nn.Linear):
        return False
    adds_bias_elsewhere = getattr(attention, "q_bias", None) is not None
    is_gated = getattr(attention, "gate", None) is not None
    return not adds_bias_elsewhere and not is_gated


def _mlp_sites(model: nn.Module, block_name: str, anterior: str, norm: str) -> Iterator[Site]:
    """Sites of an MLP; in a gated one fc2 reads the half of fc1 that is not the gate.

    norm: the one that the MLP reads.
    """
    name = f"{block_name}.mlp"
    mlp: Any = model.get_submodule(name)
    fc1 = _site(model, f"{name}.fc1", "block", anterior, writer=norm)
    yield fc1
    reads = (0, fc1.channels)
    if isinstance(mlp, GluMlp):
        # fc1 writes the gate and the gated values side by side.
        half = fc1.channels // 2
        reads = (0, half) if mlp.gate_last else (half, fc1.channels)
    # Exactly Mlp: others put something between the activation and fc2.
    writer = f"{name}.act" if type(mlp) is Mlp else None
    if _has_weight(model, f"{name}.norm"):
        writer = f"{name}.norm"
        yield _site(model, writer, "block", fc1.name, reads)
    yield _site(model, f"{name}.fc2", "block", fc1.name, reads, writer=writer)


def _site(
    model: nn.Module,
    name: str,
    part: Part,
    anterior: str | None,
    reads: tuple[int, int] | None = None,
    stage_input: str | None = None,
    writer: str | None = None,
) -> Site:
    """Describe the module called `name`; by default it reads all channels of its anterior."""
    module = model.get_submodule(name)
    kind: Literal["norm", "linear", "conv"]
    if isinstance(module, nn.Linear):
        kind = "linear"
        inputs = module.in_features
        channels = module.out_features
    elif isinstance(module, nn.Conv2d):
        kind = "conv"
        inputs = module.in_channels
        channels = module.out_channels
    elif isinstance(getattr(module, "weight", None), Tensor):
        kind = "norm"
        inputs = channels = len(cast(Tensor, module.weight))
    else:
        raise UnsupportedModelError(
            f"No sites are known for this {type(model).__name__}: its {name} is a "
            f"{type(module).__name__} without weight."
        )
    axis = 1 if isinstance(module, nn.Conv2d | LayerNorm2d) else -1
    if reads is None:
        reads = (0, inputs)
    return Site(name, kind, part, inputs, channels, axis, anterior, reads, stage_input, writer)


def _has_weight(model: nn.Module, name: str) -> bool:
    """Tell whether there is a module of that name with weights, not an identity."""
    parent, _, last = name.rpartition(".")
    module = getattr(model.get_submodule(parent), last, None)
    return getattr(module, "weight", None) is not None
