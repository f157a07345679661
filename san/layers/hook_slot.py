"""A place where one hook of a forward pass leaves a tensor for another."""

from typing import Any

from torch import Tensor


class HookSlot:
    """Holds at most one tensor. A copy of the model starts with an empty slot."""

    def __init__(self) -> None:
        self._tensor: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return self._tensor is None

    def put(self, tensor: Tensor) -> None:
        """Store a tensor, in place of one that an interrupted pass may have left."""
        self._tensor = tensor

    def peek(self) -> Tensor:
        """Return the tensor and keep it."""
        assert self._tensor is not None, "nothing was put into this slot"
        return self._tensor

    def take(self) -> Tensor:
        """Return the tensor and forget it."""
        tensor = self.peek()
        self._tensor = None
        return tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> "HookSlot":
        """Return an empty slot: the tensor belongs to a pass of the original."""
        return HookSlot()
