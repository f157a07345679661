"""SAN: scale the features and propagate the scale to the weight that reads them next (Dai et al., ICML 2025).

    y = s * (W (p * x) + b)         s: trained, ones at the start; p: the s of the anterior site, the same tensor

The authors' `base` arm (daviddaiiiii/SAN-PEFT at 8856ecb, train_code/SAN_base.py): s after the patch embedding, qkv,
proj, fc1 and fc2; p on fc1 from proj and on fc2 from fc1, whatever lies between; p on every qkv from the patch
embedding; none on proj, which reads a third of qkv's channels. Norm layers train.

Trainable on ViT-B/16 without the head: 83,712 scales and 38,400 of the norms. It starts at the pre-trained function
and merges exactly. The authors' count of 177,408 includes 55,296 that never receive a gradient.
"""

from collections.abc import Iterable
from typing import Literal

from torch import nn

from san.backbones import Site
from san.methods import norm_parameters
from san.scaled import Scales, scaled


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    propagation: bool = True,
    qkv_anterior: Literal["patch", "preceding"] = "patch",
    norms: bool = True,
) -> Iterable[str]:
    """Scale every site but the norms and propagate.

    propagation: False leaves p at 1 (the authors' `neurons only`). qkv_anterior: what feeds the first linear of a
    block, the `patch` embedding (authors' code) or the `preceding` operation (the paper's words). norms: train the
    weights and biases of the norm layers (authors' code: yes).
    """
    if qkv_anterior not in ("patch", "preceding"):
        raise ValueError(f"qkv_anterior came as '{qkv_anterior}'; allowed: patch, preceding.")
    operations = [site for site in sites if site.kind != "norm"]
    first = operations[0].name
    for site in operations:
        reads_stream = site.name.endswith("attn.qkv")
        anterior = first if reads_stream and qkv_anterior == "patch" else site.anterior
        source = model.get_submodule(anterior) if propagation and anterior else None
        # An anterior of another width (qkv before proj) has no scale for each of this layer's inputs.
        pre = source.scale if isinstance(source, Scales) and len(source.scale) == site.inputs else None
        model.set_submodule(site.name, scaled(model.get_submodule(site.name), pre=pre))
    return {f"{site.name}.scale" for site in operations} | (norm_parameters(sites) if norms else set())
