"""The contract of all methods on all families of backbones, cell by cell."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_convnext, tiny_dino, tiny_swin, tiny_vit
from safetensors import safe_open
from torch import Tensor, nn

import san
from san import methods
from san.backbones import branches

BACKBONES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit": (tiny_vit, 16),
    "dino": (tiny_dino, 16),
    "swin": (tiny_swin, 32),
    "convnext": (tiny_convnext, 32),
}
REFUSED = {("vpt_shallow", "convnext"), ("vpt_deep", "convnext")}
CELLS = [(m, b) for m in methods.method_names() for b in BACKBONES if (m, b) not in REFUSED]
# The options with which a method starts at the pre-trained function; the others never do.
IDENTICAL_AT_START: dict[str, dict] = {
    name: {"std": 0.0} if name in ("ssf", "adapter", "adapter_plus") else {}
    for name in methods.method_names()
    if not name.startswith("vpt")
}
NOT_MERGED = {"adapter", "adapter_plus", "adaptformer", "vpt_deep", "vpt_shallow"}
cells = pytest.mark.parametrize(("method", "backbone"), CELLS)


def attached(
    method: str, backbone: str, dtype: torch.dtype = torch.float32, **options
) -> tuple[san.Adapter, Tensor]:
    """A tiny model with the method attached, and a batch of images for it."""
    make, side = BACKBONES[backbone]
    if backbone == "convnext" and "targets" in methods.default_options(method):
        options |= {"targets": ["fc1", "fc2"]}
    model = make().to(dtype)
    torch.manual_seed(1)
    return san.attach(model, method, **options), torch.randn(8, 3, side, side, dtype=dtype)


def disturb(model: nn.Module) -> None:
    """Move every parameter a little, so that nothing is neutral."""
    torch.manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)


def steps(model: nn.Module, images: Tensor, count: int = 3) -> list[float]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), torch.arange(len(images)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_matrix_is_whole() -> None:
    assert len(methods.method_names()) == 18
    assert len(CELLS) == 18 * 4 - 2


@pytest.mark.parametrize(("method", "backbone"), sorted(REFUSED))
def test_pairs_without_sense_are_refused(method: str, backbone: str) -> None:
    with pytest.raises(
        ValueError, match=f"'{method}' cannot be used on a ConvNeXt: it has no attention"
    ):
        san.attach(BACKBONES[backbone][0](), method)


@cells
def test_starts_at_the_pretrained_function(method: str, backbone: str) -> None:
    adapter, images = attached(
        method, backbone, torch.float64, **IDENTICAL_AT_START.get(method, {})
    )
    same = torch.allclose(
        adapter.model.eval()(images), BACKBONES[backbone][0]().double().eval()(images), atol=1e-12
    )
    assert same == (method in IDENTICAL_AT_START)


@cells
def test_trains_exactly_what_it_names(method: str, backbone: str) -> None:
    adapter, images = attached(method, backbone)
    model, stock = adapter.model, dict(BACKBONES[backbone][0]().named_parameters())
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = steps(model, images)
    assert losses[-1] < losses[0]
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(
        adapter.trainable
    )
    frozen = start.keys() - set(adapter.trainable)
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], start[name]) for name in frozen)
    assert all(torch.equal(after[name], stock[name]) for name in frozen)
    moved = {name for name in adapter.trainable if not torch.equal(after[name], start[name])}
    # What shifts all keys shifts all scores of a softmax, and moves by rounding at most.
    assert {
        n for n in set(adapter.trainable) - moved if not n.endswith(("k_norm.bias", "k_norm.shift"))
    } == set()


@cells
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_merges_to_the_stock_model(method: str, backbone: str, dtype: torch.dtype) -> None:
    adapter, images = attached(method, backbone, dtype)
    model = adapter.model.eval()
    disturb(model)
    before = model(images)
    if method in NOT_MERGED:
        with pytest.raises(ValueError, match=f"'{method}' cannot be merged"):
            adapter.merge()
        assert torch.equal(model(images), before)
        return
    for _ in range(2):
        adapter.merge()
        assert [(n, type(m)) for n, m in model.named_modules()] == [
            (n, type(m)) for n, m in BACKBONES[backbone][0]().named_modules()
        ]
        assert torch.allclose(
            model(images), before, **{"atol": 1e-10} if dtype == torch.float64 else {"atol": 1e-3}
        )
    assert model.state_dict().keys() == BACKBONES[backbone][0]().state_dict().keys()
    assert not any(p.requires_grad for p in model.parameters())
    san.attach(model, "linear")


@cells
def test_saved_and_restored(method: str, backbone: str, tmp_path: Path) -> None:
    adapter, images = attached(method, backbone)
    steps(adapter.model, images, 1)
    expected = adapter.model.eval()(images)
    adapter.save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(file.keys()) == set(adapter.trainable)
    torch.manual_seed(3)
    fresh = BACKBONES[backbone][0]()
    again = san.restore(fresh, tmp_path / "a.safetensors")
    assert torch.equal(fresh.eval()(images), expected)
    assert (again.method, again.options, again.trainable) == (
        adapter.method,
        adapter.options,
        adapter.trainable,
    )


@cells
def test_a_copy_is_another_model(method: str, backbone: str) -> None:
    adapter, images = attached(method, backbone)
    model = adapter.model.eval()
    before = model(images)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(images), before)
    assert {n: p.requires_grad for n, p in twin.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    steps(twin, images, 1)
    assert torch.equal(model(images), before)
    assert not torch.equal(twin(images), before)


@cells
def test_half_precision(method: str, backbone: str) -> None:
    adapter, images = attached(method, backbone)
    disturb(adapter.model)
    full = adapter.model.eval()(images)
    size = full.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = adapter.model(images)
        mixed.float().square().sum().backward()
    assert (mixed.float() - full).abs().max() < 0.05 * size
    trained = [p for p in adapter.model.parameters() if p.requires_grad]
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in trained)
    for dtype in (torch.bfloat16, torch.float16):
        adapter.model.float().zero_grad()
        half = adapter.model.to(dtype)(images.to(dtype))
        half.float().square().sum().backward()
        assert (half.float() - full).abs().max() < 0.05 * size
        assert all(torch.isfinite(p.grad).all() for p in trained)


@cells
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_blocks_compile_without_graph_breaks(method: str, backbone: str) -> None:
    adapter, images = attached(method, backbone)
    model = adapter.model.eval()
    losses = []
    torch._dynamo.reset()
    for compiled in (False, True):
        if compiled:
            for name in {branches(model)[0].block, branches(model)[-1].block}:
                model.get_submodule(name).compile(backend="eager", fullgraph=True)
        model.zero_grad()
        loss = model(images).square().sum()
        loss.backward()
        losses.append([loss, *(p.grad.clone() for p in model.parameters() if p.requires_grad)])
    for a, b in zip(*losses, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)
