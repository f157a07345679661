"""What one hook of a forward pass leaves for another."""

from typing import Any

from torch import Tensor


class HookSlot(list[Tensor]):
    """Room for one tensor on its way from hook to hook. A copy of the model starts with an empty one."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self

    def put(self, tensor: Tensor) -> None:
        """Leave a tensor, in place of what may be there from a pass that was broken off."""
        self[:] = [tensor]

    def peek(self) -> Tensor:
        """Return the tensor and keep it."""
        return self[0]

    def take(self) -> Tensor:
        """Return the tensor and forget it."""
        return self.pop()

    def __deepcopy__(self, memo: dict[int, Any]) -> "HookSlot":
        """Return an empty one: the tensor belongs to a pass of the original."""
        return HookSlot()
