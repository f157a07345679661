"""peft: tuners of Hugging Face's peft library on the linear layers of a stock timm model.

    y = tuner(x)    peft's own layer of a `kind` over the frozen one, in the place of each target

What a kind computes, and what its `settings` mean, is said in peft's documentation; these notes are
of version 0.21.2. Presets, on all linear layers of the blocks but for ia3, with the numbers that
they train on ViT-B/16 without the head:

    pissa      1,179,648    (W - B0 A0) x + B A x, from the largest singular vectors (Meng et al.,
                            NeurIPS 2024)
    adalora    1,770,048    W x + B diag(e) A x (Zhang et al., ICLR 2023), of fixed rank
    oft          999,936    W R x, R orthogonal in blocks (Qiu et al., NeurIPS 2023)
    hra          516,096    W H x, H a product of reflections (Yuan et al., NeurIPS 2024)
    vera          95,232    W x + b * B (d * A x), A and B random (Kopiczko et al., ICLR 2024)
    randlora     921,600    W x + a sum of scaled random products (Albert et al., ICLR 2025)
    fourierft     48,000    W + a matrix of few Fourier coefficients (Gao et al., ICML 2024)
    ia3           64,512    scaled outputs of qkv and inputs of fc2 (Liu et al., NeurIPS 2022); in
                            a fused qkv it scales the queries, too
    lokr          80,640    W + a Kronecker product (Yeh et al., ICLR 2024)
    shira      4,718,592    W + some entries, drawn once (Bhardwaj et al., NeurIPS 2024)
    glora      2,875,872    W + W A + B, b + b D + E + W C (Chavan et al., 2023)

and `peft`, of any kind, 1,179,648 as lora. They start at the pre-trained function and merge
exactly. lily is no affine map, and its merge is refused. fourierft starts at zeros (peft's
`init_weights`). adalora keeps its rank `init_r`: giving ranks up, and its regularizer, would take
calls of peft's between the steps.

Stock parameters keep their names; those of peft are below `<layer>.peft`. A layer of peft's may
compute the gradient of a frozen weight, and so cost what full fine-tuning does. Left out are types
of peft's that train one tensor in several layers, read text, draw at every pass, compute in float32
whatever the model is, keep tensors that do not move with the model, or are another model on another
machine (boft, without a compiler of CUDA).
"""

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from san.backbones import Site
from san.errors import InvalidValueError, MissingPackageError, choose
from san.installation import install_command
from san.layers import low_rank
from san.layers.peft_settings import INITS_OF_THE_BASE, Setting, check_settings
from san.layers.shared_linear import SharedLinear

REQUIRES = "peft"
_LowRank = Literal["adalora", "delora", "gralora", "hira", "lily", "loha", "lora", "pissa", "vera"]
_Sparse = Literal["fourierft", "lokr", "miss", "peanut", "randlora", "shira", "waveft"]
_Scale = Literal["beft", "glora", "hra", "ia3", "oft", "road"]
Kind = Literal[_LowRank, _Sparse, _Scale]
# A preset names its most important setting, at peft's default, so that Hydra knows the key.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "adalora": {"kind": "adalora", "settings": {"init_r": 12}},
    "fourierft": {"kind": "fourierft", "settings": {"n_frequency": 1000}},
    "glora": {"kind": "glora", "settings": {"r": 8}},
    "hra": {"kind": "hra", "settings": {"r": 8}},
    "ia3": {"kind": "ia3"},
    "lokr": {"kind": "lokr", "settings": {"r": 8}},
    "oft": {"kind": "oft", "settings": {"oft_block_size": 32}},
    "peft": {},
    "pissa": {"kind": "pissa", "settings": {"r": 8}},
    "randlora": {"kind": "randlora", "settings": {"r": 32}},
    "shira": {"kind": "shira", "settings": {"r": 32}},
    "vera": {"kind": "vera", "settings": {"r": 256}},
}
_NO_SETTINGS: dict[str, Setting] = {}
_TARGETS = ("qkv", "proj", "fc1", "fc2")
_TARGETS_OF_KIND = {"ia3": ("qkv", "fc2")}
_ADAPTER = "default"  # peft's name for the first of several
_TYPES = {"pissa": "lora"}  # kinds that are another type of peft's, with a setting
_NEEDS_VALUES = ("shira",)  # at the start, which tensors on the meta device have not
# Tensors that peft calls parameters, and that do not train.
_CONSTANTS = {"adalora": "ranknum"}


class PeftLinear(SharedLinear):
    """An `nn.Linear` under a layer of peft's, which has the frozen one inside.

    Weight and bias are shared with `base`. residual: the weight in the place of the frozen one,
    where peft starts by taking something out of it.
    """

    def __init__(self, base: nn.Linear, layer: nn.Module, residual: Tensor | None) -> None:
        super().__init__(base)
        del layer._modules["base_layer"]
        if residual is None:
            # An attribute, but no module: the frozen parameters have one name, that of the stock.
            layer.__dict__["base_layer"] = base
        else:
            layer.add_module("base_layer", _with_weight_buffer(base, residual))
        self.peft = layer
        for module in layer.modules():
            # What peft draws or takes out of the weights is the same when it is attached again.
            module._non_persistent_buffers_set.update(module._buffers)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        self._hand_over()
        if x.ndim <= 3:
            y: Tensor = self.peft(x)
            return y
        # Some of peft's layers take four dimensions for those of an image before a convolution.
        flat: Tensor = self.peft(x.flatten(1, -2))
        return flat.reshape(*x.shape[:-1], -1)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same; raise InvalidValueError without one."""
        self._hand_over()
        layer: Any = copy.deepcopy(self.peft)
        try:
            layer.merge(safe_merge=True)
        except (NotImplementedError, ValueError) as error:
            kind = type(self.peft).__name__
            raise InvalidValueError(f"peft cannot merge its {kind}: {error}") from error
        return self.to_linear(layer.base_layer.weight, layer.base_layer.bias)

    def _hand_over(self) -> None:
        """Give peft's layer the frozen tensors: others may have taken their place in the model."""
        base: Any = self.peft.base_layer
        base._parameters["bias"] = self.bias
        if "weight" in base._parameters:
            base._parameters["weight"] = self.weight


def incompatibility(family: str, options: Mapping[str, Any]) -> str | None:
    """Return why the targets make no sense on a family: ConvNeXt has no attention."""
    return low_rank.incompatibility(family, options)


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    kind: Kind = "lora",
    targets: tuple[str, ...] = (),
    settings: dict[str, Setting] = _NO_SETTINGS,
) -> Iterable[str]:
    """Put layers of peft's over the linears named in `targets`: any of qkv, proj, fc1, fc2.

    kind: a type of peft's. targets: without one, all that the backbone has, with ia3 of qkv and
    fc2. settings: fields of peft's configuration of that kind, by their names there.
    """
    bases: dict[str, nn.Linear] = {}
    for name in _find_layers(sites, kind, targets):
        bases[name] = cast(nn.Linear, model.get_submodule(name))
    layers = _make_layers(kind, settings, bases)
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return []


def _find_layers(sites: Sequence[Site], kind: str, targets: Sequence[str]) -> list[str]:
    """Return the names of the layers that targets mean; raise as `low_rank.find_targets` does."""
    for target in targets:
        choose(target, _TARGETS, "target")
    names = {site.name.rpartition(".")[-1] for site in sites if site.kind == "linear"}
    usual = _TARGETS_OF_KIND.get(kind, _TARGETS)
    present = [target for target in usual if target in names]
    return list(low_rank.find_targets(sites, targets or present or usual))


def _make_layers(
    kind: str, settings: Mapping[str, Setting], bases: Mapping[str, nn.Linear]
) -> dict[str, PeftLinear]:
    """Return a layer of peft's for each linear, by its name; the linears stay as they are.

    Raises MissingPackageError without peft, UnknownNameError and InvalidValueError on settings that
    the kind does not take.
    """
    config_class, tuner_class = _peft_classes(kind)
    # As it is by default; unasked, torch warns of it where shira makes a sparse tensor.
    torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]
    fields = check_settings(kind, settings, config_class)
    init = fields.get("init_lora_weights")
    is_residual = init in INITS_OF_THE_BASE
    # A model of their own for peft, so that it leaves nothing in the user's. It takes a dot in a
    # name for a place in the model.
    flat_names = {name: name.replace(".", "-") for name in bases}
    copies = {}
    for name, base in bases.items():
        copies[flat_names[name]] = _copy_for_peft(base, is_residual, kind in _NEEDS_VALUES)
    shell = nn.ModuleDict(copies)
    try:
        _inject(tuner_class, shell, config_class, fields)
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError, UserWarning) as error:
        given = ", ".join(f"{name}={value}" for name, value in settings.items())
        raise InvalidValueError(
            f"method.settings came as {given or 'none'}; peft does not take them for '{kind}' on "
            f"these layers: {error}"
        ) from error
    if not any(p.requires_grad for p in shell.parameters() if p.numel() > 0):
        raise InvalidValueError(
            f"With these settings '{kind}' trains nothing: {dict(settings)}; give larger ones."
        )
    layers = {}
    for name, base in bases.items():
        layers[name] = _take_over(shell[flat_names[name]], kind, base, is_residual)
    return layers


def _inject(
    tuner_class: Any, shell: nn.Module, config_class: Any, fields: Mapping[str, Any]
) -> None:
    """Let peft put its layers into a model; raise its warnings.

    They tell what it does in the place of what it was told, where a block size does not divide.
    """
    place = torch.device("meta" if next(shell.parameters()).is_meta else "cpu")
    with warnings.catch_warnings(), place:
        warnings.simplefilter("error", UserWarning)
        tuner_class(shell, config_class(target_modules=".*", **fields), _ADAPTER)


def _peft_classes(kind: str) -> tuple[Any, Any]:
    """Return peft's classes of the configuration and the tuner of a kind.

    Raises MissingPackageError where peft is too old to have it.
    """
    from peft import mapping  # noqa: PLC0415  (an extra, and slow to import)

    name: Any = _TYPES.get(kind, kind).upper()
    if name not in mapping.PEFT_TYPE_TO_TUNER_MAPPING:
        raise MissingPackageError(
            f"This version of peft has no '{kind}': {install_command(REQUIRES)} --upgrade"
        )
    return mapping.PEFT_TYPE_TO_CONFIG_MAPPING[name], mapping.PEFT_TYPE_TO_TUNER_MAPPING[name]


def _copy_for_peft(base: nn.Linear, is_changed: bool, needs_values: bool) -> nn.Linear:
    """Return a frozen linear with the tensors of `base`, or with copies where peft changes them."""
    twin = _shaped_like(base)
    tensors = {name: p.detach() for name, p in base.named_parameters()}
    for name, tensor in tensors.items():
        value = tensor
        if is_changed:
            # peft takes singular vectors of nothing more precise.
            value = tensor.clone() if tensor.dtype != torch.float64 else tensor.float()
        if needs_values and tensor.is_meta:
            value = torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
        twin.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return twin


def _take_over(layer: Any, kind: str, base: nn.Linear, is_residual: bool) -> PeftLinear:
    """Return our layer around one of peft's, in the place and the precision of `base`."""
    from peft.tuners._buffer_dict import BufferDict  # noqa: PLC0415

    constants = _CONSTANTS.get(kind)
    if constants is not None:
        values = {name: p.detach() for name, p in getattr(layer, constants).items()}
        layer.add_module(constants, BufferDict(values))
    layer.to(base.weight.device, base.weight.dtype)
    residual = None
    if is_residual:
        residual = base.weight.detach() - layer.get_delta_weight(_ADAPTER).detach()
    return PeftLinear(base, layer, residual)


def _with_weight_buffer(base: nn.Linear, weight: Tensor) -> nn.Linear:
    """Return a linear with the bias of `base`, and a weight that is no parameter."""
    twin = _shaped_like(base)
    del twin.weight
    twin.register_buffer("weight", weight)
    twin.bias = base.bias
    return twin


def _shaped_like(base: nn.Linear) -> nn.Linear:
    """Return a linear of the same shape, without values."""
    bias = base.bias is not None
    return nn.Linear(base.in_features, base.out_features, bias, device="meta")
