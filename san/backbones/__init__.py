"""Backbones: stock timm models, their weights, and their named sites.

`families` says which models, `weights` where their files are, `pretrained` how these are loaded,
`npz` which originals fit, `load` makes one of a configuration, `frozen_prefix` cuts a model where
training begins, `parameter_groups` has what timm says of parameters to an optimizer, `buffers` what
else belongs to the state of a model.
Besides augmentation only this package knows timm.
"""

from san.backbones.buffers import persistent_buffers
from san.backbones.families import (
    backbone_tag,
    classifier_name,
    family,
    family_of_name,
    head_name,
    input_size,
)
from san.backbones.frozen_prefix import FrozenPrefix, frozen_prefix
from san.backbones.load import Backbone, build_backbone
from san.backbones.parameter_groups import layer_depths, undecayed_parameters
from san.backbones.pretrained import Pretrained
from san.backbones.sites import Branch, Site, branches, sites
from san.backbones.weights import as_bytes, file_sha256, weights_hash

__all__ = [
    "Backbone",
    "Branch",
    "FrozenPrefix",
    "Pretrained",
    "Site",
    "as_bytes",
    "backbone_tag",
    "branches",
    "build_backbone",
    "classifier_name",
    "family",
    "family_of_name",
    "file_sha256",
    "frozen_prefix",
    "head_name",
    "input_size",
    "layer_depths",
    "persistent_buffers",
    "sites",
    "undecayed_parameters",
    "weights_hash",
]
