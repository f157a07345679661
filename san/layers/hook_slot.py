"""What one hook of a forward pass leaves for another."""

from typing import Any

from torch import Tensor


class HookSlot(list[Tensor]):
    """At most one tensor on its way from hook to hook. A copy of the model starts without it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "HookSlot":
        """Return an empty one: the tensor belongs to a pass of the original."""
        return HookSlot()
