"""Augmented batches: drawn from seeds alone, by timm, mixed as timm mixes."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed
from PIL import Image
from torch import Tensor
from torchvision import transforms

from san.data.augment import NO_AUGMENTATION, Augment, seeded
from san.data.batches import Batches
from san.data.preprocess import NORMALIZE, Preprocess
from san.data.split import Images, Split
from san.errors import SanError

CONFIGS = ("none", "vpt", "ssf_fgvc", "ssf")
HALF = NORMALIZE["inception"]


def from_file(name: str) -> Augment:
    config = composed(f"augment={name}")["augment"]
    config.pop("name")
    return Augment(**config)


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def load_passes(
    augment: Augment, num_workers: int = 0, seed: int = 0, passes: int = 2
) -> list[tuple[Tensor, Tensor]]:
    """Return the batches (4, 4 and 2 images) of some passes over ten images."""
    images = np.random.default_rng(0).integers(0, 256, (10, 40, 48, 3)).astype(np.uint8)
    split = Split(
        parts=(Images(images),),
        labels=np.arange(10) % 3,
        ids=[str(i) for i in range(10)],
        fingerprint="f",
        sources=({"made_by": "a test"},),
    )
    batches = Batches.for_training(
        split,
        batch_size=4,
        preprocess=Preprocess("crop_256", "inception"),
        image_size=28,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(seed),
        augment=augment,
        classes=3,
        num_workers=num_workers,
    )
    return [batch for _ in range(passes) for batch in batches]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_images_whatever_the_number_of_workers(name: str) -> None:
    augment = from_file(name)
    alone = load_passes(augment)
    by_workers = load_passes(augment, num_workers=2)
    other_seed = load_passes(augment, seed=1)
    assert len(alone) == 6
    for (images, labels), (same_images, same_labels) in zip(alone, by_workers, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
        assert images.shape[1:] == (3, 28, 28)
        assert images.dtype == torch.float32
    pairs = zip(alone, other_seed, strict=True)
    assert not all(torch.equal(images, other) for (images, _), (other, _) in pairs)
    if augment != NO_AUGMENTATION:
        first_pass = alone[0][0]
        second_pass = alone[3][0]
        assert not torch.equal(first_pass, second_pass)


def seed_all_and_draw(between: Augment | None = None) -> tuple[float, float, float]:
    """Seed everything, load batches in between, and draw a number from each generator."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    if between is not None:
        assert len(load_passes(between, passes=1)) == 3
    return random.random(), np.random.random(), torch.rand(1).item()


@pytest.mark.parametrize("name", CONFIGS)
def test_augmentation_leaves_the_random_states_of_the_run_alone(name: str) -> None:
    assert seed_all_and_draw(from_file(name)) == seed_all_and_draw()


def test_vpt_s_augmentation_is_resize_crop_flip() -> None:
    image = picture(60, 80)
    chain = transforms.Compose(
        [
            transforms.Resize(32),
            transforms.RandomCrop(28),
            transforms.RandomHorizontalFlip(0.5),
        ]
    )
    ours = from_file("vpt").transform(28, HALF)
    for seed in range(6):
        with seeded(seed):
            pixels = torch.from_numpy(np.array(chain(image)))
        with seeded(seed):
            found = ours(image)
        expected = pixels.permute(2, 0, 1) / 255 * 2 - 1
        assert torch.allclose(found, expected, atol=1e-6)


def step_names(name: str) -> list[str]:
    steps: Any = from_file(name).transform(28, HALF)
    return [type(step).__name__ for step in steps.transforms]


def test_timm_s_recipe_has_the_steps_of_ssf() -> None:
    steps = step_names("ssf")
    assert steps[:3] == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment"]
    assert steps[-2:] == ["Normalize", "RandomErasing"]
    simple = step_names("ssf_fgvc")
    assert simple[:2] == steps[:2]
    assert "RandAugment" not in simple
    assert "ColorJitter" not in simple


def test_auto_augment_never_fails() -> None:
    """Nor at its strongest, where timm posterizes to 0 bits."""
    image = picture(40, 48)
    transform = from_file("ssf").transform(28, HALF)
    for seed in range(400):
        with seeded(seed):
            assert torch.isfinite(transform(image)).all()


def test_mixing_is_linear_in_images_and_labels_and_odd_batches_are_left_alone() -> None:
    augment = Augment(mixup=0.8)
    images = torch.rand(6, 3, 4, 4)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    mixed, soft = augment.mix(images.clone(), labels, 3, seed=5)
    assert torch.allclose(soft.sum(1), torch.ones(6))
    weight = soft[0, 0].item()  # of image 0, whose partner is image 5
    assert 0 < weight < 1
    assert torch.allclose(mixed[0], weight * images[0] + (1 - weight) * images[5], atol=1e-6)
    odd, hard = augment.mix(images[:5].clone(), labels[:5], 3, seed=5)
    assert torch.equal(odd, images[:5])
    assert torch.equal(hard, torch.nn.functional.one_hot(labels[:5], 3).float())


def test_smoothing_in_the_loss_is_timm_s_smoothing_in_the_mixing() -> None:
    from timm.data.mixup import Mixup

    logits = torch.randn(6, 3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    mixup = Mixup(0.8, 0.0, label_smoothing=0.1, num_classes=3)
    with seeded(5):
        _, theirs = mixup(torch.rand(6, 3, 4, 4), labels)
    expected = torch.sum(-theirs * torch.log_softmax(logits, 1), 1).mean()
    _, soft = Augment(mixup=0.8).mix(torch.rand(6, 3, 4, 4), labels, 3, seed=5)
    ours = torch.nn.functional.cross_entropy(logits, soft, label_smoothing=0.1)
    assert torch.allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": "centre"}, "Unknown augment.crop 'centre'.* Allowed: none, random, resized"),
        ({"crop": "resized", "mixup": -1}, "augment.mixup came as -1; allowed: .*>= 0"),
        ({"crop": "resized", "cutmix": float("inf")}, "augment.cutmix came as inf; .* finite"),
        ({"crop": "resized", "flip": "often"}, "augment.flip came as 'often'; allowed: .*float"),
        ({"crop": "resized", "flip": True}, "augment.flip came as True; allowed: .*float"),
        ({"crop": "resized", "flip": 5}, "augment.flip came as 5; allowed: .*<= 1"),
        ({"crop": "resized", "auto_augment": 9}, "augment.auto_augment came as 9; allowed: .*str"),
        ({"flip": 0.5}, "augment.crop=none takes images as they are"),
        ({"crop": "random", "random_erasing": 0.2}, "augment.crop=random is crop and flip"),
    ],
)
def test_impossible_augmentation_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SanError, match=message):
        Augment(**settings)


def test_every_configuration_is_tested() -> None:
    folder = Path(__file__).parents[2] / "configs/augment"
    assert {path.stem for path in folder.glob("*.yaml")} == set(CONFIGS)
