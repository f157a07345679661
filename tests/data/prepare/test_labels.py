"""The label rules of VTAB-1k's structured tasks."""

from typing import Any

import numpy as np
import pytest

from san.data.prepare.labels import CLEVR_DEPTHS, interval, label_of
from san.errors import DataError


def brute_interval(value: float, thresholds: list[float]) -> int:
    below = [i for i, t in enumerate(thresholds) if np.float32(t) < np.float32(value)]
    return max(below)


def test_clevr_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        count = rng.integers(3, 11)
        depths = rng.uniform(7, 11, count).astype(np.float32)
        depths[0] = rng.choice([8.0, 8.5, 9.0, 9.5, 10.0, depths[0]])  # on a threshold, too
        example = {"objects": {"pixel_coords": [[0, 0, depth] for depth in depths]}}
        assert label_of(example, "clevr_count") == count - 3
        nearest = brute_interval(min(depths), [0, 8, 8.5, 9, 9.5, 10, 100])
        assert label_of(example, "clevr_distance") == nearest


def test_kitti_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        boxes = rng.integers(0, 5)
        types = rng.integers(0, 8, boxes)
        metres = rng.choice([8.0, 20.0, *rng.uniform(-5, 90, 3)], boxes)
        locations = [[0, 0, z] for z in metres]
        example: dict[str, Any] = {"objects": {"type": list(types), "location": locations}}
        vehicles = [z for type_, z in zip(types, metres, strict=True) if type_ < 3]
        nearest = min(vehicles, default=1000)
        expected = brute_interval(nearest, [-100, 8, 20, 999])
        assert label_of(example, "kitti_distance") == expected


def test_dsprites_positions_and_orientations_fall_into_16_classes() -> None:
    positions = [label_of({"label_x_position": x}, "dsprites_x") for x in range(32)]
    assert positions == [label for label in range(16) for _ in range(2)]
    orientations = [label_of({"label_orientation": i}, "dsprites_orientation") for i in range(40)]
    assert orientations == sorted(orientations)
    assert np.bincount(orientations).tolist() == [3, 2] * 8


def test_a_feature_is_its_own_label() -> None:
    assert label_of({"label_azimuth": np.int64(7)}, "label_azimuth") == 7


def test_a_value_below_all_thresholds_is_refused() -> None:
    with pytest.raises(DataError, match="not above 0.0"):
        interval(0.0, CLEVR_DEPTHS)
