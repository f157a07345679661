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
from san.data.batches import NORMALIZE, Batches, Preprocess
from san.data.split import Images, Split

CONFIGS = ("none", "vpt", "ssf_fgvc", "ssf")
CPU = torch.device("cpu")


def named(name: str) -> Augment:
    config = composed(f"augment={name}")["augment"]
    config.pop("name")
    return Augment(**config)


def batches(augment: Augment, workers: int = 0, count: int = 10, seed: int = 0) -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (count, 40, 48, 3)).astype(np.uint8)
    split = Split(
        (Images(images),),
        np.arange(count) % 3,
        list(map(str, range(count))),
        "f",
        ({"made_by": "a test"},),
    )
    order = torch.Generator().manual_seed(seed)
    return Batches(split, 4, Preprocess("crop_256", "half"), 28, CPU, order, augment, 3, workers)


def drawn(source: Batches, passes: int = 2) -> list[tuple[Tensor, Tensor]]:
    return [batch for _ in range(passes) for batch in source]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_images_whatever_the_number_of_workers(name: str) -> None:
    augment = named(name)
    alone, helped, other = (drawn(batches(augment, w, seed=s)) for w, s in ((0, 0), (2, 0), (0, 1)))
    assert len(alone) == 6
    for (a, y), (b, z) in zip(alone, helped, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(y, z)
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(alone, other, strict=True))
    assert all(x.shape[1:] == (3, 28, 28) and x.dtype == torch.float32 for x, _ in alone)
    if augment != NO_AUGMENTATION:
        first, second = alone[0][0], alone[3][0]
        assert not torch.equal(first, second)


@pytest.mark.parametrize("name", CONFIGS)
def test_drawing_leaves_the_random_states_of_the_run_alone(name: str) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    wanted = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    drawn(batches(named(name)), 1)
    assert (random.random(), np.random.random(), torch.rand(1).item()) == wanted


def test_vpt_s_chain_is_resize_crop_flip() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8))
    chain = transforms.Compose(
        [transforms.Resize(32), transforms.RandomCrop(28), transforms.RandomHorizontalFlip(0.5)]
    )
    ours = named("vpt").transform(28, NORMALIZE["half"])
    for seed in range(6):
        with seeded(seed):
            wanted = np.array(chain(image))
        with seeded(seed):
            found = ours(image)
        assert torch.allclose(
            found, torch.from_numpy(wanted).permute(2, 0, 1) / 255 * 2 - 1, atol=1e-6
        )


def test_timm_s_recipe_has_the_steps_of_ssf() -> None:
    steps = [
        type(step).__name__ for step in named("ssf").transform(28, NORMALIZE["half"]).transforms
    ]  # type: ignore[attr-defined]
    assert steps[:3] == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment"]
    assert steps[-2:] == ["Normalize", "RandomErasing"]
    simple = [
        type(step).__name__
        for step in named("ssf_fgvc").transform(28, NORMALIZE["half"]).transforms
    ]  # type: ignore[attr-defined]
    assert "RandAugment" not in simple
    assert "ColorJitter" not in simple


def test_the_policy_never_fails() -> None:
    """Nor at its strongest, where timm posterizes to 0 bits."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8))
    chain = named("ssf").transform(28, NORMALIZE["half"])
    for seed in range(400):
        with seeded(seed):
            assert torch.isfinite(chain(image)).all()


def test_mixing_is_linear_in_images_and_labels_and_odd_batches_are_left_alone() -> None:
    augment = Augment(mixup=0.8)
    images, labels = torch.rand(6, 3, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    mixed, soft = augment.mix(images.clone(), labels, 3, seed=5)
    assert torch.allclose(soft.sum(1), torch.ones(6))
    share = (soft[0, 0]).item()  # of image 0, whose partner is image 5
    assert 0 < share < 1
    assert torch.allclose(mixed[0], share * images[0] + (1 - share) * images[5], atol=1e-6)
    odd, hard = augment.mix(images[:5].clone(), labels[:5], 3, seed=5)
    assert torch.equal(odd, images[:5])
    assert torch.equal(hard, torch.nn.functional.one_hot(labels[:5], 3).float())


def test_smoothing_in_the_loss_is_timm_s_smoothing_in_the_mixing() -> None:
    from timm.data.mixup import Mixup

    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    with seeded(5):
        _, theirs = Mixup(0.8, 0.0, label_smoothing=0.1, num_classes=3)(
            torch.rand(6, 3, 4, 4), labels
        )
    wanted = torch.sum(-theirs * torch.log_softmax(logits, 1), 1).mean()
    _, soft = Augment(mixup=0.8).mix(torch.rand(6, 3, 4, 4), labels, 3, seed=5)
    ours = torch.nn.functional.cross_entropy(logits, soft, label_smoothing=0.1)
    assert torch.allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": "centre"}, "Unknown augment.crop 'centre'. Allowed: none, random, resized"),
        ({"crop": "resized", "mixup": -1}, "augment.mixup came as -1; allowed: 0 or more"),
        ({"crop": "resized", "flip": "often"}, "augment.flip came as 'often'"),
        ({"flip": 0.5}, "augment.crop=none takes images as they are"),
        ({"crop": "resized", "flip": 5}, "augment.flip came as 5; allowed: 0 to 1"),
        ({"crop": "random", "erasing": 0.2}, "augment.crop=random is crop and flip"),
    ],
)
def test_impossible_augmentation_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, LookupError), match=message):
        Augment(**change)


def test_every_configuration_is_tested(
    configs: Path = Path(__file__).parents[2] / "configs/augment",
) -> None:
    assert {path.stem for path in configs.glob("*.yaml")} == set(CONFIGS)
