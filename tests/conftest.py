"""Small things that several tests use."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from timm.layers import SwiGLUPacked
from timm.models import ConvNeXt, SwinTransformer, VisionTransformer

from san import compose
from san.record import Point, Record

compose.register_tasks()


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
    """What DINOv2 adds to a ViT: layer scale, registers without position, a gated MLP; and norms of q and k."""
    return tiny_vit(
        classes,
        init_values=0.5,
        reg_tokens=2,
        no_embed_class=True,
        mlp_layer=SwiGLUPacked,
        mlp_ratio=2,
        qk_norm=True,
    )


def tiny_swin(classes: int = 10) -> SwinTransformer:
    """Two stages of two blocks, 16 and 32 wide, shifted windows of 4, on 32 px images."""
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=32, patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4, num_classes=classes,
        drop_path_rate=0.0,
    )  # fmt: skip


def tiny_convnext(classes: int = 10, **options: Any) -> ConvNeXt:
    """Four stages, 8 to 24 wide, on images of 32 px or more."""
    torch.manual_seed(0)
    return ConvNeXt(
        depths=(1, 1, 2, 2), dims=(8, 12, 16, 24), num_classes=classes, ls_init_value=0.5, **options
    )


def composed(*overrides: str) -> dict[str, Any]:
    """Compose the real configuration, resolved, as plain dicts."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(compose.CONFIGS), version_base="1.3"):
        return OmegaConf.to_container(
            hydra_compose("train", overrides=list(overrides)), resolve=True
        )


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the demo suite is prepared once for all tests."""
    return tmp_path_factory.mktemp("data")


def a_record(**changes: Any) -> Record:
    """A record that is done: 900 of 1000, unless told otherwise."""
    fields: dict[str, Any] = {
        "id": "0123456789ab", "suite": "demo", "task": "digits", "method": "san", "backbone": "vit_nano",
        "protocol": "last_epoch", "variant": "", "seed": 0, "selected_on": "last", "evaluated_on": "test",
        "status": "done", "config": {"precision": "fp32"}, "weights": "w", "data": {"train": "a", "evaluate": "b"}, "code": {},
        "versions": {}, "device": {}, "created": "2026-01-01T00:00:00+00:00",
        "last": Point(5, 900, 1000), "best": Point(4, 910, 1000),
        "params": {"method": 90, "norm": 10, "head": 20, "trainable": 120, "total": 1000, "percent": 10.0},
        "seconds": {"fit": 1.0, "step": 0.1},
    }  # fmt: skip
    fields |= changes
    if fields["status"] != "done":
        fields |= {"last": None, "best": None, "params": {}, "seconds": {}}
    return Record(**fields)
