"""The label rules of VTAB-1k's structured tasks, from stored annotations to a class.

Source: google-research/task_adaptation d7630d3 (data/clevr.py, kitti.py, dsprites.py). As there,
comparisons are strict and in float32. An example maps feature names to numpy values; `objects`
holds columns of one entry an object.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from san.errors import DataError

CLEVR_DEPTHS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_METRES = (-100.0, 8.0, 20.0, 999.0)
KITTI_NO_VEHICLE = 1000.0  # metres
KITTI_VEHICLES = 3  # types 0, 1, 2: car, van, truck

Example = Mapping[str, Any]


def interval(value: float, thresholds: tuple[float, ...]) -> int:
    """Return the largest i with thresholds[i] < value; raise DataError where there is none."""
    lower_bounds = np.asarray(thresholds, np.float32)
    below = np.flatnonzero(lower_bounds < np.float32(value))
    if not len(below):
        raise DataError(f"{value} is not above {thresholds[0]}, the lowest threshold.")
    return int(below[-1])


def clevr_count(example: Example) -> int:
    """Count the objects, 3 to 10: class 0 has three."""
    objects = np.asarray(example["objects"]["pixel_coords"])
    return len(objects) - 3


def clevr_distance(example: Example) -> int:
    """Return in which of six intervals the depth of the nearest object is."""
    coordinates = np.asarray(example["objects"]["pixel_coords"], np.float32)
    depths = coordinates[:, 2]
    return interval(depths.min(), CLEVR_DEPTHS)


def kitti_distance(example: Example) -> int:
    """Return in which of three intervals the nearest vehicle is, in metres; 3 without a vehicle."""
    objects = example["objects"]
    types = np.asarray(objects["type"])
    locations = np.asarray(objects["location"], np.float32).reshape(-1, 3)
    metres = locations[:, 2]
    vehicles = metres[types < KITTI_VEHICLES]
    nearest = vehicles.min() if len(vehicles) else KITTI_NO_VEHICLE
    return interval(nearest, KITTI_METRES)


def dsprites_x(example: Example) -> int:
    """Map 32 horizontal positions to 16 classes of two."""
    return int(example["label_x_position"]) * 16 // 32


def dsprites_orientation(example: Example) -> int:
    """Map 40 orientations to 16 classes of 3, 2, 3, 2 ... values."""
    return int(example["label_orientation"]) * 16 // 40


RULES: Mapping[str, Callable[[Example], int]] = {
    "clevr_count": clevr_count,
    "clevr_distance": clevr_distance,
    "kitti_distance": kitti_distance,
    "dsprites_x": dsprites_x,
    "dsprites_orientation": dsprites_orientation,
}


def label_of(example: Example, rule: str) -> int:
    """Return the class of an example by a rule of this module, or the feature of that name."""
    if rule in RULES:
        return RULES[rule](example)
    return int(example[rule])
