"""Low-rank updates: slices at their rows, norms of rows, the plain layer, settings."""

import pytest
import torch
from torch import nn

from san.errors import InvalidValueError, UnknownNameError
from san.layers.low_rank import LowRankConfig, LowRankLinear, scaling

DOUBLE = torch.float64


def updated(starts: tuple[int, ...] = (6, 0), scale: float = 0.5) -> LowRankLinear:
    """Two slices of two rows of a 9 x 4 layer, with an update that is not zero."""
    torch.manual_seed(0)
    config = LowRankConfig(rank=3, scale=scale, dropout=0, dropout_at="between")
    layer = LowRankLinear(nn.Linear(4, 9).to(DOUBLE), starts, 2, config)
    nn.init.normal_(layer.lora_b)
    return layer


def test_each_slice_is_updated_at_its_rows() -> None:
    layer = updated()
    expected = layer.weight.clone()
    expected[6:8] += 0.5 * layer.lora_b[0] @ layer.lora_a[0]
    expected[0:2] += 0.5 * layer.lora_b[1] @ layer.lora_a[1]
    assert torch.allclose(layer.updated_weight(), expected, atol=1e-14)
    x = torch.randn(5, 4, dtype=DOUBLE)
    assert torch.allclose(layer.compute(x, layer.bias), x @ expected.T + layer.bias, atol=1e-14)


def test_rows_are_gathered_and_scattered() -> None:
    layer = updated()
    rows = torch.arange(9)
    assert layer.gather_rows(rows).tolist() == [6, 7, 0, 1]
    assert layer.scatter_rows(rows[1:5], fill=-1).tolist() == [3, 4, -1, -1, -1, -1, 1, 2, -1]


def test_row_norms_are_those_of_the_formed_weights() -> None:
    layer = updated()
    with torch.no_grad():
        layer.weight[4] = 0  # not updated: its norm is 0 before and after
    before, after = layer.row_norms()
    assert torch.allclose(before, layer.weight.norm(dim=1), atol=1e-14)
    assert torch.allclose(after, layer.updated_weight().norm(dim=1), atol=1e-14)
    assert before[4] > 0  # it is divided by
    assert not after.requires_grad


def test_the_plain_layer_shares_nothing() -> None:
    layer = updated()
    plain = layer.to_linear(layer.weight, layer.bias)
    assert type(plain) is nn.Linear
    assert torch.equal(plain.weight, layer.weight)
    assert plain.weight.data_ptr() != layer.weight.data_ptr()
    assert plain.bias.data_ptr() != layer.bias.data_ptr()
    assert layer.to_linear(layer.weight, None).bias is None


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="rank came as 0"):
        LowRankConfig(0, 1.0, 0.0, "input")
    with pytest.raises(InvalidValueError, match=r"dropout came as 1.0"):
        LowRankConfig(1, 1.0, 1.0, "input")
    with pytest.raises(UnknownNameError, match="dropout_at 'inputs'. Did you mean input"):
        LowRankConfig(1, 1.0, 0.0, "inputs")


def test_scale_and_alpha_exclude_each_other() -> None:
    assert scaling(8, 2.0, None) == 2
    assert scaling(8, 1.0, 16.0) == 2
    with pytest.raises(InvalidValueError, match="give one of them"):
        scaling(8, 2.0, 16.0)
