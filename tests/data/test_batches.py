"""Preprocessing and batches: every image once a pass, the same pixels wherever they are kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from san.data import batches as batches_module
from san.data import preprocess as preprocess_module
from san.data.batches import Batches, Shard
from san.data.preprocess import NORMALIZE, Preprocess
from san.data.resize import RESIZE, resize
from san.data.split import Images, Split
from san.errors import InvalidValueError, SanError

CPU = torch.device("cpu")
PIXELS = Preprocess("vtab", "none")
SMALL = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
SQUASHES = [name for name in RESIZE if not name.startswith("crop")]


def split_of(images: np.ndarray, labels: list[int]) -> Split:
    return Split(
        parts=(Images(images),),
        labels=np.array(labels),
        ids=[str(i) for i in range(len(labels))],
        fingerprint="f",
        sources=({"made_by": "a test"},),
    )


def shuffled(split: Split, batch_size: int, image_size: int, seed: int = 0) -> Batches:
    return Batches.for_training(
        split,
        batch_size=batch_size,
        preprocess=PIXELS,
        image_size=image_size,
        device=CPU,
        generator=torch.Generator().manual_seed(seed),
    )


def in_order(
    split: Split, batch_size: int, image_size: int, preprocess: Preprocess = PIXELS
) -> Batches:
    return Batches.for_evaluation(
        split, batch_size=batch_size, preprocess=preprocess, image_size=image_size, device=CPU
    )


def row_of(image: Tensor) -> int:
    """Return which of the SMALL images this is."""
    pixels = image.permute(1, 2, 0).numpy() * 255
    rows = [i for i in range(5) if np.allclose(pixels, SMALL[i], atol=1e-3)]
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize(
    ("images", "size", "dropped", "sizes"),
    [(5, 2, False, [2, 2, 1]), (5, 2, True, [2, 2]), (5, 5, True, [5]), (4, 2, True, [2, 2])],
)
def test_the_last_batch_may_be_dropped(
    images: int, size: int, dropped: bool, sizes: list[int]
) -> None:
    split = split_of(SMALL.reshape(5, 4, 4, 3)[:images], list(range(images)))
    batches = replace(shuffled(split, size, 4), drop_last=dropped)
    assert len(batches) == len(sizes)
    passes = [[labels.tolist() for _, labels in batches] for _ in range(20)]
    for each in passes:
        assert [len(labels) for labels in each] == sizes
    seen = {label for each in passes for labels in each for label in labels}
    assert seen == set(range(images))  # another image is left out each time
    whole = shuffled(split, size, 4)
    assert passes[0] == [labels.tolist() for _, labels in whole][: len(sizes)]


def test_a_split_smaller_than_a_batch_is_not_dropped_silently() -> None:
    split = split_of(SMALL, list(range(5)))
    with pytest.raises(InvalidValueError, match="batch_size 6 with drop_last leaves no batch of 5"):
        replace(shuffled(split, 6, 4), drop_last=True)


@pytest.mark.parametrize("limit", [2**30, 0])
def test_batches_cover_everything_once_and_change_nothing(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "DEVICE_CACHE_BYTES", limit)
    split = split_of(SMALL.copy(), [0, 1, 2, 0, 1])
    batches = shuffled(split, 2, 4)
    assert len(batches) == 3
    passes = []
    for _ in range(2):
        seen = {}
        for images, labels in batches:
            for image, label in zip(images, labels, strict=True):
                row = row_of(image)
                assert label == split.labels[row]
                seen[row] = image.clone()
            images.mul_(0)
        assert sorted(seen) == [0, 1, 2, 3, 4]
        passes.append(seen)
    assert all(torch.equal(passes[0][i], passes[1][i]) for i in range(5))
    assert list(passes[0]) != list(passes[1])
    assert np.array_equal(split.parts[0].data, SMALL)


def test_evaluation_keeps_the_stored_order() -> None:
    split = split_of(SMALL, [0, 1, 2, 0, 1])
    assert [labels.tolist() for _, labels in in_order(split, 2, 4)] == [[0, 1], [2, 0], [1]]


def test_pixels_on_the_device_and_pixels_made_ahead_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pixels that stay on the device are made once, the others in every pass."""
    images = np.random.default_rng(0).integers(0, 256, (30, 9, 9, 3)).astype(np.uint8)
    split = split_of(images, [0] * 30)
    made = []

    def counted(images: list[np.ndarray], name: str, image_size: int) -> np.ndarray:
        made.append(len(images))
        return resize(images, name, image_size)

    monkeypatch.setattr(preprocess_module, "resize", counted)
    loaded = {}
    for limit, expected in ((0, 60), (2**30, 30)):
        made.clear()
        monkeypatch.setattr(batches_module, "DEVICE_CACHE_BYTES", limit)
        batches = shuffled(split, 7, 20, seed=3)
        loaded[limit] = torch.cat([x for _ in range(2) for x, _ in batches])
        assert sum(made) == expected
    assert torch.equal(loaded[0], loaded[2**30])


def test_a_pass_from_a_batch_on_is_the_rest_of_the_pass() -> None:
    split = split_of(SMALL, [0, 1, 2, 3, 4])
    complete = list(shuffled(split, 2, 4))
    for batch in range(4):
        rest = list(shuffled(split, 2, 4).iter_from(batch))
        assert len(rest) == 3 - batch
        for (images, labels), (expected, targets) in zip(rest, complete[batch:], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, targets)


def test_a_last_batch_that_not_every_process_can_share_is_refused_in_training_alone() -> None:
    split = split_of(SMALL, [0, 1, 2, 3, 4])
    arguments = {
        "batch_size": 2,
        "preprocess": PIXELS,
        "image_size": 4,
        "device": CPU,
        "shard": Shard(1, 2),
    }
    with pytest.raises(InvalidValueError, match="batch_size 2 leaves 1 images .* 2 processes"):
        Batches.for_training(split, generator=torch.Generator(), **arguments)
    batches = Batches.for_evaluation(split, **arguments)
    assert [labels.tolist() for _, labels in batches] == [[1], [3]]


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_normalization(normalize: str) -> None:
    image = torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    before = image.clone()
    ours = Preprocess("vtab", normalize).scale(image)
    mean, std = NORMALIZE[normalize]
    for channel in range(3):
        expected = (image[..., channel].double() / 255 - mean[channel]) / std[channel]
        assert torch.allclose(ours[:, channel].double(), expected, atol=1e-6)
    assert torch.equal(image, before)


def test_unknown_preprocessing_is_refused() -> None:
    with pytest.raises(SanError, match="Unknown data.resize 'area'.* Allowed: vtab, bicubic"):
        Preprocess("area", "inception")
    with pytest.raises(SanError, match="Unknown data.normalize 'incepton'. Did you mean inception"):
        Preprocess("vtab", "incepton")
    with pytest.raises(SanError, match=r"data.resize came as \['vtab'\]; allowed: .*str"):
        Preprocess(["vtab"], "none")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SQUASHES)
def test_packing_at_a_size_or_natively_gives_the_model_the_same_pixels(name: str) -> None:
    """Images are stored at the smaller of the two sizes; crops are made from image files."""
    preprocess = Preprocess(name, "inception")
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    resized = np.concatenate([resize([image], name, 224) for image in images])
    native = in_order(split_of(images, [0] * 6), 4, 224, preprocess)
    stored = in_order(split_of(resized, [0] * 6), 4, 224, preprocess)
    pairs = list(zip(native, stored, strict=True))
    assert len(pairs) == 2
    for (from_native, _), (from_stored, _) in pairs:
        assert torch.equal(from_native, from_stored)
