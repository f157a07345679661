"""MLP: the head alone trains, and has hidden layers (Jia et al., ECCV 2022, as a baseline).

    `hidden_layers` times: x <- dropout(norm(relu(A x + a)))    then logits = W x + b

x is what the stock classifier reads, A is square, norm is a BatchNorm1d: while it trains it takes
the mean and variance of the batch, and keeps running ones, which are used in evaluation and saved
with the adapter. An only image in a batch has no variance of its own; it is normalized by the
running ones. Where several processes share a batch, each normalizes its own images.

`MLP_NUM` of KMnP/vpt at 4410440, src/models/mlp.py: A drawn kaiming normal by fan-out, a as
nn.Linear has it. `hidden_layers` counts as `MLP_NUM` does, without the classifier. MLP-3 is taken
as three linear layers, the classifier among them; the paper's tables do not say.
Trainable on ViT-B/16 without the head: 0; in the head 592,128 a hidden layer.

It does not start at the pre-trained function, and cannot be merged: no linear layer is an MLP.
"""

from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site, classifier_name
from san.errors import UnsupportedModelError
from san.layers.shared_linear import SharedLinear
from san.schema import DropoutRate, PositiveInt


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of `(B, d)` that takes a single image, too."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize by the batch in training, where it has two images, else by the running mean."""
        if len(x) > 1:
            return super().forward(x)
        mean = self.running_mean
        return F.batch_norm(x, mean, self.running_var, self.weight, self.bias, eps=self.eps)


class MLPHead(SharedLinear):
    """A classifier `(B, d)` to `(B, classes)` behind hidden layers of its width.

    Its weight and bias are those of `base`.
    """

    def __init__(self, base: nn.Linear, hidden_layers: int, dropout: float) -> None:
        super().__init__(base)
        layers: list[nn.Module] = []
        for _ in range(hidden_layers):
            layers += _hidden_layer(base.weight, dropout)
        self.hidden = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, d)` to logits `(B, classes)`."""
        hidden: Tensor = self.hidden(x)
        return super().forward(hidden)


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    hidden_layers: PositiveInt = 2,
    dropout: DropoutRate = 0.1,
) -> Iterable[str]:
    """Put hidden layers before the classifier, train nothing but the head.

    Raises UnsupportedModelError on a model without a classifier.
    """
    name = classifier_name(model)
    classifier = model.get_submodule(name)
    if not isinstance(classifier, nn.Linear):
        raise UnsupportedModelError(
            f"This {type(model).__name__} has no classifier for 'mlp' to stand before; "
            "build it with num_classes=..."
        )
    model.set_submodule(name, MLPHead(classifier, hidden_layers, dropout))
    return []


def _hidden_layer(like: Tensor, dropout: float) -> list[nn.Module]:
    """Return the parts of a hidden layer in their order. like: `(classes, d)`."""
    width = like.shape[1]
    kind: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
    linear = nn.Linear(width, width, **kind)
    nn.init.kaiming_normal_(linear.weight, mode="fan_out")
    return [linear, nn.ReLU(), BatchNorm(width, **kind), nn.Dropout(dropout)]
