"""The program that pre-trains vit_nano: its images, and that it runs and writes what it says."""

import sys
from pathlib import Path

import pytest
import torch
import vit_nano
from scenes import GLYPHS, HEADS, IGNORE, alphabet, glyph_masks, scenes


def scene(seed: int, hardness: float = 1.0):
    g = torch.Generator().manual_seed(seed)
    classes = alphabet(0)
    masks, centres = glyph_masks(classes.curves, hardness, g)
    return scenes(classes, (255 * masks).byte(), centres, torch.arange(64), hardness, g)


def test_scenes_depend_on_the_seed_alone() -> None:
    images, labels, layers = scene(1)
    again, _, _ = scene(1)
    other, _, _ = scene(2)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert images.shape == (64, 3, 32, 32)
    assert images.abs().max() <= 1
    assert layers.shape == (64, 3, 32, 32)
    assert 0 <= layers.min() <= layers.max() <= 1
    assert set(labels) == set(HEADS)
    for name, label in labels.items():
        known = label[label != IGNORE]
        assert len(known) > 0
        assert 0 <= known.min() <= known.max() < HEADS[name]


def test_easy_scenes_hold_one_glyph_on_a_plain_ground() -> None:
    _, labels, layers = scene(1, hardness=0.0)
    assert (labels["shape"] == IGNORE).all()
    assert (labels["texture"] == IGNORE).all()
    assert layers[:, 1:].abs().max() == 0
    assert labels["glyph"].tolist() == list(range(64))
    assert HEADS["glyph"] == GLYPHS


def test_the_program_runs_and_writes_weights_and_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vit_nano, "POOL", 2)
    monkeypatch.setattr(vit_nano, "VALIDATION", 256)
    monkeypatch.setattr(
        sys, "argv", ["vit_nano.py", "--images", "128", "--batch", "64", "--out", str(tmp_path)]
    )
    vit_nano.main()
    assert (tmp_path / "vit_nano.safetensors").stat().st_size > 1e6
    card = (tmp_path / "vit_nano.md").read_text()
    assert "--images 128" in card
    assert "glyph" in card
