"""Prompts in the windows of a Swin: they take part in every window's attention, with the patches.

As KMnP/vpt at 4410440, src/models/vit_prompt/swin_transformer.py: the prompts join each window
without position bias or mask; their outputs are averaged over the windows; patch merging reads four
copies of them; and they are pooled with the patches at the end. That code pairs windows and images
in different orders, so that in a batch the prompts of one image reach another's windows; here they
stay with their image, as they do there in a batch of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.errors import InvalidValueError
from san.layers.hook_slot import HookSlot

Inputs = tuple[Any, ...]  # of a module, as a hook gets them


class PromptedWindowAttention(nn.Module):
    """A Swin block's attention with the prompts in each window.

    Its layers, and their names, are those of `attention`. normed: `(B, P, C)`, the block's prompts
    after its norm, put there before the attention is called; attended: the output of the attention
    for them, averaged over the windows, in the same shape, where `keep` asks for it.
    """

    qkv: nn.Module
    proj: nn.Module
    attn_drop: nn.Dropout
    proj_drop: nn.Module
    relative_position_bias_table: nn.Parameter
    relative_position_index: Tensor

    def __init__(self, attention: nn.Module, keep: bool) -> None:
        super().__init__()
        stock: Any = attention
        self.keep = keep
        for name, child in attention.named_children():
            self.add_module(name, child)
        self.relative_position_bias_table = stock.relative_position_bias_table
        index = stock.relative_position_index
        self.register_buffer("relative_position_index", index, persistent=False)
        self.num_heads = stock.num_heads
        self.normed = HookSlot()
        self.attended = HookSlot()

    def bias(self, mask: Tensor | None, num_prompts: int) -> Tensor:
        """Return the bias of the scores: `(1 or windows, heads, P + T, P + T)`, zero for prompts.

        mask: `(windows, T, T)` or None.
        """
        index = self.relative_position_index
        table = self.relative_position_bias_table[index.flatten()]
        by_pair = table.view(*index.shape, -1)
        bias = by_pair.permute(2, 0, 1).unsqueeze(0)
        if mask is not None:
            bias = bias + mask.unsqueeze(1)
        return F.pad(bias, (num_prompts, 0, num_prompts, 0))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B * windows, T, C)` to the same; mask: `(windows, T, T)` or None."""
        prompts = self.normed.take()
        images, num_prompts, _ = prompts.shape
        windows = len(x) // images
        in_windows = prompts.repeat_interleave(windows, dim=0)
        y = self._attend(torch.cat([in_windows, x], dim=1), mask, num_prompts)
        own, patches = y.tensor_split([num_prompts], dim=1)
        if self.keep:
            by_image = own.reshape(images, windows, *own.shape[1:])
            self.attended.put(by_image.mean(1))
        return patches

    def _attend(self, x: Tensor, mask: Tensor | None, num_prompts: int) -> Tensor:
        """Attention among prompts and patches, `(B * windows, P + T, C)` to the same."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias(mask, num_prompts)
        repeats = len(x) // len(bias)  # the windows of all images, or all of one kind
        bias = bias.repeat(repeats, 1, 1, 1).to(q.dtype)
        rate = self.attn_drop.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate)
        projected: Tensor = self.proj_drop(self.proj(y.transpose(1, 2).flatten(2)))
        return projected


class SwinPromptState(nn.Module):
    """The prompts on their way through a Swin, beside the patches: `(B, P, C)`."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = HookSlot()

    def pre_block(self, block: Any, inputs: Inputs) -> None:
        """Forward pre-hook of a block: give its attention the block's own prompts or the last."""
        if hasattr(block, "prompts"):
            batch_size = len(inputs[0])
            self.prompts.put(block.prompts(batch_size))
        if self.prompts.is_empty:
            raise InvalidValueError(
                "Shallow prompts cannot be recomputed in a Swin: call set_grad_checkpointing(False)"
                " or use deep prompts."
            )
        normed = block.norm1(self.prompts.peek())
        block.attn.normed.put(normed)

    def post_block(self, block: Any, inputs: Inputs, x: Tensor) -> None:
        """Forward hook of a block: carry the prompts past its two residual sums."""
        attended = block.attn.attended.take()
        prompts = self.prompts.peek() + block.drop_path1(attended)
        mlp_output = block.mlp(block.norm2(prompts))
        self.prompts.put(prompts + block.drop_path2(mlp_output))

    def merge_patches(self, layer: Any, inputs: Inputs, x: Tensor) -> None:
        """Forward hook of patch merging: give it four copies in the place of four patches."""
        copies = self.prompts.peek().repeat(1, 1, 4)
        normed = layer.norm(copies)
        self.prompts.put(layer.reduction(normed))

    def pool(self, norm: nn.Module, inputs: Inputs, x: Tensor) -> Tensor:
        """Forward hook of the last norm: make pooling, the mean over places, count the prompts too.

        x: `(B, H, W, C)` to the same shape, with the mean of all patches and prompts.
        """
        prompts = F.layer_norm(self.prompts.take(), *_layer_norm_args(norm))
        _, height, width, _ = x.shape
        places = height * width
        _, num_prompts, _ = prompts.shape
        sum_of_prompts = prompts.sum(dim=1).unsqueeze(1).unsqueeze(1)
        total = places * x + sum_of_prompts
        return total / (places + num_prompts)


def _layer_norm_args(norm: Any) -> Inputs:
    """Return the arguments of `F.layer_norm` that a norm layer holds."""
    return norm.normalized_shape, norm.weight, norm.bias, norm.eps


def prompt_windows(model: Any, blocks: Sequence[str], prompts: Mapping[str, nn.Module]) -> None:
    """Make the blocks of a Swin, in order of computation, take prompts along.

    prompts: by name of the block, modules that give `(B, P, C)` for a batch size B. Blocks without
    prompts of their own take those of the block before.
    """
    state = SwinPromptState()
    shallow = len(prompts) == 1
    for name in blocks:
        block: Any = model.get_submodule(name)
        if name in prompts:
            block.add_module("prompts", prompts[name])
        keep = shallow or name == blocks[-1]  # elsewhere the next block brings new ones
        block.attn = PromptedWindowAttention(block.attn, keep)
        block.register_forward_pre_hook(state.pre_block)
        if keep:
            block.register_forward_hook(state.post_block)
    for layer in model.layers:
        downsample = layer.downsample
        if shallow and not isinstance(downsample, nn.Identity):
            downsample.register_forward_hook(state.merge_patches)
    model.norm.register_forward_hook(state.pool)
