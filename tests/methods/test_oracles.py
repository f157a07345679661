"""Our methods compute what the official implementations compute: logits, gradients, three SGD steps, neutral, counts.

tests/oracles/NAME.{json,npz} hold what the official code gave in float64 on weights filled by a formula; ours.yaml says
how to reach it with our methods. Dropping one more pair of files into the folder is all a new oracle of those takes.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from oracles.fill import fill
from timm.models import ConvNeXt, SwinTransformer, VisionTransformer
from torch import Tensor, nn

import san

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
        img_size=shape["img"], patch_size=shape["patch"], embed_dim=shape["dim"], depth=shape["depth"],
        num_heads=shape["heads"], num_classes=shape["classes"],
    )  # fmt: skip


class Oracle:
    """One mode of one file, and our model filled like the official one."""

    def __init__(self, name: str, mode: str | None, options: dict[str, Any] | None = None) -> None:
        self.name, self.mode = name, mode
        self.ours = OURS[name] | (OURS[name]["modes"][mode] if mode else {})
        self.meta: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
        self.arrays = np.load(FOLDER / f"{name}.npz")
        self.model = backbone(self.meta["model"]).double().eval()
        stock = {name for name, _ in self.model.named_parameters()}
        options = self.ours.get("options", {}) if options is None else options
        self.adapter = san.attach(self.model, self.ours["method"], **options)
        assert stock <= {name for name, _ in self.model.named_parameters()}
        self.records = [r for r in self.meta["parameters"] if not self.dead(r)]
        with torch.no_grad():
            parameters = dict(self.model.named_parameters())
            assert parameters.keys() == {name for r in self.records for name, _ in self.places(r)}
            for r in self.records:
                value, places = self.value(r), self.places(r)
                for i, (place, index) in enumerate(places):
                    ours = parameters[place][index]
                    parameters[place][index] = (value if len(places) == 1 else value[i]).reshape(
                        ours.shape
                    )

    def value(self, record: dict[str, Any]) -> Tensor:
        """The tensor of an official parameter; separate q, k and v are thirds of the fused key's tensor."""
        part, shape = record.get("qkv_part"), list(record["shape"])
        full = fill(
            record["key"],
            shape if part is None else [3 * shape[0], *shape[1:]],
            record["offset"],
            record["amp"],
        )
        return torch.from_numpy(full if part is None else np.split(full, 3)[part])

    def places(self, record: dict[str, Any]) -> list[tuple[str, Any]]:
        """Our parameters, and where in them, that an official one is: one place, or one for each of its rows."""
        name = self.our_name(record)
        if "qkv_part" in record:
            rows = record["shape"][0]
            return [(name, slice(record["qkv_part"] * rows, (record["qkv_part"] + 1) * rows))]
        if "*" in name:  # rows for the blocks from the second on
            return [(name.replace("*", str(i + 1)), 0) for i in range(record["shape"][0])]
        name, _, index = name.partition("[")
        return [(name, int(index.rstrip("]")) if index else slice(None))]

    def read(self, record: dict[str, Any], ours: dict[str, Tensor]) -> Tensor:
        """Put together from our tensors what stands for an official parameter."""
        found = [ours[name][index] for name, index in self.places(record)]
        return (found[0] if len(found) == 1 else torch.stack(found)).reshape(record["shape"])

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
        candidates = (
            [name]
            if self.mode is None
            else [f"{name}_{self.mode}", name.replace("/", f"_{self.mode}/", 1)]
        )
        return torch.from_numpy(self.arrays[next(c for c in candidates if c in self.arrays.files)])

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.arrays["input"]).double(), torch.from_numpy(
            self.arrays["targets"]
        ).long()


def cases(files: list[str]) -> Iterator[tuple[str, str | None]]:
    """Every file, in every mode whose arrays it holds."""
    for name in files:
        arrays = np.load(FOLDER / f"{name}.npz").files
        for mode in OURS[name].get("modes", {None: {}}):
            if mode is None or f"logits_{mode}" in arrays:
                yield name, mode


EQUAL = [case for case in cases([f for f in FILES if f in OURS]) if "unequal" not in OURS[case[0]]]


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
    assert len(FILES) >= 9
    assert len(EQUAL) >= 11


@pytest.mark.parametrize("name", FILES)
def test_every_array_is_compared(name: str) -> None:
    known = {"input", "targets", "logits", "logits_sgd3", "logits_neutral", "logits_head_only"}
    known |= OURS[name].get("extras", {}).keys() | OURS[name].get("not_ours", {}).keys()
    for mode in OURS[name].get("modes", {}):
        known |= {f"logits_{mode}", f"logits_sgd3_{mode}"}
    assert {array for array in np.load(FOLDER / f"{name}.npz").files if "/" not in array} <= known


def test_logits(oracle: Oracle) -> None:
    close(oracle.model(oracle.batch[0]).detach(), oracle.array("logits"))


@pytest.mark.parametrize(
    ("name", "array"),
    [(name, array) for name in FILES for array in OURS.get(name, {}).get("extras", {})],
)
def test_logits_with_other_options(name: str, array: str) -> None:
    oracle = Oracle(name, None, OURS[name]["extras"][array])
    close(oracle.model(oracle.batch[0]).detach(), torch.from_numpy(oracle.arrays[array]))


@pytest.mark.parametrize("kind", ["gsum", "gce"])
def test_gradients(oracle: Oracle, kind: str) -> None:
    images, targets = oracle.batch
    logits = oracle.model(images)
    (logits.sum() if kind == "gsum" else F.cross_entropy(logits, targets)).backward()
    have, compared = (
        {n: p.grad for n, p in oracle.model.named_parameters() if p.grad is not None},
        0,
    )
    assert have.keys() == {n for r in oracle.records if r["trainable"] for n, _ in oracle.places(r)}
    for record in oracle.records:
        if record["trainable"]:
            close(oracle.read(record, have), oracle.array(f"{kind}/{record['name']}"))
            compared += 1
    assert compared == sum(record["trainable"] for record in oracle.records)


def test_three_steps_of_sgd(oracle: Oracle) -> None:
    images, targets = oracle.batch
    trained = [p for p in oracle.model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=oracle.meta["sgd"]["lr"])
    for _ in range(oracle.meta["sgd"]["steps"]):
        optimiser.zero_grad()
        F.cross_entropy(oracle.model(images), targets).backward()
        optimiser.step()
    close(oracle.model(images).detach(), oracle.array("logits_sgd3"))


def test_neutral(oracle: Oracle) -> None:
    """Switched off (scales at one; shifts and what leads back into the network at zero) a method is the plain backbone."""
    arrays = [
        name for name in ("logits_neutral", "logits_head_only") if name in oracle.arrays.files
    ]
    if not arrays:
        assert (
            oracle.ours["method"].startswith("vpt") or not oracle.adapter.added
        )  # tokens cannot be switched off
        return
    with torch.no_grad():
        for name, parameter in oracle.model.named_parameters():
            if name in oracle.adapter.added:
                last = name.rsplit(".", 1)[-1]
                if last in ("scale", "recalibration"):
                    parameter.fill_(1)
                if last in ("shift", "lora_b") or ".up." in name:
                    parameter.fill_(0)
    for array in arrays:
        close(oracle.model(oracle.batch[0]).detach(), torch.from_numpy(oracle.arrays[array]))


@pytest.mark.parametrize(("name", "mode"), list(cases([f for f in FILES if f in OURS])))
def test_counts(name: str, mode: str | None) -> None:
    oracle = Oracle(name, mode)
    dead = sum(
        int(np.prod(r["shape"]))
        for r in oracle.meta["parameters"]
        if oracle.dead(r) and r["trainable"]
    )
    official = oracle.meta["counts_small"]
    assert oracle.adapter.counts.trainable == official["trainable"] - dead
    assert oracle.adapter.counts.head == official["head"]


def test_merged(oracle: Oracle) -> None:
    images, _ = oracle.batch
    before = oracle.model(images)
    if oracle.ours["method"].startswith(("vpt", "adapt")):
        with pytest.raises(ValueError, match="cannot be merged"):
            oracle.adapter.merge()
        assert torch.equal(oracle.model(images), before)
        return
    model = oracle.adapter.merge()
    assert [type(m) for m in model.modules()] == [
        type(m) for m in backbone(oracle.meta["model"]).modules()
    ]
    close(model(images), before)
    close(oracle.adapter.merge()(images), before)
