"""Our methods compute what the official implementations compute: logits, gradients, three SGD steps, neutral, counts.

tests/oracles/NAME.{json,npz} hold what the official code gave in float64 on weights filled by a formula; ours.yaml says
how to reach it with our methods. Dropping one more pair of files and one entry there is all a new oracle takes.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from oracles.fill import fill
from timm.models import VisionTransformer
from torch import Tensor

import san

FOLDER = Path(__file__).parent / "oracles"
OURS = yaml.safe_load((FOLDER / "ours.yaml").read_text())
TOLERANCE = 1e-10


class Oracle:
    """One entry of ours.yaml with its files, and our model filled like the official one."""

    def __init__(self, entry: str) -> None:
        self.ours = OURS[entry]
        name = entry.split(":", maxsplit=1)[0]
        self.meta: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
        self.arrays = np.load(FOLDER / f"{name}.npz")
        shape = self.meta["model"]
        self.model = VisionTransformer(
            img_size=shape["img"], patch_size=shape["patch"], embed_dim=shape["dim"], depth=shape["depth"],
            num_heads=shape["heads"], num_classes=shape["classes"],
        ).double().eval()  # fmt: skip
        self.adapter = san.attach(self.model, self.ours["method"], **self.ours.get("options", {}))
        self.records = [r for r in self.meta["parameters"] if not self.dead(r)]
        with torch.no_grad():
            parameters = dict(self.model.named_parameters())
            assert parameters.keys() == {self.our_name(r["name"]) for r in self.records}
            for r in self.records:
                parameters[self.our_name(r["name"])].copy_(
                    torch.from_numpy(fill(r["key"], r["shape"], r["offset"], r["amp"]))
                )

    def dead(self, record: dict[str, Any]) -> bool:
        return "dead" in self.ours and self.ours["dead"] in record["name"]

    def our_name(self, theirs: str) -> str:
        for pattern, replacement in self.ours.get("names", []):
            name, changes = re.subn(pattern, replacement, theirs)
            if changes:
                return name
        return theirs

    def array(self, name: str) -> Tensor:
        mode = self.ours.get("mode")
        candidates = [name] if mode is None else [f"{name}_{mode}", name.replace("/", f"_{mode}/", 1)]
        found = [c for c in candidates if c in self.arrays.files]
        return torch.from_numpy(self.arrays[found[0]])

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.arrays["input"]).double(), torch.from_numpy(self.arrays["targets"]).long()


def close(ours: Tensor, theirs: Tensor) -> None:
    """Equal to TOLERANCE of the largest entry; to a float32's precision where the file stores that (full_ft's gce)."""
    tolerance = TOLERANCE if theirs.dtype == torch.float64 else 1e-6
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * max(1.0, theirs.abs().max())


@pytest.fixture(params=OURS, name="oracle")
def _oracle(request: pytest.FixtureRequest) -> Oracle:
    return Oracle(request.param)


def test_every_file_is_used() -> None:
    files = {path.stem for path in FOLDER.glob("*.npz")}
    assert files == {entry.split(":")[0] for entry in OURS}
    assert len(files) == 4


def test_logits(oracle: Oracle) -> None:
    close(oracle.model(oracle.batch[0]).detach(), oracle.array("logits"))


@pytest.mark.parametrize("kind", ["gsum", "gce"])
def test_gradients(oracle: Oracle, kind: str) -> None:
    images, targets = oracle.batch
    logits = oracle.model(images)
    (logits.sum() if kind == "gsum" else F.cross_entropy(logits, targets)).backward()
    parameters, compared = dict(oracle.model.named_parameters()), 0
    for record in oracle.records:
        ours = parameters[oracle.our_name(record["name"])].grad
        assert (ours is not None) == record["trainable"], record["name"]
        if ours is not None:
            close(ours, oracle.array(f"{kind}/{record['name']}"))
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
    """With scales at one and shifts at zero the model is the plain backbone."""
    with torch.no_grad():
        for name, parameter in oracle.model.named_parameters():
            if name.endswith(".scale"):
                parameter.fill_(1)
            if name.endswith(".shift"):
                parameter.fill_(0)
    plain = torch.from_numpy(np.load(FOLDER / "full_ft.npz")["logits"])
    close(oracle.model(oracle.batch[0]).detach(), plain)


def test_counts(oracle: Oracle) -> None:
    dead = sum(int(np.prod(r["shape"])) for r in oracle.meta["parameters"] if oracle.dead(r))
    official = oracle.meta["counts_small"]
    assert oracle.adapter.counts.trainable == official["trainable"] - dead
    assert oracle.adapter.counts.head == official["head"]


def test_merged(oracle: Oracle) -> None:
    images, _ = oracle.batch
    before = oracle.model(images)
    model = oracle.adapter.merge()
    assert {type(m) for m in model.modules()} <= {type(m) for m in VisionTransformer(depth=1).modules()}
    close(model(images), before)
    close(oracle.adapter.merge()(images), before)
