"""Backbones: stock timm models, their weights (`load`), their named sites (`sites`). Only this package knows timm."""

from san.backbones.families import (
    backbone_tag,
    classifier_name,
    family,
    family_of_name,
    head_name,
    input_size,
    input_size_of_name,
)
from san.backbones.load import (
    Backbone,
    as_bytes,
    build_backbone,
    file_sha256,
    find_weights,
    pretrained_normalization,
    weights_hash,
    weights_key,
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
    "find_weights",
    "head_name",
    "input_size",
    "input_size_of_name",
    "pretrained_normalization",
    "sites",
    "weights_hash",
    "weights_key",
]
