"""The label rules of VTAB-1k's structured tasks, from stored annotations to a class.

Source: google-research/task_adaptation d7630d3 (data/clevr.py, kitti.py, dsprites.py). Comparisons are strict and in
float32, as there. An example maps feature names to numpy values; `objects` holds columns of one entry an object.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

CLEVR_DEPTHS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_METRES = (-100.0, 8.0, 20.0, 999.0)
VEHICLES = 3  # KITTI's types 0, 1, 2: car, van, truck


def interval(value: Any, thresholds: tuple[float, ...]) -> int:
    """Return the largest i with thresholds[i] < value; raise ValueError where there is none."""
    below = np.flatnonzero(np.asarray(thresholds, np.float32) < np.float32(value))
    if not len(below):
        raise ValueError(f"{value} is not above {thresholds[0]}, the lowest threshold.")
    return int(below[-1])


def clevr_count(example: Mapping[str, Any]) -> int:
    """Count the objects, 3 to 10: class 0 has three."""
    return len(np.asarray(example["objects"]["pixel_coords"])) - 3


def clevr_distance(example: Mapping[str, Any]) -> int:
    """Take the depth of the nearest object in six intervals."""
    depth = np.asarray(example["objects"]["pixel_coords"], np.float32)[:, 2]
    return interval(depth.min(), CLEVR_DEPTHS)


def kitti_distance(example: Mapping[str, Any]) -> int:
    """Take the distance of the nearest vehicle in three intervals of metres; the last class has no vehicle."""
    types = np.asarray(example["objects"]["type"])
    metres = np.asarray(example["objects"]["location"], np.float32).reshape(-1, 3)[:, 2]
    vehicles = metres[types < VEHICLES]
    return interval(vehicles.min() if len(vehicles) else 1000.0, KITTI_METRES)


def dsprites_x(example: Mapping[str, Any]) -> int:
    """Take 32 horizontal positions in 16 classes."""
    return int(example["label_x_position"]) * 16 // 32


def dsprites_orientation(example: Mapping[str, Any]) -> int:
    """Take 40 orientations in 16 classes of 3, 2, 3, 2 ... values."""
    return int(example["label_orientation"]) * 16 // 40


RULES: Mapping[str, Callable[[Mapping[str, Any]], int]] = {
    rule.__name__: rule
    for rule in (clevr_count, clevr_distance, kitti_distance, dsprites_x, dsprites_orientation)
}


def label_of(example: Mapping[str, Any], rule: str) -> int:
    """Return the class of an example by a rule of this module, or the feature of that name."""
    return RULES[rule](example) if rule in RULES else int(example[rule])
