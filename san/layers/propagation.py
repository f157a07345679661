"""Propagation: the scale of a feature as the weight that reads it next sees it (SAN, Dai et al., ICML 2025).

    p = r * view(s)      s: the anterior site's scale; view: its channels in the order of the posterior's inputs;
                         r: ones at the start, trained where the propagation is recalibrated, else absent

Which site is anterior to which (`san.backbones.Site.anterior`, `reads`, `stage_input`):

| posterior                          | anterior                                     | view of its scale              |
|:-----------------------------------|:---------------------------------------------|:-------------------------------|
| ViT, Swin: qkv                     | the embedding of the stage (`patch`), or     | as it is                       |
|                                    | what wrote to the stream last (`preceding`)  |                                |
| ViT, Swin: proj                    | none; qkv; or `v`, the values in qkv         | interpolated 3C to C; the third |
| ViT, Swin: fc1                     | proj                                         | as it is                       |
| all: fc2                           | fc1; in a gated MLP the half that is no gate | as it is                       |
| Swin: reduction of patch merging   | the last fc2 of the stage before             | four times over                |
| ConvNeXt: conv_dw                  | as qkv                                       | as it is                       |
| ConvNeXt: fc1                      | conv_dw                                      | as it is                       |
| ConvNeXt: convolution of downsample| the last fc2 of the stage before             | as it is                       |

Norms, residual sums, activations, attention, layer scale and pooling in between keep the channels and are ignored. The
embedding of a stage is the patch embedding or stem in the first and the reduction or convolution of the downsampling in
the others.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site
from san.errors import choose

QKV_ANTERIORS = ("patch", "preceding")
PROJ_ANTERIORS = ("none", "v", "qkv")


class PropagatedScale(nn.Module):
    """Gives p `(inputs,)` from the anterior site's scale `(channels,)`, which may be shared with that site."""

    def __init__(
        self, scale: nn.Parameter, site: Site, recalibrate: bool, interpolate: bool
    ) -> None:
        super().__init__()
        self.scale, self.inputs, self.interpolate = scale, site.inputs, interpolate
        start, stop = site.reads
        self.part = None if stop - start == len(scale) else slice(start, stop)
        self.times = site.inputs // (stop - start)
        ones = torch.ones(site.inputs, dtype=scale.dtype, device=scale.device)
        self.recalibration = nn.Parameter(ones) if recalibrate else None

    def forward(self) -> Tensor:
        """Return p."""
        if self.interpolate:
            view = F.interpolate(
                self.scale.view(1, 1, -1), self.inputs, mode="linear", align_corners=True
            ).flatten()
        else:
            view = self.scale if self.part is None else self.scale[self.part]
            view = view if self.times == 1 else view.repeat(self.times)
        return view if self.recalibration is None else self.recalibration * view


def check_anteriors(qkv_anterior: str, proj_anterior: str) -> None:
    """Raise LookupError on a choice that does not exist."""
    choose(qkv_anterior, QKV_ANTERIORS, "qkv_anterior")
    choose(proj_anterior, PROJ_ANTERIORS, "proj_anterior")


def propagate(
    site: Site,
    scales: Mapping[str, nn.Parameter],
    qkv_anterior: str,
    proj_anterior: str,
    recalibrate: bool = False,
) -> PropagatedScale | None:
    """Return what gives p at a site, from the scales of the sites before it by name; None where nothing reaches it."""
    if site.stage_input is not None and qkv_anterior == "patch":
        return PropagatedScale(scales[site.stage_input], site, recalibrate, interpolate=False)
    reads_attention = site.name.endswith("attn.proj")
    if site.anterior is None or (reads_attention and proj_anterior == "none"):
        return None
    return PropagatedScale(
        scales[site.anterior], site, recalibrate, reads_attention and proj_anterior == "qkv"
    )
