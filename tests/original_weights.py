"""Weights in the format of the Vision Transformer authors."""

from pathlib import Path

import numpy as np
from torch import nn


def as_npz(model: nn.Module, path: Path, prefix: str = "", logits: bool = False) -> None:
    """Write a ViT as its authors do (google-research/vision_transformer)."""
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    width = model.embed_dim
    heads = model.blocks[0].attn.num_heads
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    if logits:
        arrays["pre_logits/kernel"] = np.zeros((width, width), np.float32)
    for i in range(len(model.blocks)):
        block = f"Transformer/encoderblock_{i}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        qkv = state[f"blocks.{i}.attn.qkv.weight"].reshape(3, heads, width // heads, width)
        biases = state[f"blocks.{i}.attn.qkv.bias"].reshape(3, heads, width // heads)
        for part, kernel, bias in zip(("query", "key", "value"), qkv, biases, strict=True):
            arrays[f"{attention}/{part}/kernel"] = kernel.transpose(2, 0, 1)
            arrays[f"{attention}/{part}/bias"] = bias
        proj = state[f"blocks.{i}.attn.proj.weight"].T
        arrays[f"{attention}/out/kernel"] = proj.reshape(heads, width // heads, width)
        arrays[f"{attention}/out/bias"] = state[f"blocks.{i}.attn.proj.bias"]
        for ours, theirs in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{block}/{theirs}/scale"] = state[f"blocks.{i}.{ours}.weight"]
            arrays[f"{block}/{theirs}/bias"] = state[f"blocks.{i}.{ours}.bias"]
        for j in range(2):
            dense = f"{block}/MlpBlock_3/Dense_{j}"
            arrays[f"{dense}/kernel"] = state[f"blocks.{i}.mlp.fc{j + 1}.weight"].T
            arrays[f"{dense}/bias"] = state[f"blocks.{i}.mlp.fc{j + 1}.bias"]
    np.savez(path, **{prefix + name: array for name, array in arrays.items()})
