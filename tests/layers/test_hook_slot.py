"""The slot between two hooks: at most one tensor, never copied with the model."""

import copy

import pytest
import torch

from san.layers.hook_slot import HookSlot


def test_a_tensor_is_stored_read_and_taken_once() -> None:
    slot = HookSlot()
    assert slot.is_empty
    assert slot.is_empty
    first, second = torch.zeros(2), torch.ones(2)
    slot.put(first)
    slot.put(second)
    assert slot
    assert slot.peek() is second
    assert slot.take() is second
    assert slot.is_empty
    with pytest.raises(AssertionError, match="nothing was put"):
        slot.take()


def test_a_copy_is_empty() -> None:
    """A tensor of a pass with gradients could not even be copied."""
    slot = HookSlot()
    slot.put(torch.ones(2, requires_grad=True) * 2)
    assert copy.deepcopy(slot).is_empty
    assert not slot.is_empty
