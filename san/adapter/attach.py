"""Attach a method to a stock model; switch, merge and save it; count its parameters."""

import contextlib
import inspect
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from san.adapter.adapter_file import (
    SavedAdapter,
    content_hash,
    layout_of,
    named_parameters,
    probe_logits,
    write_adapter,
)
from san.adapter.arguments import check_attachable
from san.adapter.hooks import install_hooks
from san.adapter.merge import merge_layers
from san.adapter.switch import (
    Attachment,
    Snapshot,
    State,
    Switch,
    own_head,
    own_parameters,
)
from san.adapter.usage import Usage
from san.backbones import backbone_tag, head_name, persistent_buffers, sites
from san.counts import ParameterCounts
from san.errors import InvalidValueError
from san.methods import (
    default_options,
    describe_methods,
    method_module,
    norm_parameters,
)

_WAY_OUT = {
    State.DISABLED: "is disabled: call enable() first",
    State.DETACHED: "was detached and is gone: attach it anew, or restore a saved one",
    State.MERGED: "has been merged into this model; save before you merge",
}
_NAMING = "name the parameters of"


@dataclass(frozen=True, repr=False)
class Adapter:
    """A method attached to a model.

    trainable: the names of exactly the parameters that receive gradients; added: of those that the
    stock model lacks; buffers: of the persistent buffers that it lacks. attachment: the token on
    the model as long as this adapter is attached. switch: what takes it out of the model again;
    None if it is there for good.

    It hooks the modules of one model: use a model in one thread at a time.
    """

    model: nn.Module
    method: str
    options: dict[str, Any]
    trainable: tuple[str, ...]
    added: frozenset[str]
    counts: ParameterCounts
    attachment: Attachment
    buffers: tuple[str, ...] = ()
    switch: Switch | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        defaults = default_options(self.method)
        given = [f"{k}={v!r}" for k, v in self.options.items() if v != defaults[k]]
        counts = self.counts
        # Without timm's tag, which stands there whatever weights were loaded.
        architecture = backbone_tag(self.model).partition(".")[0]
        return (
            f"<Adapter {self.method}({', '.join(given)}) on {architecture}, "
            f"{self.attachment.state.value}: {counts.trainable:,} of {counts.total:,} parameters "
            f"train (method {counts.method:,}, norm {counts.norm:,}, head {counts.head:,}), "
            f"{counts.percent:.2f} % of the backbone>"
        )

    @property
    def saved_bytes(self) -> int:
        """The bytes of the tensors that `save` writes; a file has a few kB of facts besides."""
        return sum(tensor.nbytes for tensor in self.saved_tensors().values())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what trains, head included, by name; also while it is disabled.

        Raises InvalidValueError after a merge or a detach.
        """
        yield from self._trained().items()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield what trains, head included: what an optimizer takes.

        They stay the same objects when the adapter is disabled and enabled. Raises
        InvalidValueError after a merge or a detach.
        """
        yield from self._trained().values()

    def saved_tensors(self) -> dict[str, Tensor]:
        """Return what `save` writes, by name: what trains, and the buffers that the method added.

        Raises InvalidValueError after a merge or a detach.
        """
        trained = self._trained()
        if self.attachment.state is State.DISABLED:
            return {**trained, **self._switch(_NAMING).own_buffers}
        buffers = persistent_buffers(self.model)
        own = {name: buffers[name] for name in self.buffers}
        return {**trained, **own}

    def disable(self) -> nn.Module:
        """Take the method out and return the stock model; the adapter keeps what it has learned.

        The model has its own classes of modules, tensors, hooks and `requires_grad` again, bit by
        bit as they were when the adapter was attached or enabled, its head included. Then another
        adapter can be attached, to another head if `model.reset_classifier` makes one. A second
        call changes nothing. Raises InvalidValueError after a merge or a detach, and on an adapter
        that a run has attached for good.
        """
        self._take_out("disable")
        return self.model

    def enable(self) -> nn.Module:
        """Put a disabled adapter in again, with its own head, and return the model.

        The outputs are bit by bit what they were. A second call changes nothing. Raises
        InvalidValueError after a merge or a detach, while another adapter is attached, and where
        the model itself has changed.
        """
        if self.attachment.state is not State.DISABLED:
            self._require_attached("enable")
            return self.model
        other = getattr(self.model, "adapted_by", None)
        if other is not None:
            raise InvalidValueError(
                f"'{self.method}' cannot be enabled: '{other.method}' is attached now; "
                "call its disable() or detach() first."
            )
        self._switch("enable").put_in()
        self.attachment.state = State.ATTACHED
        return self.model

    @contextlib.contextmanager
    def disabled(self) -> Iterator[nn.Module]:
        """Disable the adapter for a while: `with adapter.disabled() as stock: ...`."""
        stock = self.disable()
        try:
            yield stock
        finally:
            self.enable()

    def detach(self) -> nn.Module:
        """Take the method out for good and return the stock model, exactly as it was.

        As `disable`, but what was learned is gone. A second call changes nothing.
        """
        if self.attachment.state is not State.DETACHED:
            self._take_out("detach")
        self.attachment.state = State.DETACHED
        self._switch("detach").forget()
        return self.model

    def merge(self) -> nn.Module:
        """Fold the inserted layers into plain ones, in place, and return the model.

        The outputs stay the same, there are no extra modules, and everything is frozen. A second
        call changes nothing. Raises InvalidValueError, before anything is changed, where the method
        has parameters that no plain layer can take in, where another method is attached by now, and
        where it is disabled or detached.
        """
        if self.attachment.state is State.MERGED:
            other = getattr(self.model, "adapted_by", None)
            if other is None:
                return self.model
            raise InvalidValueError(
                f"'{self.method}' was merged before; '{other.method}' is attached now, "
                "and has its own merge()."
            )
        self._require_attached("merge")
        merge_layers(self.model, self.method, self.added)
        for hook in self.attachment.hooks:
            hook.remove()
        del self.model.adapted_by  # it is a stock model again
        self.attachment.state = State.MERGED
        if self.switch is not None:
            self.switch.forget()
        return self.model

    def save(self, path: str | os.PathLike[str], usage: Usage | None = None) -> None:
        """Write what the method adds and trains, and no frozen parameter, to a safetensors file.

        usage: what `san.load` needs to answer with the file alone. The file is complete or not
        there at all; `san.adapter.adapter_file` has its format. Raises InvalidValueError after a
        merge or a detach, while it is disabled, where the model's logits are not finite, and where
        `usage` has another number of classes than they have.
        """
        self._require_attached("save")
        trained = self._trained()
        parameters = named_parameters(self.model)
        frozen = {name: p for name, p in parameters.items() if name not in trained}
        own = self.saved_tensors()
        tensors = {name: t.detach().cpu().contiguous() for name, t in own.items()}
        logits = probe_logits(self.model)
        if not all(map(math.isfinite, logits)):
            raise InvalidValueError(
                f"The logits of this '{self.method}' are not finite: it has diverged. "
                "Nobody could tell a restored one from another; train it with a lower lr."
            )
        if usage is not None:
            usage.check_classes(len(logits))
        saved = SavedAdapter(
            method=self.method,
            options=self.options,
            backbone=backbone_tag(self.model),
            frozen=content_hash(frozen),
            probe_logits=logits,
            digest=content_hash(tensors),
            layout=layout_of(tensors),
            usage=usage,
        )
        write_adapter(saved, tensors, Path(path))

    def _trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name."""
        if self.attachment.state is State.DISABLED:
            return self._switch(_NAMING).own
        self._require_attached(_NAMING)
        parameters = named_parameters(self.model)
        return {name: parameters[name] for name in self.trainable}

    def _take_out(self, action: str) -> None:
        """Disable it, if it is not."""
        if self.attachment.state is not State.DISABLED:
            self._require_attached(action)
            self._switch(action).take_out()
            self.attachment.state = State.DISABLED

    def _require_attached(self, action: str) -> None:
        """Raise InvalidValueError, which says why `action` cannot be done, unless it is in."""
        state = self.attachment.state
        if state is not State.ATTACHED:
            way_out = _WAY_OUT[state]
            raise InvalidValueError(f"Cannot {action} this adapter: '{self.method}' {way_out}.")

    def _switch(self, action: str) -> Switch:
        if self.switch is None:
            raise InvalidValueError(
                f"Cannot {action} this adapter: '{self.method}' was attached for good, without a "
                "copy of what the stock model had; san.attach and san.restore keep one."
            )
        return self.switch


def attach(model: nn.Module, method: str, /, **options: Any) -> Adapter:
    """Attach `method` to a stock timm model in place and freeze all that it does not train.

    It trains copies of the stock tensors that train (head, norms, biases; with `full` all, which
    doubles their memory), so that `Adapter.detach` gives the model back exactly. Make the optimizer
    afterwards, of `adapter.parameters()`.

    Raises UnknownNameError on an unknown method or option (with the nearest names),
    InvalidValueError on a model that has a method already, on an option out of range and on a
    backbone where the method makes no sense, UnsupportedModelError on a family without sites; the
    model is then as it was.
    """
    options = check_attachable(model, method, options)
    snapshot = Snapshot(model)
    try:
        own_head(model)
        adapter = attach_for_good(model, method, **options)
        head = f"{head_name(model)}."
        stock = [n for n in adapter.trainable if n not in adapter.added]
        own_parameters(model, [name for name in stock if not name.startswith(head)])
        return replace(adapter, switch=Switch(snapshot, adapter.trainable, adapter.buffers))
    except BaseException:
        snapshot.put_back()
        raise


def attach_for_good(model: nn.Module, method: str, /, **options: Any) -> Adapter:
    """Attach a method as `attach` does, without the copies that taking it out again needs.

    It is what a run does: the stock tensors that train are trained themselves.
    """
    options = check_attachable(model, method, options)
    found = sites(model)
    head = f"{head_name(model)}."
    stock = {name: p.numel() for name, p in model.named_parameters()}
    stock_buffers = persistent_buffers(model).keys()
    stock_modules = set(model.modules())
    stock_trainable = set(method_module(method).attach(model, found, **options))
    for name, module in model.named_modules():
        if module not in stock_modules:
            module.training = model.get_submodule(name.rpartition(".")[0]).training
    parameters = named_parameters(model)
    assert stock.keys() <= parameters.keys(), f"'{method}' renamed parameters of the stock model."
    assert stock_trainable <= stock.keys(), f"'{method}' names parameters that are not stock ones."
    added = frozenset(parameters.keys() - stock.keys())
    trains = stock_trainable | added
    trainable = tuple(name for name in parameters if name in trains or name.startswith(head))
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trainable)
    buffers = tuple(name for name in persistent_buffers(model) if name not in stock_buffers)
    attachment = Attachment(method, install_hooks(model, stock_modules))
    model.adapted_by = attachment  # type: ignore[assignment]
    norms = stock.keys() & norm_parameters(model, found)
    counts = _count_parameters(parameters, trainable, norms, head, stock)
    return Adapter(model, method, options, trainable, added, counts, attachment, buffers)


def _count_parameters(
    parameters: Mapping[str, nn.Parameter],
    trainable: Collection[str],
    norms: Collection[str],
    head: str,
    stock: Mapping[str, int],
) -> ParameterCounts:
    """Count the parameters of a model. stock: sizes of those that were there before, by name."""
    sizes = {name: p.numel() for name, p in parameters.items()}
    in_head = sum(size for name, size in sizes.items() if name.startswith(head))
    in_norms = sum(sizes[name] for name in trainable if name in norms)
    all_trainable = sum(sizes[name] for name in trainable)
    backbone = sum(size for name, size in stock.items() if not name.startswith(head))
    return ParameterCounts(
        method=all_trainable - in_norms - in_head,
        norm=in_norms,
        head=in_head,
        trainable=all_trainable,
        total=sum(sizes.values()),
        percent=100 * (all_trainable - in_head) / backbone,
    )


attach.__doc__ = f"{inspect.getdoc(attach)}\n\n{describe_methods()}"
