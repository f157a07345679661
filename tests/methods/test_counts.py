"""Counts and names at full size, of all official implementations, also those without oracle files.

tests/oracles/counts_base.json: the trained parameters of each of them at ViT-B/16, Swin-B or
ConvNeXt-B with 100 classes, as {name pattern: [tensors, numbers]}.
"""

import copy
import json
import re
from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import Any

import pytest
import timm
import torch
import yaml
from test_oracles import FOLDER
from torch import nn

import san

BASE = json.loads((FOLDER / "counts_base.json").read_text())
OURS = yaml.safe_load((FOLDER / "ours.yaml").read_text())
BLOCK = re.compile(r"(?:\w+\.(\d+)\.)?blocks\.(\d+)\.")
VIT = "vit_base_patch16_224"
SWIN = "swin_base_patch4_window7_224"


@cache
def stock(architecture: str) -> nn.Module:
    """A model of full size without values: names and shapes are all that counts."""
    with torch.device("meta"):
        return timm.create_model(architecture, num_classes=100)


def attached(method: str, architecture: str = VIT, **options: Any) -> san.Adapter:
    model = copy.deepcopy(stock(architecture))
    with torch.device("meta"):
        return san.attach(model, method, **options)


def architecture(name: str) -> str:
    """The timm name of the backbone of an official implementation, by a word of its name."""
    words = name.split("_")
    if "swin" in words:
        return SWIN
    return "convnext_base" if "convnext" in words else VIT


def entry(name: str) -> dict:
    """The entry of an official implementation, in its first mode."""
    ours = OURS[name] | next(iter(OURS[name].get("modes", {}).values()), {})
    return ours | {"options": ours.get("options", {}) | ours.get("base", {})}


def spelled_out(pattern: str, model: nn.Module) -> list[str]:
    """The names that a pattern stands for, with the model's blocks in the place of stars.

    One star in the name of a model that has stages is a stage.
    """
    found = [BLOCK.match(name) for name, _ in model.named_parameters()]
    blocks = {match.groups() for match in found if match is not None}
    if pattern.count("*") == 2:
        return [pattern.replace("*", stage, 1).replace("*", block, 1) for stage, block in blocks]
    if "*" in pattern:
        return [pattern.replace("*", stage or block) for stage, block in blocks]
    return [pattern]


def ours_of(name: str, parameters: Iterable[str]) -> set[str]:
    """Our parameters that a name of a rule stands for; where it has a star, those of all blocks."""
    plain = name.partition("[")[0]
    if "*" not in plain:
        return {plain}
    before, after = re.split(r"\*0?", plain)
    pattern = re.compile(rf"{re.escape(before)}\d+{re.escape(after)}")
    found = {parameter for parameter in parameters if pattern.fullmatch(parameter)}
    assert found
    return found


def test_all_are_known() -> None:
    assert len(BASE) == 52
    assert BASE.keys() <= OURS.keys()
    without = {"adaptformer", "ssf_convnext_fixed", "vpt_swin_shallow_persample"}
    assert OURS.keys() - BASE.keys() == without


@pytest.mark.parametrize("name", BASE)
def test_counts_and_names_at_full_size(name: str) -> None:
    official = BASE[name]
    ours = entry(name)
    adapter = attached(ours["method"], architecture(name), **ours["options"])
    dead_pattern = ours.get("dead", r"\Z.")
    dead = {pattern for pattern in official["names"] if re.search(dead_pattern, pattern)}
    dead_numbers = sum(official["names"][pattern][1] for pattern in dead)
    trained = adapter.counts.trainable - adapter.counts.head
    assert trained == official["trainable_without_head"] - dead_numbers
    assert adapter.counts.head == official["head"]
    parameters = dict(adapter.model.named_parameters())
    mapped: set[str] = set()
    for pattern, rule in product(official["names"].keys() - dead, ours.get("names", [])):
        tensors, _ = official["names"][pattern]
        places = spelled_out(pattern, adapter.model)
        if "step" in ours:
            places = [pattern.replace("*", str(ours["step"] * i)) for i in range(tensors)]
        for theirs in places:
            mine, changes = re.subn(*rule, theirs)
            if changes:
                mapped |= ours_of(mine, parameters)
    assert mapped - parameters.keys() == set()
    assert adapter.added <= mapped


# Without an official count: the closed formulas of the docstrings.
@pytest.mark.parametrize(
    ("method", "options", "method_count", "norm_count"),
    [
        ("norm", {}, 0, 38_400),
        ("partial", {}, 7_084_800, 4_608),
        ("adapter", {"placement": "houlsby"}, 2 * 156_768, 0),
        ("adapter_plus", {}, 165_984, 0),
        ("dora", {}, 294_912 + 18_432, 0),
        ("san", {}, 83_712, 38_400),
        ("san", {"shift": True}, 2 * 83_712, 38_400),
        ("san_recalibrated", {}, 83_712 + 64_512, 38_400),
        ("san_lora", {}, 294_912 + 83_712, 0),
        ("san_dora", {}, 294_912 + 83_712, 0),
    ],
)
def test_counts_by_formula(method: str, options: dict, method_count: int, norm_count: int) -> None:
    counts = attached(method, **options).counts
    assert (counts.method, counts.norm, counts.head) == (method_count, norm_count, 76_900)
    assert counts.percent == pytest.approx(100 * (method_count + norm_count) / 85_798_656)


def test_prompts_in_swin_b() -> None:
    assert attached("vpt_shallow", SWIN).counts.method == 640
    assert attached("vpt_deep", SWIN).counts.method == 60_160
