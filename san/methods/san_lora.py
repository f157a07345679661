"""SAN on low-rank updates: the scale of what LoRA or DoRA adapts is propagated to the weight that reads it next.

The paper (Dai et al., ICML 2025) reports SAN with LoRA and DoRA; its formulas are not public and the authors' code has
neither. This is our reading:

    y = s * (c * (W + scale * B A) (p * x) + b)      s, p: as in SAN, tied; B A: as in LoRA, on `targets` alone

`san_lora` adds the scale to the low-rank update: c = 1. `san_dora` takes it out of the update, as DoRA its magnitude
m = s |W|: c = |W| / |W + scale * B A|, by rows and constant for the gradient, so that s is the whole change of a row's
length and B A that of its direction alone. Every linear and convolution is scaled, as in SAN; a p that LoRA's A reads,
too, reaches it like the weight. Norm layers stay frozen, as in LoRA.

Trainable on ViT-B/16 without the head, rank 8 on q and v: 294,912 of the updates and 83,712 scales. Both start at the
pre-trained function and merge exactly.
"""

from collections.abc import Iterable, Sequence
from typing import cast

from torch import Tensor, nn

from san.backbones import Site
from san.layers.low_rank import LowRankConfig, LowRankLinear, find_targets, incompatibility, scaling
from san.layers.propagation import PropagatedScale, check_anteriors, propagate
from san.layers.scaled import Scaled, scale_layer, with_parameters
from san.layers.scaled_op import fold_bias, fold_weight
from san.methods import norm_parameters

PRESETS = {"san_lora": {}, "san_dora": {"directional": True}}
__all__ = ["attach", "incompatibility"]


class ScaledLowRankLinear(LowRankLinear):
    """A low-rank updated `nn.Linear` under an output scale and the propagated scale of its inputs."""

    def __init__(
        self,
        base: nn.Linear,
        place: tuple[Sequence[int], int],
        update: LowRankConfig,
        directional: bool,
        pre: PropagatedScale | None,
    ) -> None:
        super().__init__(base, *place, update)
        self.directional, self.pre = directional, pre
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))

    def gain(self) -> tuple[Tensor, Tensor | None]:
        """Return s * c `(O,)`, and the bias that under this factor is s * b."""
        if not self.directional:
            return self.scale, self.bias
        before, after = self.row_norms()
        gain = self.scale * (before / after)
        return gain, None if self.bias is None else self.bias * (after / before)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        gain, bias = self.gain()
        return self.compute(x, bias, gain, input_scale=None if self.pre is None else self.pre())

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        gain, bias = self.gain()
        weight = fold_weight(self.updated_weight(), gain, None if self.pre is None else self.pre())
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        return with_parameters(plain, weight, fold_bias(bias, gain, None))


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    directional: bool = False,
    rank: int = 8,
    scale: float = 1.0,
    alpha: float | None = None,
    dropout: float = 0.0,
    dropout_at: str = "between",
    targets: tuple[str, ...] = ("q", "v"),
    qkv_anterior: str = "patch",
    proj_anterior: str = "none",
    norms: bool = False,
) -> Iterable[str]:
    """Scale every linear and convolution, propagate, and update `targets`.

    directional: c of `san_dora`. rank to targets: as in `lora`. qkv_anterior, proj_anterior, norms: as in `san`.
    """
    check_anteriors(qkv_anterior, proj_anterior)
    update = LowRankConfig(rank, scaling(rank, scale, alpha), dropout, dropout_at)
    places = find_targets(sites, targets)
    layers: dict[str, Scaled | ScaledLowRankLinear] = {}
    scales: dict[str, nn.Parameter] = {}
    for site in sites:
        if site.kind not in ("linear", "conv"):
            continue
        base, pre = (
            model.get_submodule(site.name),
            propagate(site, scales, qkv_anterior, proj_anterior),
        )
        if site.name in places:
            linear = cast(nn.Linear, base)
            layers[site.name] = ScaledLowRankLinear(
                linear, places[site.name], update, directional, pre
            )
        else:
            layers[site.name] = scale_layer(base, input_scale=pre)
        scales[site.name] = cast(nn.Parameter, layers[site.name].scale)
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return norm_parameters(model, sites) if norms else []
