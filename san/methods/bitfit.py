"""BitFit: the biases train, and nothing else (Ben Zaken et al., ACL 2022).

Which ones as in KMnP/vpt at 4410440 (transfer type `tinytl-bias`): every parameter of the backbone
with `bias` in its name, also those of the norm layers and of the patch embedding, and Swin's tables
of relative position biases. Trainable on ViT-B/16 without the head: 102,912. Merges: there is
nothing to fold.
"""

from collections.abc import Iterable

from torch import nn

from san.backbones import Site
from san.layers.scaled import ConvWithTrainedBias, is_plain_conv


def attach(model: nn.Module, sites: tuple[Site, ...]) -> Iterable[str]:
    """Add no parameter, train every bias; convolutions then spare the gradient of their weight."""
    for site in sites:
        layer = model.get_submodule(site.name)
        if is_plain_conv(layer) and layer.bias is not None:
            model.set_submodule(site.name, ConvWithTrainedBias(layer))
    return [name for name, _ in model.named_parameters() if "bias" in name.rpartition(".")[-1]]
