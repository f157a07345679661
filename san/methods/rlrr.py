"""RLRR: rescale each weight by rows and columns, and add that to it (Dong et al., CVPR 2024).

    y = (W + diag(row) W diag(column)) x + b + shift      that is W[o, i] (1 + row[o] column[i])

on every linear and convolution after the embedding, and SSF's scale and shift after the embedding
and every norm. row is uniform up to sqrt(6), column up to sqrt(6 / inputs), so that their product
is small; shifts are zero; SSF's as in SSF. Queries, keys and values have a column each in ViT, one
for all in Swin, as in zstarN70/RLRR at 287c772, models/networks.py and swin.py. In ConvNeXt, for
which it has no code, this is our reading. `dropout` is its ViT's; in its Swin whole paths are
dropped, as timm's `drop_path` does. Its optimizer also decays the scale and shift of the patches.

Beside SAN's `propagation=untied`, diag(s) W diag(r): there the pre-trained weight is changed, here
a changed copy is added to it.

Trainable on ViT-B/16 without the head: 288,768. It does not start at the pre-trained function,
unless `zero_rows` and an `init_std` of 0 are asked for. Merges exactly. A step takes the gradient
of the dense weight, one product: that of a row is not to be seen in what the layer writes, and to
compute what it multiplies would take a product for rows and one for columns.
"""

import math
from collections.abc import Iterable
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site, branches, family
from san.layers.scaled import ScaledConv2d, scale_layer
from san.layers.scaled_op import fold_bias
from san.layers.shared_linear import SharedLinear, with_parameters
from san.schema import DropoutRate, NonNegativeFloat


class RescaledLinear(SharedLinear):
    """An `nn.Linear` whose weight is rescaled by rows and columns; it shares those of `base`.

    slices: of its outputs, with a column each. row: `(O, 1)`; column: `(slices, I)`; shift: `(O,)`.
    Rows and columns are matrices, which decay, as with the authors. dropout: of single outputs.
    """

    def __init__(self, base: nn.Linear, slices: int, dropout: float) -> None:
        super().__init__(base)
        self.slices = slices
        self.row = nn.Parameter(base.weight.new_empty(base.out_features, 1))
        self.column = nn.Parameter(base.weight.new_empty(slices, base.in_features))
        self.shift = nn.Parameter(base.weight.new_zeros(base.out_features))
        self.dropout = nn.Dropout(dropout)

    def rescaled(self) -> Tensor:
        """Return W' `(O, I)`."""
        row = self.row.view(self.slices, -1, 1)
        factor = 1 + row * self.column[:, None]
        return self.weight * factor.view_as(self.weight)

    def shifted_bias(self) -> Tensor | None:
        """Return b + shift `(O,)`."""
        return fold_bias(self.bias, None, self.shift)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        y: Tensor = self.dropout(F.linear(x, self.rescaled(), self.shifted_bias()))
        return y

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        return self.to_linear(self.rescaled(), self.shifted_bias())


class RescaledConv2d(ScaledConv2d):
    """An `nn.Conv2d` whose weight is rescaled by outputs and inputs; it shares those of `base`.

    row: `(O, 1)`; column: `(1, I)`; shift: `(O,)`. dropout: of single outputs.
    """

    def __init__(self, base: nn.Conv2d, dropout: float) -> None:
        super().__init__(base, scale=False, shift=True)
        self.row = nn.Parameter(base.weight.new_empty(base.out_channels, 1))
        self.column = nn.Parameter(base.weight.new_empty(1, base.in_channels))
        self.dropout = nn.Dropout(dropout)

    def rescaled(self) -> Tensor:
        """Return W' `(O, I / groups, H, W)`; each group of outputs reads its own inputs."""
        by_group = self.column.view(self.groups, -1)
        by_output = by_group.repeat_interleave(self.out_channels // self.groups, 0)
        factor = 1 + self.row * by_output
        return self.weight * factor[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """`(N, I, H, W)` to `(N, O, H', W')`."""
        bias = fold_bias(self.bias, None, self.shift)
        y: Tensor = self.dropout(F.conv2d(x, self.rescaled(), bias, *self.geometry()))
        return y

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        plain = super().merged()
        return with_parameters(plain, self.rescaled(), fold_bias(self.bias, None, self.shift))


Rescaled = RescaledLinear | RescaledConv2d


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    split_qkv: bool | None = None,
    zero_rows: bool = False,
    init_std: NonNegativeFloat = 0.02,
    dropout: DropoutRate = 0.0,
) -> Iterable[str]:
    """Rescale every linear and convolution after the embedding; scale and shift the rest.

    split_qkv: a column each for queries, keys and values; None: in ViT, not in Swin. zero_rows:
    start at the pre-trained weights, which the authors do not. init_std: of SSF's scales, shifts.
    dropout: of what the last block adds to the stream; from none in the first it grows evenly.
    """
    if split_qkv is None:
        split_qkv = family(model) != "Swin"
    rates = _dropout_rates(model, dropout)
    for site in sites:
        base = model.get_submodule(site.name)
        layer: nn.Module
        if site.kind == "stream":
            continue
        if site.kind == "norm" or site.part == "embedding":
            scaled = scale_layer(base, shift=True, axis=site.axis)
            scale, shift = scaled.scale_and_shift()
            nn.init.normal_(scale, 1.0, init_std)
            nn.init.normal_(shift, 0.0, init_std)
            layer = scaled
        else:
            slices = 3 if split_qkv and site.name.endswith("attn.qkv") else 1
            layer = _rescale(base, slices, rates.get(site.name, 0.0), zero_rows)
        model.set_submodule(site.name, layer)
    return []


def _dropout_rates(model: nn.Module, highest: float) -> dict[str, float]:
    """Return the rate of each layer that ends a branch, by its name."""
    blocks = list(dict.fromkeys(branch.block for branch in branches(model)))
    rates = {}
    for i, block in enumerate(blocks):
        rate = highest * i / max(len(blocks) - 1, 1)
        rates[f"{block}.attn.proj"] = rate
        rates[f"{block}.mlp.fc2"] = rate
    return rates


def _rescale(base: nn.Module, slices: int, dropout: float, zero_rows: bool) -> Rescaled:
    """Return the rescaled form of a linear or convolution, with its initial values."""
    layer: Rescaled
    if isinstance(base, nn.Linear):
        layer = RescaledLinear(base, slices, dropout)
        inputs = base.in_features
    else:
        layer = RescaledConv2d(cast(nn.Conv2d, base), dropout)
        inputs = layer.in_channels
    row_bound = 0.0 if zero_rows else math.sqrt(6)
    nn.init.uniform_(layer.row, -row_bound, row_bound)
    nn.init.uniform_(layer.column, -math.sqrt(6 / inputs), math.sqrt(6 / inputs))
    return layer
