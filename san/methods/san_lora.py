"""SAN on low-rank updates: LoRA's or DoRA's, under scales that are propagated.

The paper (Dai et al., ICML 2025) reports SAN with LoRA and DoRA; its formulas are not public and
the authors' code has neither. This is our reading:

    y = s * (c * (W + scale * B A) (p * x) + b)      s, p: as in SAN, tied;
                                                     B A: as in LoRA, on `targets` alone

`san_lora` adds the scale to the low-rank update: c = 1. `san_dora` takes it out of the update, as
DoRA its magnitude m = s |W|: c = |W| / |W + scale * B A|, by rows and constant for the gradient, so
that s is the whole change of a row's length and B A that of its direction alone. Every linear and
convolution is scaled, as in SAN; a p that LoRA's A reads, too, reaches it like the weight. Norm
layers stay frozen, as in LoRA.

Trainable on ViT-B/16 without the head, rank 8 on q and v: 294,912 of the updates and 83,712 scales.
Both start at the pre-trained function and merge exactly.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, cast

from torch import Tensor, nn

from san.backbones import Site
from san.layers.low_rank import (
    FAMILY_DEFAULTS,
    LowRankConfig,
    LowRankLinear,
    find_targets,
    incompatibility,
    scaling,
)
from san.layers.propagation import propagate
from san.layers.scaled import Scaled, scale_layer
from san.layers.scaled_op import fold_bias, fold_weight
from san.methods import norm_parameters
from san.schema import DropoutRate, PositiveInt

PRESETS = {"san_lora": {}, "san_dora": {"directional": True}}
__all__ = ["FAMILY_DEFAULTS", "attach", "incompatibility"]


class ScaledLowRankLinear(LowRankLinear):
    """A low-rank updated `nn.Linear` under an output scale and the propagated input scale `pre`."""

    def __init__(
        self,
        base: nn.Linear,
        starts: Sequence[int],
        size: int,
        update: LowRankConfig,
        directional: bool,
        pre: nn.Module | None,
    ) -> None:
        super().__init__(base, starts, size, update)
        self.directional = directional
        self.pre = pre
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))

    def input_scale(self) -> Tensor | None:
        """Return p `(I,)`, None for ones."""
        return None if self.pre is None else self.pre()

    def gain(self) -> tuple[Tensor, Tensor | None]:
        """Return s * c `(O,)`, and the bias that under this factor is s * b."""
        if not self.directional:
            return self.scale, self.bias
        before, after = self.row_norms()
        gain = self.scale * (before / after)
        bias = None if self.bias is None else self.bias * (after / before)
        return gain, bias

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        gain, bias = self.gain()
        return self.compute(x, bias, gain, input_scale=self.input_scale())

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        gain, bias = self.gain()
        weight = fold_weight(self.updated_weight(), gain, self.input_scale())
        return self.to_linear(weight, fold_bias(bias, gain, None))


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    directional: bool = False,
    rank: PositiveInt = 8,
    scale: float = 1.0,
    alpha: float | None = None,
    dropout: DropoutRate = 0.0,
    dropout_at: Literal["between", "input"] = "between",
    targets: tuple[str, ...] = ("q", "v"),
    qkv_anterior: Literal["patch", "preceding"] = "patch",
    proj_anterior: Literal["none", "v", "qkv"] = "none",
    train_norms: bool = False,
) -> Iterable[str]:
    """Scale every linear and convolution, propagate, and update `targets`.

    directional: c of `san_dora`. rank to targets: as in `lora`. qkv_anterior, proj_anterior,
    train_norms: as in `san`.
    """
    update = LowRankConfig(rank, scaling(rank, scale, alpha), dropout, dropout_at)
    updated_rows = find_targets(sites, targets)
    layers: dict[str, Scaled | ScaledLowRankLinear] = {}
    scales: dict[str, nn.Parameter] = {}
    for site in sites:
        if site.kind not in ("linear", "conv"):
            continue
        base = model.get_submodule(site.name)
        pre = propagate(site, scales, qkv_anterior, proj_anterior)
        layer: Scaled | ScaledLowRankLinear
        if site.name in updated_rows:
            starts, size = updated_rows[site.name]
            linear = cast(nn.Linear, base)
            layer = ScaledLowRankLinear(linear, starts, size, update, directional, pre)
        else:
            layer = scale_layer(base, input_scale=pre)
        layers[site.name] = layer
        scales[site.name] = cast(nn.Parameter, layer.scale)
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return norm_parameters(model, sites) if train_norms else []
