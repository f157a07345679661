"""VPT: trained tokens among the patches (Jia et al., ECCV 2022).

    [cls, prompts, patches] enters the first block; deep: each later block gets prompts of its own in the same places

As KMnP/vpt at 4410440: prompts have no position embedding; initial values uniform within +-sqrt(6 / (3 * patch^2 +
width)). `place` end puts them behind the patches, as NOAH does. Trainable on ViT-B/16 without the head, 5 prompts:
3,840 shallow, 46,080 deep; on Swin-B 640 and 60,160.

In Swin (src/models/vit_prompt/swin_transformer.py there) the prompts join every window's attention, without position
bias or mask; what the windows make of them is averaged; patch merging reads four copies of them; and they are pooled
with the patches at the end. That code pairs windows and images in different orders, so that in a batch the prompts of
one image reach another's windows; here they stay with their image.

It does not start at the pre-trained function, and cannot be merged: the tokens are extra input.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site, branches, family
from san.errors import choose
from san.layers.hook_slot import HookSlot

PRESETS = {"vpt_shallow": {"deep": False}, "vpt_deep": {}}


def incompatibility(family: str, options: Mapping[str, Any]) -> str | None:
    """Refuse what has no attention."""
    return (
        "it has no attention that tokens among the patches could take part in"
        if family == "ConvNeXt"
        else None
    )


class Prompts(nn.Module):
    """Trained tokens `(1, length, width)`, drawn uniformly within +-bound."""

    def __init__(self, length: int, width: int, like: Tensor, bound: float, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(like.new_empty(1, length, width))
        nn.init.uniform_(self.tokens, -bound, bound)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: int) -> Tensor:
        """Return the tokens once for each image: `(batch, length, width)`."""
        dropped: Tensor = self.dropout(
            self.tokens.expand(batch, -1, -1)
        )  # each image drops its own
        return dropped


class Sequence(Prompts):
    """Prompts of a ViT's block, among its other tokens; `replace`: in the place of those of the block before."""

    def __init__(self, *prompts: Any, before: int | None, replace: bool) -> None:
        super().__init__(*prompts)
        self.before, self.replace = before, replace

    def enter(self, block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward pre-hook of a block: insert the tokens into `(B, T, width)` behind `before` others, or at the end."""
        x = inputs[0]
        tokens = self(len(x))
        gone = tokens.shape[1] if self.replace else 0
        at = x.shape[1] - gone if self.before is None else self.before
        return (torch.cat([x[:, :at], tokens, x[:, at + gone :]], dim=1), *inputs[1:])


class Windows(nn.Module):
    """A Swin block's attention with the prompts in each window; the layers, and their names, are those of `attention`.

    normed: `(B, P, C)` that the block's norm made of its prompts, put there before the attention is called; attended:
    what the windows made of them, averaged, in the same shape, if anything is to `keep` it for.
    """

    def __init__(self, attention: nn.Module, keep: bool) -> None:
        super().__init__()
        self.keep = keep
        for name, child in attention.named_children():
            self.add_module(name, child)
        like = cast(Any, attention)
        self.relative_position_bias_table = like.relative_position_bias_table
        self.register_buffer(
            "relative_position_index", like.relative_position_index, persistent=False
        )
        self.heads = like.num_heads
        self.normed = HookSlot()
        self.attended = HookSlot()

    def bias(self, mask: Tensor | None, prompts: int) -> Tensor:
        """Return what is added to the scores: `(1 or windows, heads, P + T, P + T)`, zero where prompts take part."""
        index = cast(Tensor, self.relative_position_index)
        table = cast(Tensor, self.relative_position_bias_table)[index.flatten()]
        bias = table.view(*index.shape, -1).permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias + mask[:, None]
        return F.pad(bias, (prompts, 0, prompts, 0))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B * windows, T, C)` to the same; mask: `(windows, T, T)` or None."""
        layers = cast(Any, self)
        prompts = self.normed.pop()
        images, count, _ = prompts.shape
        windows = len(x) // images
        x = torch.cat([prompts.repeat_interleave(windows, 0), x], dim=1)
        q, k, v = layers.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias(mask, count)
        bias = bias.repeat(len(x) // len(bias), 1, 1, 1).to(q.dtype)
        rate = layers.attn_drop.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate)
        y = layers.proj_drop(layers.proj(y.transpose(1, 2).flatten(2)))
        if self.keep:
            self.attended[:] = [y[:, :count].unflatten(0, (images, windows)).mean(1)]
        rest: Tensor = y[:, count:]
        return rest


class Carrier(nn.Module):
    """What the prompts of a Swin are on their way through it, beside the patches: `(B, P, C)`."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = HookSlot()

    def enter(self, block: Any, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook of a block: take its own prompts, if it has some, and give them to its attention."""
        if hasattr(block, "prompts"):
            self.prompts[:] = [block.prompts(len(inputs[0]))]
        if not self.prompts:
            raise RuntimeError(
                "Shallow prompts cannot be recomputed in a Swin: set_grad_checkpointing(False), or deep."
            )
        block.attn.normed[:] = [block.norm1(self.prompts[0])]

    def leave(self, block: Any, inputs: tuple[Any, ...], x: Tensor) -> None:
        """Forward hook of a block: carry the prompts past its two residual sums."""
        prompts = self.prompts[0] + block.drop_path1(block.attn.attended.pop())
        self.prompts[:] = [prompts + block.drop_path2(block.mlp(block.norm2(prompts)))]

    def merge_patches(self, layer: Any, inputs: tuple[Any, ...], x: Tensor) -> None:
        """Forward hook of patch merging: it reads four copies."""
        self.prompts[:] = [layer.reduction(layer.norm(self.prompts[0].repeat(1, 1, 4)))]

    def pool(self, norm: nn.Module, inputs: tuple[Any, ...], x: Tensor) -> Tensor:
        """Forward hook of the last norm, on `(B, H, W, C)`: the mean over places shall be one over prompts as well."""
        prompts = F.layer_norm(self.prompts.pop(), *affine(norm))
        places = x.shape[1] * x.shape[2]
        return (places * x + prompts.sum(1)[:, None, None]) / (places + prompts.shape[1])


def affine(norm: Any) -> tuple[Any, ...]:
    """Return the arguments of `F.layer_norm` that a norm layer holds."""
    return norm.normalized_shape, norm.weight, norm.bias, norm.eps


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    length: int = 5,
    deep: bool = True,
    place: str = "front",
    dropout: float = 0.0,
) -> Iterable[str]:
    """Insert `length` prompts before the first block and, if `deep`, new ones before each later block.

    length: the paper tunes 1 to 200 a task. place: `front`, behind the class token (VPT), or `end` (NOAH); in Swin the
    order means nothing. Raises ValueError on a length below 1.
    """
    choose(place, ("front", "end"), "place")
    if length < 1 or not 0 <= dropout < 1:
        raise ValueError(
            f"vpt.length came as {length}, dropout as {dropout}; allowed: 1 or more, 0 to below 1."
        )
    embedding: Any = model.get_submodule(sites[0].name)
    bound = math.sqrt(6 / (sites[0].inputs * math.prod(embedding.kernel_size) + sites[0].channels))
    widths = {branch.block: branch.channels for branch in branches(model)}
    prompts = {
        name: (length, width, embedding.weight, bound, dropout) for name, width in widths.items()
    }
    if not deep:
        prompts = dict(list(prompts.items())[:1])
    if family(model) == "Swin":
        prompt_windows(model, list(widths), prompts)
        return []
    before = None if place == "end" else cast(int, cast(Any, model).num_prefix_tokens)
    for i, (name, settings) in enumerate(prompts.items()):
        block = model.get_submodule(name)
        block.add_module("prompts", Sequence(*settings, before=before, replace=i > 0))
        block.register_forward_pre_hook(cast(Any, block).prompts.enter)
    return []


def prompt_windows(model: Any, blocks: list[str], prompts: dict[str, tuple[Any, ...]]) -> None:
    """Make the blocks of a Swin take prompts along; those in `prompts` get their own."""
    carrier = Carrier()
    for name in blocks:
        block: Any = model.get_submodule(name)
        if name in prompts:
            block.add_module("prompts", Prompts(*prompts[name]))
        keep = len(prompts) == 1 or name == blocks[-1]  # elsewhere the next block brings new ones
        block.attn = Windows(block.attn, keep)
        block.register_forward_pre_hook(carrier.enter)
        if keep:
            block.register_forward_hook(carrier.leave)
    for layer in model.layers:
        if len(prompts) == 1 and not isinstance(layer.downsample, nn.Identity):
            layer.downsample.register_forward_hook(carrier.merge_patches)
    model.norm.register_forward_hook(carrier.pool)
