"""The buffers of a model that belong to its state, such as the statistics of a batch norm."""

from torch import Tensor, nn


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return by name the buffers that a state dict of the model holds."""
    state = model.state_dict(keep_vars=True)
    persistent = {}
    for name, buffer in model.named_buffers():
        if name in state:
            persistent[name] = buffer
    return persistent
