"""A linear layer with the weight and bias of another, which methods build theirs on."""

from torch import Tensor, nn


class SharedLinear(nn.Linear):
    """An `nn.Linear` that has the weight and bias of `base`, under the same names.

    In the place of `base` it changes no name of a stock parameter, and copies none.
    """

    def __init__(self, base: nn.Linear) -> None:
        bias = base.bias is not None
        # On the meta device, because the parameters of `base` take the place of new ones.
        super().__init__(base.in_features, base.out_features, bias, device="meta")
        self.weight = base.weight
        self.bias = base.bias

    def to_linear(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """Return a plain layer of this shape with copies of the given weight and bias."""
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        return with_parameters(plain, weight, bias)


def with_parameters(plain: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Give a plain layer, made on the meta device, copies of these tensors."""
    plain.weight = nn.Parameter(weight.detach().clone())
    copied_bias = None if bias is None else nn.Parameter(bias.detach().clone())
    plain.register_parameter("bias", copied_bias)
    return plain
