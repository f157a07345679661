"""Backbones: stock timm models (`families`), their weights (`load`), their named sites (`sites`).

Besides augmentation only this package knows timm.
"""

from san.backbones.families import (
    backbone_tag,
    classifier_name,
    family,
    family_of_name,
    head_name,
    input_size,
)
from san.backbones.load import (
    Backbone,
    as_bytes,
    build_backbone,
    file_sha256,
    weights_hash,
)
from san.backbones.sites import Branch, Site, branches, sites

__all__ = [
    "Backbone",
    "Branch",
    "Site",
    "as_bytes",
    "backbone_tag",
    "branches",
    "build_backbone",
    "classifier_name",
    "family",
    "family_of_name",
    "file_sha256",
    "head_name",
    "input_size",
    "sites",
    "weights_hash",
]
