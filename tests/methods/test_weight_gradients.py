"""No method computes the gradient of a weight that does not train: what peers' code spends.

One whose equations ask for it says so.
"""

from typing import Any

import pytest
import torch
from statements import DENSE_GRADIENT, SPENDS_MORE, states
from test_contract import BACKBONES, CELLS, LIBRARY, stock
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import san
from san import methods

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}


class Gradients(TorchDispatchMode):
    """Takes down what a backward pass computes.

    products: the shapes of matrix products. convolutions: of each whether it computed the gradient
    of its weight, which on a CPU that of its bias alone does, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: set[tuple[int, ...]] = set()
        self.convolutions: list[tuple[Tensor, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            self.products.add(tuple(out.shape))
        if name == "convolution_backward":
            weight, output_mask = args[2], args[10]
            self.convolutions.append((weight, output_mask[1] or output_mask[2]))
        return out


def frozen_matrices(model: nn.Module) -> set[tuple[int, ...]]:
    """The shapes of frozen linear weights, and transposed, unless one that trains has the same."""
    linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    trained = {tuple(p.shape) for p in model.parameters() if p.requires_grad}
    shapes = {tuple(weight.shape) for weight in linear if not weight.requires_grad}
    return {shape for shape in shapes | {shape[::-1] for shape in shapes} if shape not in trained}


def backward(model: nn.Module, side: int) -> Gradients:
    """The backward pass of five images, whose tokens are in no shape of a weight."""
    loss = model(torch.randn(5, 3, side, side)).square().sum()
    with Gradients() as gradients:
        loss.backward()
    return gradients


OURS = [cell for cell in CELLS if not states(cell[0], SPENDS_MORE)]


def test_methods_of_others_and_one_of_ours_are_excepted() -> None:
    names = methods.method_names()
    assert {method for method in names if states(method, SPENDS_MORE)} == LIBRARY
    assert {method for method in names if states(method, DENSE_GRADIENT)} == {"rlrr"}


@pytest.mark.parametrize(("method", "backbone"), OURS)
def test_no_gradient_of_a_frozen_weight_is_computed(method: str, backbone: str) -> None:
    model = stock(backbone)
    options = {}
    if "rank" in methods.default_options(method):
        options = {"rank": 3}  # in no shape of a weight
    san.attach(model, method, **options)
    gradients = backward(model, BACKBONES[backbone][1])
    if states(method, DENSE_GRADIENT):
        assert gradients.products & frozen_matrices(model)
        return
    assert not gradients.products & frozen_matrices(model)
    trains = {p.data_ptr() for p in model.parameters() if p.requires_grad}
    for weight, is_computed in gradients.convolutions:
        assert not is_computed or weight.data_ptr() in trains


@pytest.mark.parametrize("backbone", BACKBONES)
def test_such_a_gradient_would_be_seen(backbone: str) -> None:
    """Of a stock model in which all trains, the shapes of the blocks' weights are among those."""
    model = stock(backbone)
    gradients = backward(model, BACKBONES[backbone][1])
    model.requires_grad_(False)
    assert gradients.products & frozen_matrices(model)
    assert any(is_computed for _, is_computed in gradients.convolutions)
