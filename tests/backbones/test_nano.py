"""The program that pre-trains vit_nano: its images, and that it runs and writes what it should."""

import sys
from pathlib import Path

import pytest
import torch
import vit_nano
from glyphs import GLYPHS, draw_glyphs, make_alphabet
from safetensors.torch import load_file
from scenes import HEADS, IGNORE, Scenes, compose_scenes


def draw_scenes(seed: int, hardness: float = 1.0) -> Scenes:
    g = torch.Generator().manual_seed(seed)
    alphabet = make_alphabet(0)
    drawings = draw_glyphs(alphabet, hardness, g)
    return compose_scenes(alphabet, drawings, torch.arange(64), hardness, g)


def test_scenes_depend_on_the_seed_alone() -> None:
    scenes = draw_scenes(1)
    assert torch.equal(scenes.images, draw_scenes(1).images)
    assert not torch.equal(scenes.images, draw_scenes(2).images)
    assert scenes.images.shape == (64, 3, 32, 32)
    assert scenes.images.abs().max() <= 1
    assert scenes.layers.shape == (64, 3, 32, 32)
    assert 0 <= scenes.layers.min() <= scenes.layers.max() <= 1
    assert set(scenes.labels) == set(HEADS)
    for name, labels in scenes.labels.items():
        known = labels[labels != IGNORE]
        assert len(known) > 0
        assert 0 <= known.min() <= known.max() < HEADS[name]


def test_easy_scenes_hold_one_glyph_on_a_plain_ground() -> None:
    scenes = draw_scenes(1, hardness=0.0)
    assert (scenes.labels["shape"] == IGNORE).all()
    assert (scenes.labels["texture"] == IGNORE).all()
    glyph, solid, texture = scenes.layers.unbind(1)
    assert glyph.max() > 0
    assert solid.max() == texture.max() == 0
    assert scenes.labels["glyph"].tolist() == list(range(64))
    assert HEADS["glyph"] == GLYPHS


def test_the_program_runs_and_writes_weights_and_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vit_nano, "DRAWINGS_PER_GLYPH", 2)
    monkeypatch.setattr(vit_nano, "VALIDATION_SCENES", 256)
    arguments = ["--images", "128", "--batch", "64", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["vit_nano.py", *arguments])
    vit_nano.main()
    written = load_file(tmp_path / "vit_nano.safetensors")
    shipped = load_file(Path(vit_nano.__file__).parents[2] / "san/weights/vit_nano.safetensors")
    assert written.keys() == shipped.keys()
    for name, tensor in written.items():
        assert tensor.shape == shipped[name].shape, name
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    card = (tmp_path / "vit_nano.md").read_text()
    assert "--images 128" in card
    assert "glyph" in card
