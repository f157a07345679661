"""SSF: scale and shift the features after every operation (Lian et al., NeurIPS 2022).

    y = scale * f(x) + shift        per channel, after the patch embedding, each norm, and each
                                    linear or convolution (before its activation);
                                    scale ~ N(1, init_std), shift ~ N(0, init_std)

Sites and initial values as in dongzelian/SSF at e94e0e7, models/. There downsampling (Swin's patch
merging, ConvNeXt's) has none: its code would make some, but compares a list with the string 'ssf'.
In ConvNeXt the last one stands on the stream before pooling. Trainable without the head: ViT-B/16
205,824, Swin-B 267,264, ConvNeXt-B 255,232. It starts near the pre-trained function, at it if
init_std is 0. Merges exactly.
"""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site
from san.layers.scaled import Scaled, ScaledStream, scale_layer
from san.schema import NonNegativeFloat


def attach(
    model: nn.Module, sites: tuple[Site, ...], *, init_std: NonNegativeFloat = 0.02
) -> Iterable[str]:
    """Scale and shift the output of every site outside downsampling. init_std: paper 0.02."""
    like = next(model.parameters())
    layers: dict[str, Scaled | ScaledStream] = {}
    for site in sites:
        if site.part == "downsampling":
            continue
        if site.kind == "stream":
            layers[site.name] = ScaledStream(site.channels, site.axis, like)
        else:
            base = model.get_submodule(site.name)
            layers[site.name] = scale_layer(base, shift=True, axis=site.axis)
    for name, layer in layers.items():
        scale, shift = layer.scale_and_shift()
        nn.init.normal_(scale, 1.0, init_std)
        nn.init.normal_(shift, 0.0, init_std)
        model.set_submodule(name, layer)
    return []
