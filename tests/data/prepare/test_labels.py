"""The label rules of VTAB-1k's structured tasks."""

import numpy as np
import pytest

from san.data.prepare import labels


def brute_interval(value: float, thresholds: list[float]) -> int:
    return max(i for i, t in enumerate(thresholds) if np.float32(t) < np.float32(value))


def test_label_rules_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        count = rng.integers(3, 11)
        depths = rng.uniform(7, 11, count).astype(np.float32)
        depths[0] = rng.choice([8.0, 8.5, 9.0, 9.5, 10.0, depths[0]])
        clevr = {"objects": {"pixel_coords": [[0, 0, d] for d in depths]}}
        assert labels.label_of(clevr, "clevr_count") == count - 3
        assert labels.label_of(clevr, "clevr_distance") == brute_interval(
            min(depths), [0, 8, 8.5, 9, 9.5, 10, 100]
        )
        boxes = rng.integers(0, 5)
        kinds = rng.integers(0, 8, boxes)
        z = rng.choice([8.0, 20.0, *rng.uniform(-5, 90, 3)], boxes)
        kitti = {"objects": {"type": list(kinds), "location": [[0, 0, v] for v in z]}}
        near = min([v for k, v in zip(kinds, z, strict=True) if k < 3], default=1000)
        assert labels.label_of(kitti, "kitti_distance") == brute_interval(near, [-100, 8, 20, 999])
    for x in range(32):
        assert labels.label_of({"label_x_position": x}, "dsprites_x") == int(
            np.floor(np.float32(x) / np.float32(2))
        )
    sizes = np.bincount(
        [labels.label_of({"label_orientation": o}, "dsprites_orientation") for o in range(40)]
    )
    assert sizes.tolist() == [3, 2] * 8
    assert labels.label_of({"label_azimuth": np.int64(7)}, "label_azimuth") == 7
    with pytest.raises(ValueError, match="not above 0.0"):
        labels.interval(0.0, labels.CLEVR_DEPTHS)
