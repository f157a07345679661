"""Propagation: the scale of a feature as the weight that reads it next sees it.

SAN, Dai et al., ICML 2025:

    p = r * view(s)     s: the anterior site's scale; view: its channels in the order of the
                        posterior's inputs; r: ones at the start, trained where the propagation is
                        recalibrated, else absent
    p = r               where it is untied, at the same posteriors

Which site is anterior to which (`san.backbones.Site.anterior`, `reads`, `stage_input`):

| posterior                      | anterior                              | view of its scale      |
|:-------------------------------|:--------------------------------------|:-----------------------|
| ViT, Swin: qkv                 | `patch`: the embedding of the stage;  | as it is               |
|                                | `preceding`: the last site that wrote |                        |
|                                | to the stream                         |                        |
| ViT, Swin: proj                | none; qkv; or `v`, the values in qkv  | qkv: interpolated from |
|                                |                                       | 3C to C; v: its third  |
| ViT, Swin: fc1                 | proj                                  | as it is               |
| all: fc2                       | fc1; in a gated MLP the half of it    | as it is               |
|                                | that is not the gate                  |                        |
| Swin: reduction of downsample  | the last fc2 of the stage before      | four times over        |
| ConvNeXt: conv of downsample   | the last fc2 of the stage before      | as it is               |
| ConvNeXt: conv_dw              | as qkv                                | as it is               |
| ConvNeXt: fc1                  | conv_dw                               | as it is               |

Norms, residual sums, activations, attention, layer scale and pooling in between keep the channels
and are ignored. The embedding of a stage is the patch embedding or stem in the first and the
reduction or convolution of the downsampling in the others.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site

Propagation = Literal["off", "tied", "recalibrated", "untied"]
QkvAnterior = Literal["patch", "preceding"]
ProjAnterior = Literal["none", "v", "qkv"]


class PropagatedScale(nn.Module):
    """Gives p `(inputs,)` from the anterior site's scale `(channels,)`.

    The scale may be shared with that site. interpolate: view the scale by linear interpolation
    instead of by the channels that the site reads.
    """

    def __init__(
        self, scale: nn.Parameter, site: Site, recalibrate: bool, interpolate: bool
    ) -> None:
        super().__init__()
        start, stop = site.reads
        width = stop - start
        self.scale = scale
        self.inputs = site.inputs
        self.interpolate = interpolate
        self.reads = None if width == len(scale) else slice(start, stop)
        self.repeats = site.inputs // width
        ones = torch.ones(site.inputs, dtype=scale.dtype, device=scale.device)
        self.recalibration = nn.Parameter(ones) if recalibrate else None

    def forward(self) -> Tensor:
        """Return p."""
        view = self._interpolated() if self.interpolate else self._read_channels()
        return view if self.recalibration is None else self.recalibration * view

    def _interpolated(self) -> Tensor:
        batch = self.scale.view(1, 1, -1)
        resized = F.interpolate(batch, self.inputs, mode="linear", align_corners=True)
        return resized.flatten()

    def _read_channels(self) -> Tensor:
        scale: Tensor = self.scale
        if self.reads is not None:
            scale = scale[self.reads]
        return scale if self.repeats == 1 else scale.repeat(self.repeats)


class InputScale(nn.Module):
    """Gives p `(inputs,)`, trained and tied to no other site, ones at the start."""

    def __init__(self, inputs: int, like: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(inputs, dtype=like.dtype, device=like.device))

    def forward(self) -> Tensor:
        """Return p."""
        return self.scale


def propagate(
    site: Site,
    scales: Mapping[str, nn.Parameter],
    qkv_anterior: QkvAnterior,
    proj_anterior: ProjAnterior,
    propagation: Propagation = "tied",
) -> nn.Module | None:
    """Return the module that gives p at a site; None where there is none.

    scales: of the sites before it, by name. qkv_anterior: for every site that opens a block.
    """
    is_proj = site.name.endswith("attn.proj")
    anterior = site.anterior
    if site.stage_input is not None and qkv_anterior == "patch":
        anterior = site.stage_input
    if propagation == "off" or anterior is None or (is_proj and proj_anterior == "none"):
        return None
    if propagation == "untied":
        return InputScale(site.inputs, like=scales[anterior])
    interpolate = is_proj and proj_anterior == "qkv"
    return PropagatedScale(scales[anterior], site, propagation == "recalibrated", interpolate)
