"""FacT and ARC, whose layers share factors: their formulas, on activations, by hooks alone."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from conftest import tiny_dino, tiny_eva, tiny_swin, tiny_vit
from torch import Tensor, nn

import san
from san.errors import UnsupportedModelError

METHODS = [("fact_tk", {"rank": 4}), ("fact_tt", {"rank": 4}), ("arc", {"rank": 5})]


def disturbed(
    make: Callable[[], nn.Module], method: str, **options: object
) -> tuple[san.Adapter, dict[str, Tensor]]:
    """A method in which nothing is zero, and all parameters by name, shared ones by each name."""
    torch.manual_seed(0)
    adapter = san.attach(make().double(), method, **options)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in adapter.model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    return adapter, dict(adapter.model.named_parameters(remove_duplicate=False))


def stock_of(make: Callable[[], nn.Module], ours: dict[str, Tensor]) -> nn.Module:
    """The stock model with the same weights."""
    model = make().double()
    model.load_state_dict({name: ours[name] for name, _ in model.named_parameters()}, strict=False)
    return model


def images_for(make: Callable[[], nn.Module]) -> Tensor:
    torch.manual_seed(2)
    side = 32 if make is tiny_swin else 16
    return torch.randn(3, 3, side, side, dtype=torch.float64)


def fact_matrices(
    method: str, ours: dict[str, Tensor], block: str, start: int, parts: tuple[int, int]
) -> dict[str, Tensor]:
    """C of each layer of a block, as the matrix that its low-rank inputs are multiplied with.

    start: of the block's columns of P. parts: of fc1 and fc2.
    """
    names = ("q", "k", "v", "proj", "fc1", "fc2")
    if method == "fact_tt":
        qkv = ours[f"{block}.attn.qkv.core.weight"]
        proj = ours[f"{block}.attn.proj.core.weight"]
        fc1 = ours[f"{block}.mlp.fc1.core.weight"]
        fc2 = ours[f"{block}.mlp.fc2.core.weight"]
        rank = qkv.shape[-1]
        square = [qkv[0], qkv[1], qkv[2], proj]
        matrices = [each.reshape(rank, rank).T for each in square]
        matrices += [fc1.reshape(-1, rank).T, fc2.reshape(rank, -1).T]
        return dict(zip(names, matrices, strict=True))
    tensor = ours[f"{block}.attn.qkv.core.tensor"]
    mixing = ours[f"{block}.attn.qkv.core.mixing"]
    rank = len(tensor)
    mixed = torch.einsum("abj,jc->abc", tensor, mixing)[:, :, start:]
    middle = 4 + parts[0]
    matrices = [mixed[:, :, i] for i in range(4)]
    matrices.append(mixed[:, :, 4:middle].reshape(rank, -1))
    matrices.append(mixed[:, :, middle : middle + parts[1]].reshape(rank, -1).T)
    return dict(zip(names, matrices, strict=True))


def add_fact(model: nn.Module, method: str, ours: dict[str, Tensor], scale: float) -> None:
    """Add FacT's updates to the outputs of a stock model's layers."""
    down = ours["blocks.0.attn.qkv.down.weight"]
    up = scale * ours["blocks.0.attn.qkv.up.weight"]
    start = 0
    for i, block in enumerate(model.blocks):
        parts = block.mlp.fc1.out_features // len(up), block.mlp.fc2.in_features // len(up)
        found = fact_matrices(method, ours, f"blocks.{i}", start, parts)
        add_update(block.attn.qkv, down, up, [found["q"], found["k"], found["v"]])
        add_update(block.attn.proj, down, up, [found["proj"]])
        add_update(block.mlp.fc1, down, up, [found["fc1"]])
        add_update(block.mlp.fc2, down, up, [found["fc2"]])
        start += 4 + sum(parts)


def add_update(layer: nn.Module, down: Tensor, up: Tensor, matrices: list[Tensor]) -> None:
    """Add to a layer's output what the pieces of its input become, each as wide as the model."""

    def hook(_: nn.Module, inputs: tuple[Tensor], y: Tensor) -> Tensor:
        low = torch.cat([piece @ down.T for piece in inputs[0].split(len(up), -1)], -1)
        mixed = torch.cat([low @ matrix for matrix in matrices], -1)
        return y + torch.cat([piece @ up.T for piece in mixed.split(len(down), -1)], -1)

    layer.register_forward_hook(hook)


def assert_same_function(adapter: san.Adapter, by_hand: nn.Module, images: Tensor) -> None:
    """Assert that outputs are equal, and the gradients of what the method added."""
    parameters = dict(adapter.model.named_parameters())
    added = [parameters[name] for name in sorted(adapter.added)]
    outputs = [model.eval()(images) for model in (adapter.model, by_hand)]
    assert (outputs[0] - outputs[1]).abs().max() < 1e-10
    weights = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad((out * weights).sum(), added) for out in outputs]
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * (1 + theirs.abs().max())


@pytest.mark.parametrize("make", [tiny_vit, tiny_dino, tiny_eva])
@pytest.mark.parametrize("method", ["fact_tk", "fact_tt"])
def test_fact_is_its_formula(method: str, make: Callable[[], nn.Module]) -> None:
    adapter, ours = disturbed(make, method, rank=4, scale=3)
    by_hand = stock_of(make, ours)
    add_fact(by_hand, method, ours, 3.0)
    assert_same_function(adapter, by_hand, images_for(make))


def arc_of(ours: dict[str, Tensor], place: str) -> Callable[[Tensor], Tensor]:
    """What the adapter called so adds."""
    projection, coefficients, shift = (
        ours[f"{place}.arc.{name}"] for name in ("projection", "coefficients", "shift")
    )
    return lambda x: ((x @ projection) * coefficients) @ projection.T + shift


def blocks_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if hasattr(module, "norm2"):
            yield name, module


def add_arc(model: nn.Module, ours: dict[str, Tensor], placement: str) -> None:
    """Adapt the outputs of a stock model's norms, in Swin the stream in place of norm2's."""
    for name, block in blocks_of(model):
        attention = arc_of(ours, f"{name}.attn.qkv")
        block.norm1.register_forward_hook(lambda _, inputs, y, add=attention: y + add(y))
        if placement == "attention":
            continue
        if f"{name}.arc.shift" in ours:
            adapt_stream(block, arc_of(ours, name))
        else:
            mlp = arc_of(ours, f"{name}.mlp.fc1")
            block.norm2.register_forward_hook(lambda _, inputs, y, add=mlp: y + add(y))


def adapt_stream(block: nn.Module, added: Callable[[Tensor], Tensor]) -> None:
    """Let the output of the attention be such that its sum with the stream is the adapted one."""
    seen = []
    block.norm1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block.drop_path1.register_forward_hook(lambda _, inputs, y: y + added(seen.pop() + y))


@pytest.mark.parametrize("make", [tiny_vit, tiny_dino, tiny_eva, tiny_swin])
@pytest.mark.parametrize("placement", ["both", "attention"])
def test_arc_is_its_formula(placement: str, make: Callable[[], nn.Module]) -> None:
    adapter, ours = disturbed(make, "arc", rank=5, placement=placement)
    by_hand = stock_of(make, ours)
    add_arc(by_hand, ours, placement)
    assert_same_function(adapter, by_hand, images_for(make))


def test_arc_shares_its_projections_in_a_stage() -> None:
    names = [name for name, _ in san.attach(tiny_swin(), "arc").model.named_parameters()]
    projections = [name for name in names if name.endswith("projection")]
    assert projections == [
        f"layers.{stage}.blocks.0.{place}arc.projection"
        for stage in (0, 1)
        for place in ("attn.qkv.", "")
    ]


def test_arc_of_the_attention_starts_pretrained_and_merges_on_swin() -> None:
    plain = tiny_swin().double().eval()
    images = images_for(tiny_swin)
    model = san.attach(copy.deepcopy(plain), "arc", placement="attention").model
    assert torch.allclose(model(images), plain(images), atol=1e-12)
    adapter, _ = disturbed(tiny_swin, "arc", placement="attention")
    before = adapter.model.eval()(images)
    assert torch.allclose(adapter.merge()(images), before, atol=1e-10)
    assert not torch.allclose(before, plain(images), atol=1e-2)


@pytest.mark.parametrize(
    ("method", "options", "make"),
    [*((*each, tiny_vit) for each in METHODS), (*METHODS[-1], tiny_swin)],
)
def test_with_dropout_they_are_the_same_function(
    method: str, options: dict[str, int], make: Callable[[], nn.Module]
) -> None:
    """With a dropout that drops nothing, training acts on activations, as it must on weights."""
    results = []
    for dropout in (0.0, 1e-12):
        model = disturbed(make, method, **options, dropout=dropout)[0].model
        out = model.train()(images_for(make))
        out.square().sum().backward()
        results.append([out, *(p.grad for p in model.parameters() if p.requires_grad)])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_dropout_is_of_the_low_rank_activations(method: str, options: dict[str, int]) -> None:
    """Their mean over many draws is the function without it."""
    adapter, _ = disturbed(tiny_vit, method, **options, dropout=0.5)
    layer = adapter.model.blocks[0].mlp.fc1.train()
    x = torch.randn(32, dtype=torch.float64).expand(20_000, -1)
    drawn = layer(x)
    expected = layer.eval()(x[:1])
    assert torch.allclose(drawn.mean(0, keepdim=True), expected, atol=0.05)
    assert drawn.std(0).min() > 0


def test_fact_refuses_layers_that_are_no_multiple_of_the_width() -> None:
    model = tiny_vit(mlp_ratio=3.5)
    before = dict(model.named_parameters()).keys()
    with pytest.raises(UnsupportedModelError, match=r"fc1 has 32 inputs and 112 outputs: one must"):
        san.attach(model, "fact_tk")
    assert dict(model.named_parameters()).keys() == before
