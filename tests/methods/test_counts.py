"""Counts and names at full size, of all official implementations, also those without oracle files.

tests/oracles/counts_base.json: the trained parameters of each of them at ViT-B/16, Swin-B or
ConvNeXt-B with 100 classes, as {name pattern: [tensors, numbers]}.
"""

import copy
import json
import re
from functools import cache
from itertools import product

import pytest
import timm
import yaml
from test_oracles import FOLDER
from torch import nn

import san

BASE = json.loads((FOLDER / "counts_base.json").read_text())
OURS = yaml.safe_load((FOLDER / "ours.yaml").read_text())
BLOCK = re.compile(r"(?:\w+\.(\d+)\.)?blocks\.(\d+)\.")
ARCHITECTURES = {"_swin": "swin_base_patch4_window7_224", "_convnext": "convnext_base"}


@cache
def stock(architecture: str) -> nn.Module:
    return timm.create_model(architecture, num_classes=100)


def fresh(architecture: str = "vit_base_patch16_224") -> nn.Module:
    return copy.deepcopy(stock(architecture))


def architecture(name: str) -> str:
    """The timm name of the backbone of an official implementation: the end of its name says it."""
    found = [timm_name for end, timm_name in ARCHITECTURES.items() if name.endswith(end)]
    return found[0] if found else "vit_base_patch16_224"


def entry(name: str) -> dict:
    """The entry of an official implementation, in its first mode."""
    ours = OURS[name] | next(iter(OURS[name].get("modes", {}).values()), {})
    return ours | {"options": ours.get("options", {}) | ours.get("base", {})}


def spelled_out(pattern: str, model: nn.Module) -> list[str]:
    """The names that a pattern stands for, with the model's blocks in the place of stars."""
    found = [BLOCK.match(name) for name, _ in model.named_parameters()]
    blocks = {match.groups() for match in found if match is not None}
    if pattern.count("*") == 2:
        return [pattern.replace("*", stage, 1).replace("*", block, 1) for stage, block in blocks]
    if "*" in pattern:
        return [pattern.replace("*", block) for _, block in blocks]
    return [pattern]


def test_all_are_known() -> None:
    assert len(BASE) == 29
    assert BASE.keys() <= OURS.keys()
    assert OURS.keys() - BASE.keys() == {"adaptformer", "ssf_convnext_fixed"}


@pytest.mark.parametrize("name", BASE)
def test_counts_and_names_at_full_size(name: str) -> None:
    official = BASE[name]
    ours = entry(name)
    model = fresh(architecture(name))
    adapter = san.attach(model, ours["method"], **ours["options"])
    dead_pattern = ours.get("dead", r"\Z.")
    dead = {pattern for pattern in official["names"] if re.search(dead_pattern, pattern)}
    dead_numbers = sum(official["names"][pattern][1] for pattern in dead)
    trained = adapter.counts.trainable - adapter.counts.head
    assert trained == official["trainable_without_head"] - dead_numbers
    assert adapter.counts.head == official["head"]
    mapped: set[str] = set()
    for pattern, rule in product(official["names"].keys() - dead, ours.get("names", [])):
        for theirs in spelled_out(pattern, model):
            mine, changes = re.subn(*rule, theirs)
            if changes:
                name_of_ours = mine.partition("[")[0]
                mapped |= {name_of_ours.replace("*", str(i)) for i in range(12)}
    assert mapped - dict(adapter.model.named_parameters()).keys() == set()
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
    counts = san.attach(fresh(), method, **options).counts
    assert (counts.method, counts.norm, counts.head) == (method_count, norm_count, 76_900)
    assert counts.percent == pytest.approx(100 * (method_count + norm_count) / 85_798_656)


def test_prompts_in_swin_b() -> None:
    swin = "swin_base_patch4_window7_224"
    assert san.attach(fresh(swin), "vpt_shallow").counts.method == 640
    assert san.attach(fresh(swin), "vpt_deep").counts.method == 60_160
