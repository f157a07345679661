"""FacT: updates of all layers decomposed together, with shared factors (Jie & Deng, AAAI 2023).

    W + scale * V C U           for each d x d part of W: q, k, v, proj, four of fc1, four of fc2
    C = K (fact_tt), or         U: (rank, d) and V: (d, rank), shared by all layers;
    C = sum_j P_j T_j (fact_tk)     K: (rank, rank), of each part; T: (rank, rank, rank), shared;
                                P: (rank, 12 * layers), a column for each part

V is zero at the start; U and K are drawn as `nn.Linear` draws its weights, T and P Xavier-uniform.
As in JieShibo/PETL-ViT at 026e4f1, FacT/: there the sums of fact_tk stand transposed in q, k, v and
proj, and those of fc1 or of fc2 are one matrix, in fc1 transposed, whose columns take turns among
them. Dropout (0.1 there) is between C and V.

Trainable on ViT-B/16 without the head: fact_tk 86,528 at rank 32 and 30,976 at 16; fact_tt 61,440
at rank 16, 21,504 at 8 and 8,448 at 4. It starts at the pre-trained function and merges exactly.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from san.backbones import Site
from san.errors import UnsupportedModelError
from san.layers.scaled_op import scaled_op
from san.layers.shared_linear import SharedLinear
from san.schema import DropoutRate, PositiveInt

PRESETS = {
    "fact_tk": {},
    "fact_tt": {"decomposition": "tensor_train", "rank": 16},
}
_MLP_LAYERS = ("fc1", "fc2")


def incompatibility(family: str, options: Mapping[str, Any]) -> str | None:
    """Refuse families whose layers differ in width."""
    if family not in ("Swin", "ConvNeXt"):
        return None
    return "its width grows from stage to stage, and the factors of FacT are shared by all layers"


class TensorTrainCore(nn.Module):
    """The C of a layer, each a parameter of its own: `(outputs, rank, inputs, rank)`.

    outputs, inputs: into how many parts of the model's width the layer's channels are cut.
    """

    def __init__(self, outputs: int, inputs: int, rank: int, like: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(like.new_empty(outputs, rank, inputs, rank))
        bound = 1 / math.sqrt(inputs * rank)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self) -> Tensor:
        """Return C `(outputs, rank, inputs, rank)`."""
        return self.weight


class TuckerCore(nn.Module):
    """The C of a layer out of a tensor that all layers share.

    tensor: `(rank, rank, rank)`, its first axis read, its second written. mixing: `(rank, parts)`,
    of all layers; this one's are `outputs * inputs` of them from `start` on. alternate: whether
    they alternate in C, rather than stand side by side; then in fc1, which `is_transposed`, the
    first axis is written and the second read.
    """

    def __init__(
        self,
        tensor: nn.Parameter,
        mixing: nn.Parameter,
        start: int,
        outputs: int,
        inputs: int,
        alternate: bool,
        is_transposed: bool,
    ) -> None:
        super().__init__()
        self.tensor = tensor
        self.mixing = mixing
        self.columns = slice(start, start + outputs * inputs)
        self.outputs = outputs
        self.inputs = inputs
        self.alternate = alternate
        self.is_transposed = is_transposed

    def forward(self) -> Tensor:
        """Return C `(outputs, rank, inputs, rank)`."""
        rank = len(self.tensor)
        mixed = self.tensor @ self.mixing[:, self.columns]
        if not self.alternate:
            return mixed.permute(2, 1, 0).unsqueeze(2)
        wide = mixed.flatten(1)
        matrix = wide.T if self.is_transposed else wide
        return matrix.reshape(self.outputs, rank, self.inputs, rank)


class FactLinear(SharedLinear):
    """An `nn.Linear` under the update. down, up: U and V, shared; core: the module that gives C."""

    def __init__(
        self,
        base: nn.Linear,
        down: nn.Linear,
        up: nn.Linear,
        core: nn.Module,
        scale: float,
        dropout: float,
    ) -> None:
        super().__init__(base)
        self.down = down
        self.up = up
        self.core = core
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`."""
        if not self.training or self.dropout.p == 0:
            down, up = self.factors()
            return scaled_op(x, self.weight, self.bias, down=down, up=up)
        frozen = scaled_op(x, self.weight, self.bias)
        core: Tensor = self.core()
        outputs, rank, inputs, _ = core.shape
        low = self.down(torch.unflatten(x, -1, (inputs, -1))).flatten(-2)
        mixed = self.dropout(F.linear(low, core.reshape(outputs * rank, inputs * rank)))
        update = self.up(torch.unflatten(mixed, -1, (outputs, rank))).flatten(-2)
        return torch.add(frozen, update, alpha=self.scale)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the update as two factors, `(rank, I)` and `(O, rank)`."""
        # In full precision, as the update is added before anything is rounded.
        with torch.autocast(self.weight.device.type, enabled=False):
            core: Tensor = self.core()
            down = self.down.weight
            up = self.scale * self.up.weight
            if len(core) == 1:
                return (core[0] @ down).flatten(1), up
            return down, (up @ core.squeeze(2)).flatten(0, 1)

    def merged(self) -> nn.Module:
        """Return the plain layer that computes the same."""
        down, up = self.factors()
        return self.to_linear(self.weight + up @ down, self.bias)


def attach(
    model: nn.Module,
    sites: tuple[Site, ...],
    *,
    decomposition: Literal["tucker", "tensor_train"] = "tucker",
    rank: PositiveInt = 32,
    scale: float = 1.0,
    dropout: DropoutRate = 0.0,
) -> Iterable[str]:
    """Update every linear of every block.

    rank, scale: chosen for each task there, ranks of 16 and 32 (fact_tk) and of 4, 8 and 16
    (fact_tt), scales from 0.01 to 100. dropout: 0.1 there.
    """
    linears = [site for site in sites if site.kind == "linear" and site.part == "block"]
    parts = {site.name: _count_parts(site, linears[0].inputs) for site in linears}
    like = next(model.parameters())
    down, up = _shared_factors(linears[0].inputs, rank, like)
    cores: Mapping[str, nn.Module]
    if decomposition == "tucker":
        cores = _tucker_cores(parts, rank, like)
    else:
        cores = {name: TensorTrainCore(*count, rank, like) for name, count in parts.items()}
    for name, core in cores.items():
        base = cast(nn.Linear, model.get_submodule(name))
        model.set_submodule(name, FactLinear(base, down, up, core, scale, dropout))
    return []


def _count_parts(site: Site, width: int) -> tuple[int, int]:
    """Return into how many parts of the model's width the outputs and inputs of a site are cut.

    Raises UnsupportedModelError unless it is a whole number of both, and one of them is 1.
    """
    outputs, outputs_left = divmod(site.channels, width)
    inputs, inputs_left = divmod(site.inputs, width)
    if outputs_left or inputs_left or min(outputs, inputs) != 1:
        raise UnsupportedModelError(
            f"FacT cuts weights into squares of the model's width, {width}; {site.name} has "
            f"{site.inputs} inputs and {site.channels} outputs: one must be {width}, the other a "
            "multiple of it. `lora` has no such condition."
        )
    return outputs, inputs


def _shared_factors(width: int, rank: int, like: Tensor) -> tuple[nn.Linear, nn.Linear]:
    """Return U and V."""
    dtype = like.dtype
    device = like.device
    down = nn.Linear(width, rank, bias=False, dtype=dtype, device=device)
    up = nn.Linear(rank, width, bias=False, dtype=dtype, device=device)
    nn.init.zeros_(up.weight)
    return down, up


def _tucker_cores(
    parts: Mapping[str, tuple[int, int]], rank: int, like: Tensor
) -> dict[str, nn.Module]:
    """Return the cores by the names of their layers; parts: of each, in the order of the model."""
    total = sum(outputs * inputs for outputs, inputs in parts.values())
    tensor = nn.Parameter(like.new_empty(rank, rank, rank))
    mixing = nn.Parameter(like.new_empty(rank, total))
    nn.init.xavier_uniform_(tensor)
    nn.init.xavier_uniform_(mixing)
    cores: dict[str, nn.Module] = {}
    start = 0
    for name, (outputs, inputs) in parts.items():
        alternate = name.endswith(_MLP_LAYERS)
        is_fc1 = name.endswith("mlp.fc1")
        cores[name] = TuckerCore(tensor, mixing, start, outputs, inputs, alternate, is_fc1)
        start += outputs * inputs
    return cores
