"""How the classifier begins, which no weights file fills."""

import math

from torch import nn

from san.backbones import classifier_name
from san.errors import InvalidValueError
from san.training.recipe import HeadInit

_PRIOR = 0.01  # the probability of each class at the start, as `vpt` sets the bias


def init_classifier(model: nn.Module, init: HeadInit) -> None:
    """Draw the classifier's weights anew, from torch's generator.

    `timm`: they stay as the model was built. `torch`: nn.Linear's default. `zero`: all zero. `vpt`:
    kaiming normal by fan-out, and the logit of 0.01 for the bias (KMnP/vpt 4410440, models/mlp.py).
    Raises InvalidValueError where the classifier is not linear.
    """
    if init == "timm":
        return
    classifier = model.get_submodule(classifier_name(model))
    if not isinstance(classifier, nn.Linear):
        raise InvalidValueError(
            f"head_init came as '{init}', and the classifier is a {type(classifier).__name__}; "
            "allowed for it: timm, which leaves it as it was built."
        )
    if init == "torch":
        classifier.reset_parameters()
    elif init == "zero":
        nn.init.zeros_(classifier.weight)
        nn.init.zeros_(classifier.bias)
    else:
        nn.init.kaiming_normal_(classifier.weight, mode="fan_out")
        nn.init.constant_(classifier.bias, -math.log((1 - _PRIOR) / _PRIOR))
