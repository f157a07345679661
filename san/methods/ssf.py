"""SSF: scale and shift the features after every operation (Lian et al., NeurIPS 2022).

    y = scale * f(x) + shift        per channel, after the patch embedding, each norm, and each linear (before its
                                    activation); scale ~ N(1, std), shift ~ N(0, std)

Sites and initial values as in dongzelian/SSF at e94e0e7, models/vision_transformer.py. Trainable on ViT-B/16 without
the head: 205,824. It does not start at the pre-trained function, unless std is 0. Merges exactly.
"""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site
from san.scaled import scaled


def attach(model: nn.Module, sites: tuple[Site, ...], *, std: float = 0.02) -> Iterable[str]:
    """Scale and shift the output of every site. std: spread of the initial values (paper: 0.02)."""
    for site in sites:
        layer = scaled(model.get_submodule(site.name), shift=True)
        assert layer.shift is not None
        nn.init.normal_(layer.scale, 1.0, std)
        nn.init.normal_(layer.shift, 0.0, std)
        model.set_submodule(site.name, layer)
    return [f"{site.name}.{part}" for site in sites for part in ("scale", "shift")]
