"""Small things that several tests use."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

# Threads that wait for one another cost small tensors more than they give, above all on a machine
# that does other work. Set before torch is imported, and inherited by the programs under test.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from timm.layers import SwiGLUPacked
from timm.models import ConvNeXt, Eva, SwinTransformer, VisionTransformer

from san import compose
from san.counts import ParameterCounts
from san.record import DataSource, Record, Seconds, Status
from san.runtime.environment import CodeState, DeviceInfo
from san.score import EpochEntry, Score
from san.settings import RunConfig

compose.register()
RECIPE = {
    "epochs": 2,
    "batch_size": 4,
    "optimizer": "adamw",
    "lr": 1e-2,
    "weight_decay": 1e-2,
    "momentum": 0.9,
    "warmup_epochs": 1,
    "label_smoothing": 0.0,
    "precision": "fp32",
}


def tiny_vit(classes: int = 10, **options: Any) -> VisionTransformer:
    """Two blocks, 32 wide, on 16 px images."""
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=16,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=classes,
        **options,
    )


def tiny_dino(classes: int = 10) -> VisionTransformer:
    """What DINOv2 adds to a ViT: layer scale, registers, a gated MLP; and norms of q and k."""
    return tiny_vit(
        classes,
        init_values=0.5,
        reg_tokens=2,
        no_embed_class=True,
        mlp_layer=SwiGLUPacked,
        mlp_ratio=2,
        qk_norm=True,
    )


def tiny_eva(classes: int = 10) -> Eva:
    """A ViT as DINOv3 is: rotary positions, registers, layer scale, no bias of qkv."""
    torch.manual_seed(0)
    return Eva(
        img_size=16,
        patch_size=4,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=classes,
        qkv_bias=False,
        init_values=0.5,
        num_reg_tokens=2,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        rope_type="dinov3",
        rope_rotate_half=True,
        use_fc_norm=False,
        head_init_scale=5.0,  # not 0.001: gradients that float32 can add
    )


def tiny_swin(classes: int = 10) -> SwinTransformer:
    """Two stages of two blocks, 16 and 32 wide, shifted windows of 4, on 32 px images."""
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
        num_classes=classes,
        drop_path_rate=0.0,
    )


def tiny_convnext(classes: int = 10, **options: Any) -> ConvNeXt:
    """Four stages, 8 to 24 wide, on images of 32 px or more."""
    torch.manual_seed(0)
    return ConvNeXt(
        depths=(1, 1, 2, 2), dims=(8, 12, 16, 24), num_classes=classes, ls_init_value=0.5, **options
    )


def resolved(*overrides: str) -> RunConfig:
    """Compose the real configuration and its default, resolved, as plain dicts."""
    return compose.resolve(compose.compose_config(overrides))


def composed(*overrides: str) -> dict[str, Any]:
    """Compose the real configuration, resolved, as plain dicts."""
    return resolved(*overrides).config


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the demo suite is prepared once for all tests."""
    return tmp_path_factory.mktemp("data")


class Clock:
    """The monotonic clock of this process, as a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time, "monotonic", fake)
    return fake


def a_record(**changes: Any) -> Record:
    """A record that is done: 900 of 1000, unless told otherwise."""
    counts = ParameterCounts(method=90, norm=10, head=20, trainable=120, total=1000, percent=10.0)
    fields: dict[str, Any] = {
        "id": "0123456789ab",
        "suite": "demo",
        "task": "digits",
        "method": "san",
        "backbone": "vit_nano",
        "protocol": "last_epoch",
        "variant": "",
        "seed": 0,
        "selected_on": "last",
        "evaluated_on": "test",
        "status": Status.DONE,
        "config": {"precision": "fp32"},
        "weights": "w",
        "data": DataSource(train="a", evaluate="b"),
        "code": CodeState(),
        "versions": {},
        "device": DeviceInfo(),
        "created": "2026-01-01T00:00:00+00:00",
        "last": Score(5, 900, 1000),
        "best": Score(4, 910, 1000),
        "params": counts,
        "seconds": Seconds(fit=1.0, step=0.1),
    }
    fields |= changes
    if fields["status"] != Status.DONE:
        fields |= {"last": None, "best": None, "params": None, "seconds": None}
    elif "history" not in fields and fields["last"] and fields["best"]:
        scores = sorted({fields["best"], fields["last"]}, key=lambda score: score.epoch)
        fields["history"] = scores_alone(*scores)
    return Record(**fields)


def scores_alone(*scores: Score) -> list[EpochEntry]:
    """The history of a record of schema 1, which kept no losses."""
    return [EpochEntry(score.epoch, score=score) for score in scores]
