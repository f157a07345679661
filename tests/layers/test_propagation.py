"""A propagated scale: the channels that a site reads, in the order of its inputs."""

import pytest
import torch
from torch import nn

from san.backbones import Site
from san.layers.propagation import PropagatedScale

SCALE = nn.Parameter(torch.arange(6.0))


def reader(inputs: int, reads: tuple[int, int]) -> Site:
    return Site("reader", "linear", "block", inputs, 1, -1, "anterior", reads)


@pytest.mark.parametrize(
    ("inputs", "reads", "view"),
    [
        (6, (0, 6), [0, 1, 2, 3, 4, 5]),
        (2, (4, 6), [4, 5]),
        (4, (2, 4), [2, 3, 2, 3]),
    ],
)
def test_it_reads_channels(inputs: int, reads: tuple[int, int], view: list[float]) -> None:
    tied = PropagatedScale(SCALE, reader(inputs, reads), recalibrate=False, interpolate=False)
    assert tied().tolist() == view
    assert [name for name, _ in tied.named_parameters()] == ["scale"]
    assert tied.scale is SCALE


def test_it_interpolates() -> None:
    """Both ends are kept, as the authors' code aligns the corners."""
    tied = PropagatedScale(SCALE, reader(3, (4, 6)), recalibrate=False, interpolate=True)
    assert tied().tolist() == [0, 2.5, 5]


def test_it_is_recalibrated() -> None:
    site = reader(2, (4, 6))
    recalibrated = PropagatedScale(SCALE, site, recalibrate=True, interpolate=False)
    assert recalibrated().tolist() == [4, 5]
    with torch.no_grad():
        recalibrated.recalibration[1] = 10
    assert recalibrated().tolist() == [4, 50]
