"""Our methods compute what the official implementations do: logits, gradients, SGD steps, counts.

tests/oracles/NAME.{json,npz} hold the results of the official code in float64 on weights filled by
a formula; ours.yaml says how to reach them with our methods. One more pair of files in the folder
is all that a new oracle of those takes.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from oracles.fill import fill
from statements import STARTS_ELSEWHERE, merges, states
from timm.models import ConvNeXt, SwinTransformer, VisionTransformer
from torch import Tensor, nn

import san
from san.backbones import family
from san.errors import InvalidValueError

FOLDER = Path(__file__).parents[1] / "oracles"
OURS = yaml.safe_load((FOLDER / "ours.yaml").read_text())
FILES = sorted(path.stem for path in FOLDER.glob("*.npz"))
TOLERANCE = 1e-10


def backbone(shape: dict[str, Any]) -> nn.Module:
    """The small stock model that an oracle was computed on."""
    if "dims" in shape:
        names = ("depths", "dims", "num_classes", "ls_init_value")
        return ConvNeXt(**{name: shape[name] for name in names})
    if "window_size" in shape:
        names = (
            "img_size",
            "patch_size",
            "embed_dim",
            "depths",
            "num_heads",
            "window_size",
            "num_classes",
        )
        return SwinTransformer(**{name: shape[name] for name in names})
    return VisionTransformer(
        img_size=shape["img"],
        patch_size=shape["patch"],
        embed_dim=shape["dim"],
        depth=shape["depth"],
        num_heads=shape["heads"],
        num_classes=shape["classes"],
    )


class Oracle:
    """One mode of one file, and our model filled like the official one."""

    def __init__(self, name: str, mode: str | None, options: dict[str, Any] | None = None) -> None:
        self.name = name
        self.mode = mode
        self.ours = OURS[name] | (OURS[name]["modes"][mode] if mode else {})
        self.meta: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
        self.arrays = np.load(FOLDER / f"{name}.npz")
        self.model = backbone(self.meta["model"]).double().eval()
        stock = {name for name, _ in self.model.named_parameters()}
        options = self.ours.get("options", {}) if options is None else options
        self.adapter = san.attach(self.model, self.ours["method"], **options)
        self.parameters = dict(self.model.named_parameters())
        assert stock <= self.parameters.keys()
        self.records = [r for r in self.meta["parameters"] if not self.dead(r)]
        mapped = {name for record in self.records for name, _ in self.places(record)}
        assert self.parameters.keys() == mapped
        for record in self.records:
            self.load(record)

    @torch.no_grad()
    def load(self, record: dict[str, Any]) -> None:
        """Give our parameters the values of an official one."""
        value = self.value(record)
        places = self.places(record)
        rows = [value] if len(places) == 1 else list(value)
        for (name, index), row in zip(places, rows, strict=True):
            ours = self.parameters[name][index]
            self.parameters[name][index] = row.reshape(ours.shape)

    def value(self, record: dict[str, Any]) -> Tensor:
        """The tensor of an official parameter; separate q, k, v are thirds of the fused key's."""
        shape = list(record["shape"])
        part = record.get("qkv_part")
        filled_shape = shape if part is None else [3 * shape[0], *shape[1:]]
        full = fill(record["key"], filled_shape, record["offset"], record["amp"])
        return torch.from_numpy(full if part is None else np.split(full, 3)[part])

    def places(self, record: dict[str, Any]) -> list[tuple[str, Any]]:
        """Our parameters that an official one is, and where in them: one, or one for each row."""
        name = self.our_name(record)
        if "qkv_part" in record:
            rows = record["shape"][0]
            start = record["qkv_part"] * rows
            return [(name, slice(start, start + rows))]
        if "*" in name:
            star, first = ("*0", 0) if "*0" in name else ("*", 1)
            blocks = range(first, first + record["shape"][0])
            return [(name.replace(star, str(i)), 0) for i in blocks]
        name, _, index = name.partition("[")
        return [(name, self.index(name, index.rstrip("]")))]

    def index(self, name: str, text: str) -> Any:
        """What `[i]` or `[i/n]` behind a name stands for; nothing: all of it."""
        if "/" not in text:
            return int(text) if text else slice(None)
        part, parts = map(int, text.split("/"))
        size = len(self.parameters[name]) // parts
        return slice(part * size, (part + 1) * size)

    def read(self, record: dict[str, Any], ours: dict[str, Tensor]) -> Tensor:
        """Put together from our tensors the one that stands for an official parameter."""
        found = [ours[name][index] for name, index in self.places(record)]
        joined = found[0] if len(found) == 1 else torch.stack(found)
        return joined.reshape(record["shape"])

    def dead(self, record: dict[str, Any]) -> bool:
        return "dead" in self.ours and re.search(self.ours["dead"], record["name"]) is not None

    def our_name(self, record: dict[str, Any]) -> str:
        for pattern, replacement in self.ours.get("names", []):
            name, changes = re.subn(pattern, replacement, record["name"])
            if changes:
                return name
        return record["key"]

    def array(self, name: str) -> Tensor:
        """An array of this mode, e.g. `gsum_nt/...`; logits_neutral is every mode's."""
        candidates = [name]
        if self.mode is not None:
            candidates = [f"{name}_{self.mode}", name.replace("/", f"_{self.mode}/", 1)]
        return torch.from_numpy(self.arrays[next(c for c in candidates if c in self.arrays.files)])

    @property
    def images(self) -> Tensor:
        return torch.from_numpy(self.arrays["input"]).double()

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.arrays["targets"]).long()


def cases(files: list[str]) -> Iterator[tuple[str, str | None]]:
    """Every file, in every mode whose arrays it holds."""
    for name in files:
        arrays = np.load(FOLDER / f"{name}.npz").files
        for mode in OURS[name].get("modes", {None: {}}):
            if mode is None or f"logits_{mode}" in arrays:
                yield name, mode


ALL = list(cases([name for name in FILES if name in OURS]))
EQUAL = [case for case in ALL if "unequal" not in OURS[case[0]]]


def close(ours: Tensor, theirs: Tensor) -> None:
    """Equal to TOLERANCE; to a float32's precision where the file stores that (full_ft's gce)."""
    tolerance = TOLERANCE if theirs.dtype == torch.float64 else 1e-6 * max(1.0, theirs.abs().max())
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance


@pytest.fixture(params=EQUAL, ids=lambda case: "-".join(filter(None, case)), name="oracle")
def _oracle(request: pytest.FixtureRequest) -> Oracle:
    return Oracle(*request.param)


def test_every_file_is_used() -> None:
    assert set(FILES) <= OURS.keys(), "an oracle without an entry in ours.yaml"
    assert {path.stem for path in FOLDER.glob("*.json")} == {*FILES, "counts_base"}
    assert len(FILES) == 14
    assert len(EQUAL) == 16


@pytest.mark.parametrize("name", FILES)
def test_every_array_is_compared(name: str) -> None:
    known = {"input", "targets", "logits", "logits_sgd3", "logits_neutral", "logits_head_only"}
    for kind in ("extras", "alone", "not_ours"):
        known |= OURS[name].get(kind, {}).keys()
    for mode in OURS[name].get("modes", {}):
        known |= {f"logits_{mode}", f"logits_sgd3_{mode}"}
    arrays = np.load(FOLDER / f"{name}.npz").files
    assert {array for array in arrays if "/" not in array} <= known


def test_logits(oracle: Oracle) -> None:
    close(oracle.model(oracle.images).detach(), oracle.array("logits"))


EXTRAS = [(name, array) for name in FILES for array in OURS.get(name, {}).get("extras", {})]


@pytest.mark.parametrize(("name", "array"), EXTRAS)
def test_logits_with_other_options(name: str, array: str) -> None:
    oracle = Oracle(name, None, OURS[name]["extras"][array])
    close(oracle.model(oracle.images).detach(), torch.from_numpy(oracle.arrays[array]))


@pytest.mark.parametrize("kind", ["gsum", "gce"])
def test_gradients(oracle: Oracle, kind: str) -> None:
    logits = oracle.model(oracle.images)
    loss = logits.sum() if kind == "gsum" else F.cross_entropy(logits, oracle.labels)
    loss.backward()
    gradients = {name: p.grad for name, p in oracle.parameters.items() if p.grad is not None}
    trained = [record for record in oracle.records if record["trainable"]]
    assert trained
    assert gradients.keys() == {name for r in trained for name, _ in oracle.places(r)}
    for record in trained:
        close(oracle.read(record, gradients), oracle.array(f"{kind}/{record['name']}"))


def test_three_steps_of_sgd(oracle: Oracle) -> None:
    trained = [p for p in oracle.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=oracle.meta["sgd"]["lr"])
    for _ in range(oracle.meta["sgd"]["steps"]):
        optimizer.zero_grad()
        F.cross_entropy(oracle.model(oracle.images), oracle.labels).backward()
        optimizer.step()
    close(oracle.model(oracle.images).detach(), oracle.array("logits_sgd3"))


def test_neutral(oracle: Oracle) -> None:
    """Switched off, a method is the plain backbone.

    That is: scales at one; shifts, coefficients of what is added, and the last layer on a way back
    into the network, at zero.
    """
    neutral = {"logits_neutral", "logits_head_only"} & set(oracle.arrays.files)
    if not neutral:
        can_be_switched_off = not states(oracle.ours["method"], STARTS_ELSEWHERE)
        assert not (can_be_switched_off and oracle.adapter.added)
        return
    switch_off(oracle, oracle.adapter.added)
    for array in neutral:
        close(oracle.model(oracle.images).detach(), torch.from_numpy(oracle.arrays[array]))


@torch.no_grad()
def switch_off(oracle: Oracle, names: Iterable[str]) -> None:
    for name in names:
        last = name.rsplit(".", 1)[-1]
        if last in ("scale", "recalibration"):
            oracle.parameters[name].fill_(1)
        if last in ("shift", "coefficients", "lora_b", "row", "column") or ".up." in name:
            oracle.parameters[name].fill_(0)


ALONE = [(name, array) for name in FILES for array in OURS.get(name, {}).get("alone", {})]


@pytest.mark.parametrize(("name", "array"), ALONE)
def test_a_part_of_a_method_alone(name: str, array: str) -> None:
    oracle = Oracle(name, None)
    kept = re.compile(OURS[name]["alone"][array])
    others = {added for added in oracle.adapter.added if not kept.search(added)}
    assert others < oracle.adapter.added
    switch_off(oracle, others)
    close(oracle.model(oracle.images).detach(), torch.from_numpy(oracle.arrays[array]))


@pytest.mark.parametrize(("name", "mode"), ALL)
def test_counts(name: str, mode: str | None) -> None:
    oracle = Oracle(name, mode)
    dead = [r for r in oracle.meta["parameters"] if oracle.dead(r) and r["trainable"]]
    dead_numbers = sum(int(np.prod(record["shape"])) for record in dead)
    official = oracle.meta["counts_small"]
    assert oracle.adapter.counts.trainable == official["trainable"] - dead_numbers
    assert oracle.adapter.counts.head == official["head"]


def test_merged(oracle: Oracle) -> None:
    before = oracle.model(oracle.images)
    if not merges(oracle.ours["method"], family(oracle.model)):
        with pytest.raises(InvalidValueError, match="cannot be merged"):
            oracle.adapter.merge()
        assert torch.equal(oracle.model(oracle.images), before)
        return
    model = oracle.adapter.merge()
    plain = backbone(oracle.meta["model"])
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    close(model(oracle.images), before)
    close(oracle.adapter.merge()(oracle.images), before)
