"""The hooks that a model has while a method is attached."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from san.adapter.switch import batch_norms
from san.backbones import head_name


def install_hooks(
    model: nn.Module, stock_modules: Collection[nn.Module]
) -> tuple[RemovableHandle, ...]:
    """Let stock batch norms keep their statistics, and the head no more than it reads.

    Statistics that move, as hybrid ViTs have them, are neither frozen nor trained by gradients: so
    they stay as pre-trained with every method. Those that a method adds move. The head's inputs are
    a view of all tokens, which autograd would keep: it reads a copy.
    """
    head = model.get_submodule(head_name(model))
    stock_norms = [norm for norm in batch_norms(model) if norm in stock_modules]
    norms = [norm.register_forward_pre_hook(_evaluate) for norm in stock_norms]
    return (*norms, head.register_forward_pre_hook(_copy_views))


def _evaluate(module: nn.Module, _inputs: object) -> None:
    module.eval()


def _copy_views(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in inputs)
