"""SAN: scale the features and propagate the scale to the weight that reads them next (Dai et al., ICML 2025).

    y = s * (W (p * x) + b) + t     s: trained, ones at the start; p: the anterior site's s, tied or recalibrated;
                                    t: absent, or trained (zeros at the start) where `shift` asks for it

The authors' arms (daviddaiiiii/SAN-PEFT at 8856ecb, train_code/): `san` is their SAN_base, with s after the patch
embedding, qkv, proj, fc1 and fc2, and p tied to the patch embedding's s on every qkv, proj's on fc1, fc1's on fc2;
`san_neurons` is SAN_nt_only in its mode nt (p = 1); `san_recalibrated` is SAN_resize_smooth (p = r * s, r trained, and
proj fed from qkv's s, interpolated). Norm layers train. Their code is for ViT; `san.layers.propagation` has the
wiring of all backbones.

Trainable on ViT-B/16 without the head: san and san_neurons 83,712 scales and 38,400 of the norms, san_recalibrated
64,512 more. All start at the pre-trained function and merge exactly. The authors' count of 177,408 for the first two
includes 55,296 that never receive a gradient.
"""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site
from san.errors import choose
from san.layers.propagation import check_anteriors, propagate
from san.layers.scaled import Scaled, scale_layer
from san.methods import norm_parameters

PRESETS = {
    "san": {},
    "san_neurons": {"propagation": "off"},
    "san_recalibrated": {"propagation": "recalibrated", "proj_anterior": "qkv"},
}


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    propagation: str = "tied",
    qkv_anterior: str = "patch",
    proj_anterior: str = "none",
    neurons: bool = True,
    norms: bool = True,
    shift: bool = False,
) -> Iterable[str]:
    """Scale every linear and convolution and propagate.

    propagation: `off` (p = 1), `tied` (p = anterior s) or `recalibrated` (p = r * anterior s, r trained).
    qkv_anterior: what feeds the first weight of a block, the `patch` embedding of its stage (authors' code) or the
    `preceding` operation (the paper's words). proj_anterior: what feeds proj, `none` (SAN_base), `v`, its own channels
    of qkv, or `qkv`, interpolated to a third (SAN_resize_smooth). neurons: False leaves s at 1 but after the patch
    embedding, and trains p alone (their mode sp). norms: train the norm layers. shift: add t.
    """
    choose(propagation, ("off", "tied", "recalibrated"), "propagation")
    check_anteriors(qkv_anterior, proj_anterior)
    if not neurons and (propagation == "off" or shift):
        raise ValueError(
            "neurons=False trains p alone; allowed: propagation tied or recalibrated, shift off."
        )
    layers: dict[str, Scaled] = {}
    scales: dict[str, nn.Parameter] = {}
    for site in sites:
        if site.kind not in ("linear", "conv"):
            continue
        recalibrate = propagation == "recalibrated"
        pre = (
            propagate(site, scales, qkv_anterior, proj_anterior, recalibrate)
            if propagation != "off"
            else None
        )
        layer = scale_layer(
            model.get_submodule(site.name), neurons or site.part == "embedding", shift, pre
        )
        layers[site.name] = layer
        scales[site.name] = layer.scale if layer.scale is not None else layer.new_scale()
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return norm_parameters(model, sites) if norms else []
