"""The bottleneck: where its channels are, how it begins, what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from san.errors import InvalidValueError, UnknownNameError
from san.layers.bottleneck import Bottleneck

LIKE = torch.zeros(1, dtype=torch.float64)


def made(activation: str = "gelu", axis: int = -1, dim: int = 3, dropout: float = 0) -> Bottleneck:
    torch.manual_seed(0)
    return Bottleneck(5, dim, activation, bias=True, dropout=dropout, axis=axis, like=LIKE)


def test_channels_are_last_or_on_axis_one() -> None:
    last, first = made(), made(axis=1)
    x = torch.randn(2, 4, 4, 5, dtype=torch.float64)
    scale = torch.randn(5, dtype=torch.float64)
    expected = last.up(F.gelu(last.down(x))) * scale
    assert torch.equal(last(x, scale), expected)
    assert torch.equal(first(x.movedim(-1, 1), scale).movedim(1, -1), expected)


@pytest.mark.parametrize(
    ("activation", "at_one"), [("gelu", 0.8413447), ("quick_gelu", 0.8457958), ("relu", 1.0)]
)
def test_activations(activation: str, at_one: float) -> None:
    """gelu(1) is the normal distribution at 1; quick_gelu(1) the logistic one at 1.702."""
    assert made(activation).act(torch.ones(1)).item() == pytest.approx(at_one, abs=1e-6)


def test_initial_weights() -> None:
    bottleneck = made()
    bottleneck.init_weights(0.01)
    for linear in (bottleneck.down, bottleneck.up):
        assert 0 < linear.weight.abs().max() <= 0.02
        assert not linear.bias.any()
    bottleneck.init_weights(0)
    assert not bottleneck.up.weight.any()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="bottleneck_dim came as 0"):
        made(dim=0)
    with pytest.raises(InvalidValueError, match=r"dropout came as 1.0"):
        made(dropout=1.0)
    with pytest.raises(UnknownNameError, match="activation 'gelo'. Did you mean gelu"):
        made("gelo")
    with pytest.raises(InvalidValueError, match="init_std came as -0.1"):
        made().init_weights(-0.1)
