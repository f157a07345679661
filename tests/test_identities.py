"""Experiments keep their identity: a run from before a change of names is found after it.

The golden file was written at commit a10070e. An identity that changes on purpose (as the number
changes) is a new REVISION, which changes them all, and a new file: run this module as a program.
"""

import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import composed

from san.data.layout import packed_dir
from san.data.pack import write_split
from san.experiment import from_config
from san.tasks import load_suite

GOLDEN = Path(__file__).parent / "golden" / "identities.json"
FORCED = "force_data=true"  # a handful of images is no benchmark
OTHERS = [
    ["data=vtab/cifar", FORCED],
    ["data=fgvc/cub", FORCED, "method=ssf", "augment=ssf_fgvc", "smoothing=0.1"],
    ["data=gic/cifar100", FORCED, "method=lora", "method.rank=4"],
    ["data=robustness/imagenet_a", FORCED, "restore=RESTORED"],
    ["method=adapter", "method.width=4", "method.std=0.0", "seed=2"],
    ["method=adapter_plus", "method.width=16"],
    ["method=adaptformer", "method.scale=1", "method.bias=false"],
    ["method=dora", "method.alpha=16", "method.targets=[qkv]"],
    ["method=vpt_deep", "method.length=10", "method.place=end"],
    ["method=vpt_shallow"],
    ["method=san", "method.norms=false", "method.neurons=false", "method.propagation=off"],
    ["method=san_lora"],
    ["method=ssf", "method.std=0.1", "data.normalise=unit", "data.resize=bicubic"],
    ["method=partial", "method.blocks=2", "protocol=best_test", "protocol.every=2"],
    [
        "method=linear",
        "augment=ssf",
        "augment.jitter=0.1",
        "augment.policy=null",
        "augment.erasing=0.5",
    ],
    ["method=bitfit", "optimizer=sgd", "precision=bf16", "weight_decay=0", "protocol=tune"],
    [
        "method=norm",
        "backbone.weights=random",
        "+backbone.arguments.drop_path_rate=0.1",
        "data.normalise=clip",
    ],
]


def demo() -> list[list[str]]:
    suite = load_suite("demo")
    return [
        [f"data=demo/{task}", f"method={method}"]
        for task in suite.tasks
        for method in suite.methods
    ]


def pack(root: Path, name: str) -> None:
    """Pack four images a split of a task, each of another grey."""
    suite_name, _, task_name = name.partition("/")
    task = load_suite(suite_name).task(task_name)
    for start, part in enumerate(task.splits):
        files = [f"file {start} {i}".encode() for i in range(4)]
        arrays = [np.full((32, 32, 3), 10 * start + i, np.uint8) for i in range(4)]
        images = files if task.storage == "encoded" else arrays
        examples = ((f"{part}-{i}", i, image) for i, image in enumerate(images))
        write_split(
            packed_dir(task, root, "crop_256", 224) / part, examples, {"made_by": "test_identities"}
        )


def found(overrides: list[str], root: Path) -> dict[str, str]:
    """The identity of an experiment and where its record is, below the results."""
    words = [word.replace("RESTORED", str(root / "adapter")) for word in overrides]
    experiment = from_config(composed(*words, f"data_root={root}", "device=cpu"))
    path = experiment.record_path(Path("results")).relative_to("results")
    return {"id": experiment.identity, "path": str(path)}


def prepare(root: Path) -> None:
    for name in ("vtab/cifar", "fgvc/cub", "gic/cifar100", "robustness/imagenet_a"):
        pack(root, name)
    (root / "adapter").write_bytes(b"an adapter")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("identities")
    prepare(folder)
    yield folder


def test_experiments_keep_their_identity(root: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    cells = demo() + OTHERS
    assert len(golden) == len(cells) == 24 + len(OTHERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that were renamed since are taken, with a warning
        assert {" ".join(cell): found(cell, root) for cell in cells} == golden


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        made = {" ".join(cell): found(cell, Path(folder)) for cell in demo() + OTHERS}
        GOLDEN.write_text(json.dumps(made, indent=1) + "\n")
