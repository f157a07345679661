"""What attaching a method changes in a model, so that it can be taken out and put in again.

The stock tensors themselves never train: a method gets copies of those that it trains, and a copy
of the head. A switch notes which entries of which modules differ with the method and without it
(children, parameters, hooks, attributes), whatever the method is.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from san.backbones import head_name, persistent_buffers
from san.errors import InvalidValueError

_Entries = dict[tuple[str | None, Any], Any]


class State(Enum):
    """Where an adapter is."""

    ATTACHED = "attached"
    DISABLED = "disabled"
    DETACHED = "detached"
    MERGED = "merged"


@dataclass(eq=False)
class Attachment:
    """Token set on a model, as `adapted_by`, while a method is attached; compared by identity.

    hooks: that keep batch norms from moving, and the head from keeping too much.
    """

    method: str
    hooks: tuple[RemovableHandle, ...] = ()
    state: State = State.ATTACHED


class _Nothing(Enum):
    """Stands for an entry that is not there; unlike an object, it stays the same in a copy."""

    NOTHING = 0


@dataclass
class _Change:
    """One entry that differs: of a module's attributes, or of a table of them (`_modules`).

    may_vary: whether a user may change it while the method is out, as he does the head.
    """

    module: nn.Module
    table: str | None
    key: Any
    stock: Any
    adapted: Any
    may_vary: bool = False

    def current(self) -> Any:
        """Return what is there now."""
        return self._entries().get(self.key, _Nothing.NOTHING)

    def put(self, value: Any) -> None:
        """Put a value there, or take out what is there."""
        if value is _Nothing.NOTHING:
            self._entries().pop(self.key, None)
        else:
            self._entries()[self.key] = value

    def _entries(self) -> dict[Any, Any]:
        attributes = self.module.__dict__
        entries: dict[Any, Any] = attributes if self.table is None else attributes[self.table]
        return entries


class Snapshot:
    """A model before a method is attached."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.flags = _gradient_flags(model)
        self._entries = {module: _entries_of(module) for module in model.modules()}

    def changes(self) -> list[_Change]:
        """Return in which entries the model differs by now."""
        found = []
        for module, before in self._entries.items():
            after = _entries_of(module)
            for place in {**before, **after}:
                stock = before.get(place, _Nothing.NOTHING)
                adapted = after.get(place, _Nothing.NOTHING)
                if stock is not adapted:
                    found.append(_Change(module, *place, stock, adapted))
        return found

    def put_back(self) -> None:
        """Undo all that has been changed."""
        for change in reversed(self.changes()):
            change.put(change.stock)
        _set_gradient_flags(self.model, self.flags)


class Switch:
    """Takes an attached method out of its model and puts it in again.

    own, own_buffers: the parameters and buffers of the method that is out, by name.
    """

    def __init__(
        self, snapshot: Snapshot, trainable: Collection[str], buffers: Collection[str]
    ) -> None:
        self.model = snapshot.model
        self.trainable = trainable
        self.buffers = buffers
        self.own: dict[str, nn.Parameter] = {}
        self.own_buffers: dict[str, Tensor] = {}
        self._flags = snapshot.flags
        self._changes = snapshot.changes()
        self._let_the_head_vary()
        self._frozen = self._parameters(trained=False)
        self._kind = _kind_of(self.model)

    def take_out(self) -> None:
        """Give the model back as it was before the method was put in.

        Where that fails, whatever the reason, the method is in as before.
        """
        own = self._parameters(trained=True)
        persistent = persistent_buffers(self.model)
        own_buffers = {name: persistent[name] for name in self.buffers}
        leaving = [change.current() for change in self._changes]
        with self._exchange([change.stock for change in self._changes]):
            _set_gradient_flags(self.model, self._flags)
            for norm in batch_norms(self.model):
                norm.train(self.model.training)  # a hook of ours kept it in evaluation mode
        for change, value in zip(self._changes, leaving, strict=True):
            change.adapted = value
            change.stock = change.current()
        self.own = own
        self.own_buffers = own_buffers

    def put_in(self) -> None:
        """Put the method in again; raise InvalidValueError where the model is not the same.

        Where that fails, whatever the reason, the model is as before.
        """
        self._check_same_model()
        flags = _gradient_flags(self.model)
        leaving = [change.current() for change in self._changes]
        with self._exchange([change.adapted for change in self._changes]):
            for parameter in self._frozen.values():
                parameter.requires_grad_(False)
        for change, value in zip(self._changes, leaving, strict=True):
            change.stock = value
        self._flags = flags

    def forget(self) -> None:
        """Let go of all that it keeps."""
        self.own = {}
        self.own_buffers = {}
        self._flags = {}
        self._changes = []
        self._frozen = {}

    def _parameters(self, trained: bool) -> dict[str, nn.Parameter]:
        """Return the parameters that train, or those that do not, of the model with the method."""
        named = self.model.named_parameters()
        return {name: p for name, p in named if (name in self.trainable) == trained}

    def _let_the_head_vary(self) -> None:
        """Let another task have another head while this one's is out."""
        head = self.model.get_submodule(head_name(self.model))
        for change in self._changes:
            change.may_vary = change.adapted is head
        classes = getattr(self.model, "num_classes", _Nothing.NOTHING)
        change = _Change(self.model, None, "num_classes", classes, classes, may_vary=True)
        self._changes.append(change)

    def _check_same_model(self) -> None:
        now = dict(self.model.named_parameters())
        moved = [name for name, p in self._frozen.items() if now.get(name) is not p]
        for change in self._changes:
            if not change.may_vary and change.current() is not change.stock:
                moved.append(f"{change.key} of a {type(change.module).__name__}")
        if moved:
            raise InvalidValueError(
                f"The model has changed since this method was taken out ({moved[0]}): another was "
                "merged into it, or its parts were replaced. Restore a saved adapter instead."
            )

    @contextlib.contextmanager
    def _exchange(self, values: Sequence[Any]) -> Iterator[None]:
        """Put a value in the place of each change, then run the block: all of it, or nothing.

        What enters follows where the model has gone since, before anything is exchanged.
        """
        kind = _kind_of(self.model)
        places = [change.module for change in self._changes]
        modules = [value for value in values if isinstance(value, nn.Module)]
        parameters = [value for value in values if isinstance(value, nn.Parameter)]
        before = _Before([self.model, *places, *modules], parameters)
        try:
            entering = values if kind == self._kind else [_moved(value, kind) for value in values]
            for change, value in zip(self._changes, entering, strict=True):
                self._put(change, value)
            yield
        except BaseException:
            before.put_back()
            raise
        self._kind = kind

    def _put(self, change: _Change, entering: Any) -> None:
        """Put a value in the place of another; a module takes over the mode."""
        leaving = change.current()
        if change.table == "_modules" and isinstance(entering, nn.Module):
            like = leaving if isinstance(leaving, nn.Module) else change.module
            entering.train(like.training)
        change.put(entering)


class _Before:
    """All that an exchange may alter, to be put back where it fails: also by Ctrl-C, or for memory.

    It does without `_Change`, so that order, modes, buffers and devices come back, too.
    """

    def __init__(self, roots: Iterable[nn.Module], parameters: Iterable[nn.Parameter]) -> None:
        modules = {module for root in roots for module in root.modules()}
        self._tables: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        found = {id(parameter): parameter for parameter in parameters}
        for module in modules:
            tables = [value for value in vars(module).values() if isinstance(value, dict)]
            for table in (*tables, vars(module)):
                self._tables.append((table, dict(table)))
            found |= {id(p): p for p in module.parameters(recurse=False)}
        self._tensors = [(tensor, tensor.data) for tensor in _with_gradients(found.values())]
        self._flags = [(parameter, parameter.requires_grad) for parameter in found.values()]

    def put_back(self) -> None:
        """Undo whatever has been done since."""
        for table, entries in self._tables:
            table.clear()
            table.update(entries)
        for tensor, data in self._tensors:
            tensor.data = data
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)


def own_head(model: nn.Module) -> None:
    """Put a copy of the head in its place."""
    name = head_name(model)
    model._modules[name] = _copy_of(model.get_submodule(name))


def own_parameters(model: nn.Module, names: Collection[str]) -> None:
    """Put trained copies of the parameters called so in their places, also where they are tied."""
    copies: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if name in names:
            copies[id(parameter)] = nn.Parameter(parameter.detach().clone())
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) in copies:
            parent, _, last = name.rpartition(".")
            model.get_submodule(parent)._parameters[last] = copies[id(parameter)]


def batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers that keep statistics of the images that pass."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module


def _copy_of(module: nn.Module) -> nn.Module:
    """Return a module with parts and tensors of its own, and the same hooks."""
    twin: nn.Module = module.__class__.__new__(module.__class__)
    for name, value in vars(module).items():
        twin.__dict__[name] = value.copy() if isinstance(value, dict) else value
    for name, parameter in twin._parameters.items():
        if parameter is not None:
            copied = parameter.detach().clone()
            twin._parameters[name] = nn.Parameter(copied, parameter.requires_grad)
    for name, buffer in twin._buffers.items():
        if buffer is not None:
            twin._buffers[name] = buffer.clone()
    for name, child in twin._modules.items():
        if child is not None:
            twin._modules[name] = _copy_of(child)
    return twin


def _entries_of(module: nn.Module) -> _Entries:
    """Return the attributes of a module, and the entries of those that are tables.

    Its mode is the user's, and its buffers move with the model.
    """
    found: _Entries = {}
    for name, value in vars(module).items():
        if name in ("training", "_buffers"):
            continue
        if isinstance(value, dict):
            for key, entry in value.items():
                found[name, key] = entry
        else:
            found[None, name] = value
    return found


def _gradient_flags(model: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def _set_gradient_flags(model: nn.Module, flags: Mapping[str, bool]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags.get(name, parameter.requires_grad))


def _with_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[Tensor]:
    """Yield parameters and their gradients."""
    for parameter in parameters:
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad


def _moved(value: Any, kind: tuple[torch.device, torch.dtype]) -> Any:
    """Return a module or parameter on a device, in a type; anything else as it is.

    Where torch can, it stays the same object.
    """
    if isinstance(value, nn.Module):
        return value.to(*kind)
    if isinstance(value, nn.Parameter):
        return nn.ParameterList([value]).to(*kind)[0]
    return value


def _kind_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return device and type of a model's tensors."""
    like: Tensor = next(model.parameters())
    return like.device, like.dtype
