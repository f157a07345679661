"""SAN: scale the features and propagate the scale to the weight that reads them next.

    y = s * (W (p * x) + b) + t     s: trained, ones or N(1, init_std) at the start; p: the anterior
                                    site's s, tied or recalibrated, or a trained scale of its own,
                                    untied; t: absent, or trained (zeros at the start) where `shift`
                                    asks for it

Dai et al., ICML 2025. The authors' arms (daviddaiiiii/SAN-PEFT at 8856ecb, train_code/): `san` is
their SAN_base, with s after the patch embedding, qkv, proj, fc1 and fc2, and p tied to the patch
embedding's s on every qkv, proj's on fc1, fc1's on fc2; `san_neurons` is SAN_nt_only in its mode nt
(p = 1); `san_recalibrated` is SAN_resize_smooth (p = r * s, r trained, and proj fed from qkv's s,
interpolated). Norm layers train. Their code is for ViT; `san.layers.propagation` has the wiring of
all backbones. `untied` is no arm of theirs: with s it is diag(s) W diag(r), `san_recalibrated` with
the tie to the anterior s removed.

Trainable on ViT-B/16 without the head: san and san_neurons 83,712 scales and 38,400 of the norms,
san_recalibrated 64,512 more. All start at the pre-trained function (near it, where init_std is not
0) and merge exactly. The authors' count of 177,408 for the first two includes 55,296 that never
receive a gradient.
"""

from collections.abc import Iterable
from typing import Literal, cast

from torch import nn

from san.backbones import Site
from san.errors import InvalidValueError
from san.layers.propagation import Propagation, propagate
from san.layers.scaled import ScaledConv2d, ScaledLinear, scale_layer
from san.layers.writers import read_from
from san.methods import norm_parameters
from san.schema import NonNegativeFloat

PRESETS = {
    "san": {},
    "san_neurons": {"propagation": "off"},
    "san_recalibrated": {"propagation": "recalibrated", "proj_anterior": "qkv"},
}


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    propagation: Propagation = "tied",
    qkv_anterior: Literal["patch", "preceding"] = "patch",
    proj_anterior: Literal["none", "v", "qkv"] = "none",
    train_output_scale: bool = True,
    train_norms: bool = True,
    shift: bool = False,
    init_std: NonNegativeFloat = 0.0,
) -> Iterable[str]:
    """Scale every linear and convolution and propagate.

    propagation: `off` (p = 1), `tied` (p = anterior s), `recalibrated` (p = r * anterior s, r
    trained) or `untied` (p = r). qkv_anterior: the site that feeds the first weight of a block, the
    `patch` embedding of its stage (authors' code) or the `preceding` operation (the paper's words).
    proj_anterior: the one that feeds proj: `none` (SAN_base), `v`, its own channels of qkv, or
    `qkv`, interpolated to a third (SAN_resize_smooth); untied, proj has an r unless it is `none`.
    train_output_scale: False leaves s at 1 everywhere but after the patch embedding, and trains p
    alone (their mode sp). train_norms: train the norm layers. shift: add t. init_std: spread of s
    at the start; r starts at ones. Raises InvalidValueError where options contradict each other.
    """
    _check_combination(propagation, qkv_anterior, train_output_scale, shift)
    layers: dict[str, nn.Module] = {}
    scales: dict[str, nn.Parameter] = {}
    for site in sites:
        if site.kind not in ("linear", "conv"):
            continue
        input_scale = propagate(site, scales, qkv_anterior, proj_anterior, propagation)
        has_scale = train_output_scale or site.part == "embedding"
        base = model.get_submodule(site.name)
        layer = cast(ScaledLinear | ScaledConv2d, scale_layer(base, has_scale, shift, input_scale))
        layers[site.name] = layer
        if input_scale is not None and site.writer is not None:
            writer = read_from(model.get_submodule(site.writer), layer)
            if writer is not None:
                layers[site.writer] = writer
        # A site without a scale of its own still gives the next one a new scale to read by.
        scales[site.name] = layer.scale if layer.scale is not None else layer.new_scale()
    for name, module in layers.items():
        model.set_submodule(name, module)
    if init_std > 0:  # a spread of 0 would draw numbers, too
        for scale in scales.values():
            nn.init.normal_(scale, 1.0, init_std)
    return norm_parameters(model, sites) if train_norms else []


def _check_combination(
    propagation: str, qkv_anterior: str, train_output_scale: bool, shift: bool
) -> None:
    """Raise InvalidValueError where nothing would be scaled, or an option would change nothing."""
    if not train_output_scale and (propagation == "off" or shift):
        raise InvalidValueError(
            "method.train_output_scale=false trains the scales of inputs alone; "
            "allowed: propagation tied, recalibrated or untied, shift false."
        )
    if propagation == "untied" and qkv_anterior != "patch":
        raise InvalidValueError(
            "method.propagation=untied reads no anterior scale, so that "
            f"method.qkv_anterior={qkv_anterior} would change nothing; allowed: patch."
        )
