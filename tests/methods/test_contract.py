"""The contract of all methods on all families of backbones, cell by cell.

A method is found by itself. What is expected of it is what it states: its options, the reason that
its `incompatibility` gives, and the sentences of its docstring in `statements.py`.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_convnext, tiny_dino, tiny_eva, tiny_swin, tiny_vit
from safetensors import safe_open
from statements import STARTS_ELSEWHERE, installed_methods, is_installed, merges, states
from torch import Tensor, nn

import san
from san import methods
from san.backbones import branches, family
from san.errors import InvalidValueError, UnknownNameError

ROOT = Path(__file__).parents[2]
BACKBONES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit": (tiny_vit, 16),
    "dino": (tiny_dino, 16),
    "swin": (tiny_swin, 32),
    "convnext": (tiny_convnext, 32),
    "eva": (tiny_eva, 16),
}


def stock(backbone: str) -> nn.Module:
    make, _ = BACKBONES[backbone]
    return make()


LIBRARY = set(methods.method_module("peft").PRESETS)
# Those of HF peft's whose defaults ask for more than layers of 8 to 32 channels have; and randlora
# moved as far as `disturb` moves it is not one that half precision can compute.
SMALL: dict[str, dict[str, int]] = {
    "fourierft": {"n_frequency": 20},
    "oft": {"oft_block_size": 4},
    "randlora": {"randlora_alpha": 32},
    "shira": {"r": 2},
}


def needed_options(method: str) -> dict[str, Any]:
    """The options without which a method does not fit the tiny models."""
    return {"settings": SMALL[method]} if method in SMALL else {}


def reason(method: str, backbone: str) -> str | None:
    """The reason why the method itself does not want to be used on the backbone."""
    incompatibility = getattr(methods.method_module(method), "incompatibility", None)
    if incompatibility is None:
        return None
    on = family(stock(backbone))
    return incompatibility(on, methods.default_options(method, on))


ALL_CELLS = [(m, b) for m in installed_methods() for b in BACKBONES]
REFUSED = [cell for cell in ALL_CELLS if reason(*cell) is not None]
CELLS = [cell for cell in ALL_CELLS if cell not in REFUSED]
# What is HF peft's is one layer of ours: everyday it is tried on one family.
LATER = {(m, b) for m, b in CELLS if m in LIBRARY and m != "peft" and b != "vit"}


def marked(cells: list[tuple[str, str]], later: set[tuple[str, str]]) -> list[Any]:
    """Cells as parameters, of which some are left to `make test-cells`."""
    marks = [[pytest.mark.cells] if cell in later else [] for cell in cells]
    return [pytest.param(*cell, marks=m) for cell, m in zip(cells, marks, strict=True)]


cells = pytest.mark.parametrize(("method", "backbone"), marked(CELLS, LATER))


def attached(
    method: str, backbone: str, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[san.Adapter, Tensor]:
    """A tiny model with the method attached, and a batch of images for it."""
    _, side = BACKBONES[backbone]
    model = stock(backbone).to(dtype)
    torch.manual_seed(1)
    adapter = san.attach(model, method, **needed_options(method) | options)
    return adapter, torch.randn(8, 3, side, side, dtype=dtype)


def disturb(model: nn.Module) -> None:
    """Move every parameter a little, so that nothing is neutral."""
    torch.manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)


def steps(model: nn.Module, images: Tensor, count: int = 3) -> list[float]:
    """The losses of a few steps of SGD."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.05)
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), torch.arange(len(images)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def module_types(model: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.requires_grad]


def test_every_method_is_tried_on_every_family() -> None:
    files = {path.stem for path in (ROOT / "configs/method").glob("*.yaml")}
    configurations = {name for name in files if is_installed(name)}
    assert {method for method, _ in CELLS} == configurations
    assert len(CELLS) + len(REFUSED) == len(configurations) * len(BACKBONES)
    files = {path.stem for path in (ROOT / "san/methods").glob("*.py")} - {"__init__"}
    modules = {methods.method_module(method).__name__ for method in methods.method_names()}
    assert modules == {f"san.methods.{file}" for file in files}
    assert {family(stock(backbone)) for backbone in BACKBONES} == {"ViT", "Eva", "Swin", "ConvNeXt"}


@pytest.mark.parametrize(("method", "backbone"), REFUSED)
def test_incompatible_pairs_are_refused(method: str, backbone: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        san.attach(stock(backbone), method)
    where = f"'{method}' cannot be used on a {family(stock(backbone))}"
    assert str(caught.value) == f"{where}: {reason(method, backbone)}."


@pytest.mark.parametrize("method", methods.method_names())
def test_every_option_is_checked(method: str) -> None:
    for option in methods.default_options(method):
        with pytest.raises(InvalidValueError, match=rf"^method\.{option} came as <object"):
            methods.check_options(method, {option: object()})
    with pytest.raises(UnknownNameError, match=f"Unknown option of {method} 'model'"):
        methods.check_options(method, {"model": 1})


@cells
def test_starts_at_the_pretrained_function(method: str, backbone: str) -> None:
    still = {"init_std": 0.0} if "init_std" in methods.default_options(method) else {}
    adapter, images = attached(method, backbone, torch.float64, **still)
    expected = stock(backbone).double().eval()(images)
    same = torch.allclose(adapter.model.eval()(images), expected, atol=1e-12)
    assert same != states(method, STARTS_ELSEWHERE)


@cells
def test_trains_exactly_what_it_names(method: str, backbone: str) -> None:
    adapter, images = attached(method, backbone)
    # A layer before one that starts at zero moves by less than float32 can add.
    model = adapter.model.double()
    images = images.double()
    stock_parameters = dict(stock(backbone).double().named_parameters())
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = steps(model, images)
    assert losses[-1] < losses[0]
    after = dict(model.named_parameters())
    trainable = set(adapter.trainable)
    assert {name for name, p in after.items() if p.grad is not None} == trainable
    for name in start.keys() - trainable:
        assert torch.equal(after[name], start[name])
        assert torch.equal(after[name], stock_parameters[name])
    still = {name for name in trainable if torch.equal(after[name], start[name])}
    # A shift of all keys shifts all scores of a softmax: it moves by rounding at most.
    # What GLoRA scales is a bias, which is zero here, and E is a bias of keys.
    exempt = ("k_norm.bias", "k_norm.shift", "glora_D.default.X", "glora_E.default.X")
    assert {n for n in still if not n.endswith(exempt)} == set()


@cells
def test_counts_are_those_of_its_parameters(method: str, backbone: str) -> None:
    adapter, _ = attached(method, backbone)
    counts = adapter.counts
    sizes = {n: p.numel() for n, p in adapter.model.named_parameters() if p.requires_grad}
    assert counts.trainable == sum(sizes.values())
    assert counts.head == sum(size for n, size in sizes.items() if n.startswith("head."))
    assert counts.method + counts.norm == counts.trainable - counts.head
    added = sum(sizes[name] for name in adapter.added)
    in_head = sum(sizes[name] for name in adapter.added if name.startswith("head."))
    assert counts.method >= added - in_head
    stock_size = sum(p.numel() for p in stock(backbone).parameters())
    assert counts.total == stock_size + added
    share = (counts.method + counts.norm) / (stock_size - counts.head)
    assert counts.percent == pytest.approx(100 * share)


@cells
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_merges_to_the_stock_model(method: str, backbone: str, dtype: torch.dtype) -> None:
    adapter, images = attached(method, backbone, dtype)
    model = adapter.model.eval()
    disturb(model)
    before = model(images)
    if not merges(method, family(model)):
        with pytest.raises(InvalidValueError, match=f"'{method}' cannot be merged"):
            adapter.merge()
        assert torch.equal(model(images), before)
        return
    tolerance = 1e-10 if dtype == torch.float64 else 1e-3
    for _ in range(2):
        assert adapter.merge() is model
        assert module_types(model) == module_types(stock(backbone))
        assert torch.allclose(model(images), before, atol=tolerance)
    # A shift needs a bias where the stock layer has none.
    named = stock(backbone).named_modules()
    without = {name for name, m in named if isinstance(m, nn.Linear) and m.bias is None}
    keys = model.state_dict().keys()
    assert keys >= stock(backbone).state_dict().keys()
    extra = keys - stock(backbone).state_dict().keys()
    assert extra <= {f"{name}.bias" for name in without}
    assert not extra or method in {"ssf", "rlrr", "arc", "repadapter", "repadapter_attn"}
    assert not any(p.requires_grad for p in model.parameters())
    san.attach(model, "linear")


@cells
def test_saved_and_restored(method: str, backbone: str, tmp_path: Path) -> None:
    adapter, images = attached(method, backbone)
    steps(adapter.model, images, 1)
    expected = adapter.model.eval()(images)
    path = tmp_path / "a.safetensors"
    adapter.save(path)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {*adapter.trainable, *adapter.buffers}
    torch.manual_seed(3)
    fresh = stock(backbone)
    again = san.restore(fresh, path)
    assert torch.equal(fresh.eval()(images), expected)
    assert again.method == adapter.method
    assert again.options == adapter.options
    assert again.trainable == adapter.trainable
    assert again.counts == adapter.counts


@cells
def test_a_copy_is_another_model(method: str, backbone: str) -> None:
    adapter, images = attached(method, backbone)
    model = adapter.model.eval()
    before = model(images)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(images), before)
    for (name, p), (twin_name, twin_p) in zip(
        model.named_parameters(), twin.named_parameters(), strict=True
    ):
        assert (name, p.requires_grad) == (twin_name, twin_p.requires_grad)
    steps(twin, images, 1)
    assert torch.equal(model(images), before)
    assert not torch.equal(twin(images), before)


@cells
def test_half_precision(method: str, backbone: str) -> None:
    adapter, images = attached(method, backbone)
    model = adapter.model
    disturb(model)
    full = model.eval()(images)
    tolerance = 0.05 * full.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(images)
        mixed.float().square().sum().backward()
    assert (mixed.float() - full).abs().max() < tolerance
    for gradient in gradients(model):
        assert gradient.dtype == torch.float32
        assert torch.isfinite(gradient).all()
    for dtype in (torch.bfloat16, torch.float16):
        model.float().zero_grad()
        half = model.to(dtype)(images.to(dtype))
        half.float().square().sum().backward()
        assert (half.float() - full).abs().max() < tolerance
        assert all(torch.isfinite(gradient).all() for gradient in gradients(model))


# Tracing takes seconds: every method on two families, one of each kind of layer on the others. Of
# the code that is HF peft's, two kinds on one. Everyday a few of ours on one.
KINDS = (
    "san",
    "san_lora",
    "ssf",
    "dora",
    "adapter",
    "adaptformer",
    "vpt_deep",
    "full",
    "convpass",
    "repadapter",
)
TRACED = [(m, b) for m, b in CELLS if b in {"vit", "convnext"} or m in KINDS]
TRACED = [(m, b) for m, b in TRACED if m not in LIBRARY or (b == "vit" and m in {"peft", "oft"})]


TRACED_LATER = set(TRACED) - {("san", "vit"), ("lora", "vit"), ("ssf", "convnext")}


@pytest.mark.parametrize(("method", "backbone"), marked(TRACED, TRACED_LATER))
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_blocks_compile_without_graph_breaks(method: str, backbone: str) -> None:
    adapter, images = attached(method, backbone)
    model = adapter.model.eval()
    results = []
    torch._dynamo.reset()
    for compiled in (False, True):
        if compiled:
            blocks = branches(model)
            for name in {blocks[0].block, blocks[-1].block}:
                model.get_submodule(name).compile(backend="eager", fullgraph=True)
        model.zero_grad()
        loss = model(images).square().sum()
        loss.backward()
        results.append([loss, *gradients(model)])
    for eager, compiled_one in zip(*results, strict=True):
        assert torch.allclose(eager, compiled_one, rtol=1e-3, atol=1e-4)
