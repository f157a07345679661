"""Convpass: a convolution in a bottleneck beside attention and MLP (Jie & Deng, arXiv 2207.07039).

    a = norm1(x)    x' = x + attn(a) + scale * C1(a)
    b = norm2(x')   x' + mlp(b) + scale * C2(b)         placement attention: C1 alone

    C(t) = up drop(act(conv(act(down t))))      act: x * sigmoid(1.702 x);
                                                conv: 3 x 3 with padding 1, on the map of patches;
                                                down Xavier-uniform, conv the identity or
                                                Xavier-uniform, up and all biases zero

A class or register token is a map of its own, 1 x 1, so that of the same convolution it meets the
centre alone. In Swin the map is the whole image, not a window. As in JieShibo/PETL-ViT at 026e4f1,
convpass/vtab/convpass.py, a bypass sees the block's drop-path with draws of its own; it sees no
LayerScale, which that code does not have. Trainable on ViT-B/16 without the head at bottleneck_dim
8: 327,552, beside attention alone 163,776. It starts at the pre-trained function, and cannot be
merged: the bypass is not linear.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site, branches, family
from san.errors import UnsupportedModelError
from san.layers.bottleneck import quick_gelu
from san.layers.hook_slot import HookSlot
from san.schema import DropoutRate, PositiveInt

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "convpass": {},
    "convpass_attn": {"placement": "attention"},
}


def incompatibility(family: str, options: Mapping[str, Any]) -> str | None:
    """Refuse ConvNeXt."""
    if family != "ConvNeXt":
        return None
    return "its blocks are convolutions themselves, with no attention to put one beside"


class PatchGrid:
    """Rows and columns of the patches in the forward pass that runs; all bypasses share it."""

    def __init__(self) -> None:
        self.size = (0, 0)

    def after_embedding(self, conv: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
        """Forward hook of a ViT's patch embedding, which returns `(B, C, H, W)`."""
        self.size = (y.shape[2], y.shape[3])

    def before_block(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook of a Swin's block, which reads `(B, H, W, C)`."""
        self.size = (inputs[0].shape[1], inputs[0].shape[2])


@dataclass(frozen=True)
class BypassConfig:
    """Settings of all bypasses of a model.

    prefix_tokens: those before the patches. like: type and device.
    """

    bottleneck_dim: int
    scale: float
    init: str
    dropout: float
    prefix_tokens: int
    like: Tensor


class ConvBypass(nn.Module):
    """What reads the output of a branch's norm and is added to that of the branch."""

    def __init__(self, channels: int, config: BypassConfig, grid: PatchGrid) -> None:
        super().__init__()
        dtype = config.like.dtype
        device = config.like.device
        width = config.bottleneck_dim
        self.scale = config.scale
        self.prefix_tokens = config.prefix_tokens
        self.grid = grid
        self.read = HookSlot()  # the output of the norm, until the branch ends
        self.down = nn.Linear(channels, width, dtype=dtype, device=device)
        self.conv = nn.Conv2d(width, width, 3, padding=1, dtype=dtype, device=device)
        self.up = nn.Linear(width, channels, dtype=dtype, device=device)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.xavier_uniform_(self.down.weight)
        if config.init == "identity":
            nn.init.dirac_(self.conv.weight)
        else:
            nn.init.xavier_uniform_(self.conv.weight)
        for zero in (self.down.bias, self.conv.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(cast(Tensor, zero))

    def after_norm(self, norm: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
        """Forward hook of a branch's entry: remember what the branch reads."""
        self.read.put(y)

    def at_exit(self, branch_exit: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> Tensor:
        """Forward hook of a branch's exit, its drop-path or an identity: add the bypass."""
        # Not by a call, which would run this hook again.
        bypass = branch_exit.forward(self(self.read.take()))
        return torch.add(y, bypass, alpha=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)`, or `(B, H, W, C)` in Swin, to the same."""
        low = quick_gelu(self.down(x.flatten(1, -2)))
        mixed = quick_gelu(self.convolve(low))
        y: Tensor = self.up(self.dropout(mixed))
        return y.view(x.shape)

    def convolve(self, x: Tensor) -> Tensor:
        """Convolve the map of patches and each 1 x 1 map of another token: `(B, N, width)`."""
        patches = x[:, self.prefix_tokens :].reshape(len(x), *self.grid.size, x.shape[-1])
        convolved = self.conv(patches.movedim(-1, 1))
        tokens: Tensor = convolved.flatten(2).transpose(1, 2)
        if self.prefix_tokens == 0:
            return tokens
        centre = self.conv.weight[:, :, 1, 1]
        prefix = F.linear(x[:, : self.prefix_tokens], centre, self.conv.bias)
        return torch.cat([prefix, tokens], dim=1)


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    placement: Literal["both", "attention"] = "both",
    bottleneck_dim: PositiveInt = 8,
    scale: float = 1.0,
    init: Literal["identity", "xavier"] = "identity",
    dropout: DropoutRate = 0.1,
) -> Iterable[str]:
    """Add a bypass to every attention and, where `placement` is both, to every MLP.

    scale, init: of the convolution; the authors set both by task, scale from 0.01 to 100. dropout:
    before the way up. Raises UnsupportedModelError on a model that leaves out patches.
    """
    if not isinstance(getattr(model, "patch_drop", None), NoneType | nn.Identity):
        raise UnsupportedModelError(
            "'convpass' convolves the map of all patches; build this model with patch_drop_rate=0."
        )
    is_swin = family(model) == "Swin"
    prefix_tokens = 0 if is_swin else cast(Any, model).num_prefix_tokens
    like = next(model.parameters())
    config = BypassConfig(bottleneck_dim, scale, init, dropout, prefix_tokens, like)
    grid = PatchGrid()
    places = [b for b in branches(model) if placement == "both" or b.kind == "attention"]
    if is_swin:
        for name in dict.fromkeys(branch.block for branch in places):
            model.get_submodule(name).register_forward_pre_hook(grid.before_block)
    else:
        model.get_submodule(sites[0].name).register_forward_hook(grid.after_embedding)
    for branch in places:
        bypass = ConvBypass(branch.channels, config, grid)
        model.get_submodule(branch.block).add_module(f"convpass_{branch.kind}", bypass)
        model.get_submodule(branch.entry).register_forward_hook(bypass.after_norm)
        model.get_submodule(branch.exit).register_forward_hook(bypass.at_exit)
    return []
