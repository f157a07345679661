"""How many parameters there are, and of which kind."""

from msgspec import Struct


class ParameterCounts(Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers of parameters of a model with a method attached.

    method: those that train besides norm layers and head. total: all of the model. percent: of the
    backbone without its head, those that train without the head.
    """

    method: int
    norm: int
    head: int
    trainable: int
    total: int
    percent: float

    def __post_init__(self) -> None:
        parts = (self.method, self.norm, self.head)
        adds_up = sum(parts) == self.trainable <= self.total < 2**53
        if min(parts) < 0 or not adds_up or self.percent < 0:
            raise ValueError(f"impossible numbers of parameters: {self}.")
