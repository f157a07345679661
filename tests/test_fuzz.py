"""Thousands of damaged files: each is read, or refused by an error of ours that names it.

Damage is drawn from a fixed seed (SAN_FUZZ_SEED=7 draws other damage; SAN_FUZZ_TIMES=10 as much
more). What is read has to be usable: a record makes tables, a split gives images. No file may make
a reader wait, take memory without bound, or touch what is not its own.
"""

import copy
import json
import logging
import os
import random
import re
import resource
import signal
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
import torch
from conftest import a_record, tiny_vit
from odd_files import SMALL, VIT
from omegaconf import OmegaConf
from original_weights import as_npz
from safetensors.torch import save_file

import san
from san import recipe_files, record_file
from san.answers import pack_answers
from san.backbones import build_backbone
from san.data.images import decode_image
from san.data.manifest import sha256_16
from san.data.pack import write_split
from san.data.prepare.sources import find_source
from san.data.proof import hash_image
from san.data.split import read_split
from san.errors import DataError, SanError
from san.installation import BENCHMARKS
from san.recipe_files import Cell
from san.record_names import named_by_value
from san.report.explain import explain_cell
from san.report.render import write_table
from san.report.table import make_table
from san.runtime import lease, lease_holder
from san.runtime.cost import Meter
from san.score import ClassScore, EpochEntry, Score
from san.search.space import SPACES, read_search
from san.sweep.status import summary
from san.tasks import Task, load_suite
from san.training.checkpoint import Checkpoint, Position, Trained
from san.training.history import Evaluation, History

pytestmark = pytest.mark.fuzz
SEED = int(os.environ.get("SAN_FUZZ_SEED", "0"))
TIMES = int(os.environ.get("SAN_FUZZ_TIMES", "1"))
TOO_LONG_S = 120  # what takes longer hangs
MOST_MEMORY = 2**31  # bytes of addresses that a reader may take beyond what the tests have
OLD_RECORDS = Path(__file__).parent / "golden" / "a10070e" / "records"
DEMO = load_suite("demo")
CUB = load_suite("fgvc").task("cub")
DTD = load_suite("vtab").task("dtd")
ODD_VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 10**19, 10**400, 1e308, -0.0, float("nan"), float("inf"),
    "", "x", "\ud800", "\x1b[2J", "../..", "/etc/passwd", "=1+1", "two\nlines", "é" * 5000,
    [], {}, [[]], {"a": 1}, [None], [1, "a"],
]  # fmt: skip
FIVE_OF_TEN = Score(1, 5, 10, loss=1.5)
NUMBERS = [b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x00" * 8]


class Damage:
    """Draws damage to bytes and to JSON."""

    def __init__(self, *seed: object) -> None:
        self.random = random.Random(f"{SEED} {seed}")

    def of_bytes(self, good: bytes) -> bytes:
        """Cut, repeat, flip or replace a few bytes."""
        data = bytearray(good)
        for _ in range(self.random.choice([1, 1, 2, 5])):
            at = self.random.randrange(len(data) + 1)
            action = self.random.randrange(5)
            if action == 0:
                del data[at:]
            elif action == 1:
                data[at:at] = data[at : at + self.random.randrange(200)]
            elif action == 2:
                data[at : at + 1] = bytes([self.random.randrange(256)])
            elif action == 3:
                number = self.random.choice(NUMBERS)
                data[at : at + len(number)] = number
            else:
                del data[at : at + self.random.randrange(20)]
        return bytes(data)

    def of_header(self, good: bytes) -> bytes:
        """Damage the beginning, where formats say how large everything is."""
        length = min(len(good), self.random.choice([16, 128, 2000]))
        return self.of_bytes(good[:length]) + good[length:]

    def of_json(self, good: bytes) -> bytes:
        """Change a few values, anywhere in it; or its bytes."""
        if self.random.random() < 0.2:
            return self.of_bytes(good)
        value = json.loads(good)
        for _ in range(self.random.choice([1, 1, 2, 3])):
            value = self._changed(value)
        return json.dumps(value).encode()

    def _changed(self, value: Any) -> Any:
        """Change a value, or one inside of it."""
        keys: list[Any] = []
        if isinstance(value, (dict, list)):
            keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys or self.random.random() < 0.15:
            return self._odd(value)
        changed = copy.copy(value)
        key = self.random.choice(keys)
        if isinstance(value, dict) and self.random.random() < 0.1:
            del changed[key]
        elif isinstance(value, dict) and self.random.random() < 0.1:
            changed[self.random.choice(["zz", "a.b", "lr", ""])] = self._odd(None)
        else:
            changed[key] = self._changed(value[key])
        return changed

    def _odd(self, value: Any) -> Any:
        if type(value) is int and self.random.random() < 0.5:
            return value + self.random.choice([-1, 1, 100, -(10**6)])
        if isinstance(value, str) and self.random.random() < 0.3:
            end = self.random.randrange(len(value) + 1)
            return value[:end] + self.random.choice(["", "x", ","])
        return self.random.choice(ODD_VALUES)


@dataclass(frozen=True)
class Target:
    """A kind of file.

    make: writes a good one, and what it needs, into an empty folder; returns its path. damage: of
    its bytes. read: reads it, and uses what was read. times: how often it is damaged.
    """

    make: Callable[[Path], Path]
    damage: Callable[[Damage, bytes], bytes]
    read: Callable[[Path], object]
    times: int


def make_record(folder: Path) -> Path:
    path = folder / "r.json"
    path.write_bytes(min(OLD_RECORDS.rglob("san/*.json")).read_bytes())
    return path


def read_record(path: Path) -> None:
    """A record that is read makes tables, is explained, and estimates the time of a sweep."""
    found = named_by_value(record_file.read_record(path))
    summary([], [found])
    write_table(make_table(DEMO, [found], found.backbone), path.parent / "tables")
    if found.suite == "demo" and found.task in DEMO.tasks:
        explained = "\n".join(explain_cell("demo", found.method, found.task, [found], path.parent))
        assert f"\n  seed {found.seed}: " in explained


def make_new_record(folder: Path) -> Path:
    """One of this version, with everything that it may say."""
    score = Score(2, 700, 797, loss=0.5)
    names = DEMO.tasks["digits"].classes
    classes = [ClassScore(name, 70, 80 if i else 77) for i, name in enumerate(names)]
    r = a_record(
        last=score,
        best=score,
        history=[EpochEntry(1, 1.5, 0.1), EpochEntry(2, 0.5, 0.01, score)],
        classes=classes,
        validation=Score(2, 150, 200),
        started="2025-12-31T23:00:00+00:00",
        host="a-host",
        answers="0123456789abcdef",
        device_hours=0.5,
        adapter_bytes=100,
        joules=1.5,
    )
    record_file.write_record(r, folder / "r.json")
    return folder / "r.json"


ANSWERS = np.arange(1000) < 900


def make_answers(folder: Path) -> Path:
    record_file.write_answers(ANSWERS, folder / "r.answers")
    return folder / "r.answers"


def read_answers(path: Path) -> None:
    """Answers that are read are the good ones."""
    digest = sha256_16(pack_answers(ANSWERS))
    found = record_file.read_answers(a_record(answers=digest), path)
    assert found.tolist() == ANSWERS.tolist()


def make_lease(folder: Path) -> Path:
    assert lease.acquire(folder / "r.claim") is not None
    return folder / "r.claim"


def make_adapter(folder: Path) -> Path:
    san.attach(tiny_vit(), "lora").save(folder / "a.safetensors")
    return folder / "a.safetensors"


def read_adapter(path: Path) -> None:
    """A refused adapter leaves the model alone."""
    model = tiny_vit()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        san.restore(model, path)
    except SanError:
        after = model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        raise


def checkpoint_at(path: Path) -> tuple[Checkpoint, torch.nn.Module, torch.optim.Optimizer]:
    model = tiny_vit()
    san.attach(model, "linear")
    trainable = [p for p in model.parameters() if p.requires_grad]
    return (
        Checkpoint(path, "a run", History(10), Meter(torch.device("cpu"))),
        model,
        torch.optim.SGD(trainable, momentum=0.9),
    )


def make_checkpoint(folder: Path) -> Path:
    checkpoint, model, optimizer = checkpoint_at(folder / "r.checkpoint")
    checkpoint.history.add(1, 0.5, 0.1, Evaluation(FIVE_OF_TEN, np.arange(10) < 5))
    state = torch.Generator().get_state()
    checkpoint.save(Trained(model, optimizer), state, Position(2, 1, 0.5, 1.0))
    return checkpoint.path


def read_checkpoint(path: Path) -> None:
    """A damaged checkpoint means the beginning."""
    checkpoint, model, optimizer = checkpoint_at(path)
    trained = Trained(model, optimizer)
    position = checkpoint.load(trained, torch.Generator(), epochs=3, batches=2)
    assert (position, checkpoint.history.entries) in [
        (Position(), []),
        (Position(2, 1, 0.5, 1.0), [EpochEntry(1, 0.5, 0.1, FIVE_OF_TEN)]),
    ]
    if position.epoch == 2:
        assert checkpoint.history.answers.tolist() == [True] * 5 + [False] * 5


def packed(name: str) -> Callable[[Path], Path]:
    """A packed split of image files."""

    def make(folder: Path) -> Path:
        rows = [(f"i{i}", i % 3, pictures.png(i % 3, i)) for i in range(6)]
        write_split(folder / "s", rows, {"made_by": "a test", "names": ["a", "b", "c"]})
        read_split(folder / "s", 6, 3)  # leaves its proof
        return folder / "s" / name

    return make


def read_packed(path: Path) -> None:
    """A split that is read gives all of its images, the good ones, and their hashes."""
    split = read_split(path.parent, 6, 3)
    stored = [np.frombuffer(pictures.png(i % 3, i), np.uint8) for i in range(6)]
    assert split.hashes.tolist() == list(map(hash_image, stored))
    images = [split.image(i) for i in range(len(split))]
    good = [decode_image(pictures.png(i % 3, i)) for i in range(6)]
    assert all(np.array_equal(*pair) for pair in zip(images, good, strict=True))
    assert split.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert list(split.ids) == [f"i{i}" for i in range(6)]


def make_recipe(folder: Path) -> Path:
    (folder / "r.csv").write_bytes((BENCHMARKS / "recipes" / "vpt.csv").read_bytes())
    return folder / "r.csv"


def read_recipe(path: Path) -> None:
    """A row that is read can be looked up, and is resolved to what it says."""
    for row in recipe_files.read_rows(path):
        cell = Cell(row.suite, row.backbone, row.method, row.settings, row.task)
        assert recipe_files.find_row(path, cell) is not None
        plain = {**row.values, **row.evidence}
        assert OmegaConf.to_container(OmegaConf.create(plain), resolve=True) == plain


def make_search(folder: Path) -> Path:
    (folder / "s.yaml").write_bytes((SPACES / "lr_rank.yaml").read_bytes())
    return folder / "s.yaml"


def use_search(path: Path) -> None:
    """A search that is read has as many points as it says, all different."""
    search = read_search(path)
    points = [str(point) for point in search.points("san")]
    assert len({*points}) == search.trials
    assert search.budget.startswith(f"{search.trials} points")


def make_lists(folder: Path) -> Path:
    sizes = {"train800": 3, "val200": 2, "test": 2}
    return pictures.vtab_lists(folder / "dtd", sizes, 47) / "train800.txt"


def make_json_list(folder: Path) -> Path:
    splits = {}
    for number, part in enumerate(("train", "val", "test")):
        splits[part] = {f"{part}/{i}.jpg": 3 * number + i + 1 for i in range(3)}
    return pictures.vpt_json(folder / "cub", splits) / "train.json"


def make_archive(folder: Path) -> Path:
    lists = make_lists(folder).parent
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(lists.rglob("*")):
            archive.write(file, file.relative_to(lists))
    return folder / "x.zip"


def read_source(task: Task, path: Path) -> None:
    """A source that is found gives all of its images."""
    source = find_source(task, path)
    for part in source.parts:
        source.describe(part)
        assert len(list(source.examples(part))) == source.count(part)


def an_image(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pictures.save(folder / f"x{suffix}", 0, 0)
        return folder / f"x{suffix}"

    return make


def read_image(path: Path) -> None:
    """Whoever decodes bytes names their file."""
    try:
        decode_image(path.read_bytes())
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def make_weights(folder: Path) -> Path:
    model = build_backbone(VIT, 3, "random", None, SMALL).model
    save_file(dict(model.state_dict()), folder / "w.safetensors")
    return folder / "w.safetensors"


def make_originals(folder: Path) -> Path:
    as_npz(build_backbone(VIT, 21843, "random", None, SMALL).model, folder / "w.npz")
    return folder / "w.npz"


def read_weights(path: Path) -> None:
    build_backbone(VIT, 3, str(path), None, SMALL)


IMAGES = (".jpg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".tif")
TARGETS = {
    "record of schema 1": Target(make_record, Damage.of_json, read_record, 4000),
    "record": Target(make_new_record, Damage.of_json, read_record, 4000),
    "answers": Target(make_answers, Damage.of_bytes, read_answers, 2000),
    "recipe": Target(make_recipe, Damage.of_bytes, read_recipe, 2000),
    "search": Target(make_search, Damage.of_bytes, use_search, 1000),
    "lease": Target(make_lease, Damage.of_json, lease_holder.find_holder, 1000),
    "adapter": Target(make_adapter, Damage.of_header, read_adapter, 400),
    "checkpoint": Target(make_checkpoint, Damage.of_header, read_checkpoint, 500),
    "manifest": Target(packed("manifest.json"), Damage.of_json, read_packed, 1000),
    "ids": Target(packed("ids.json"), Damage.of_json, read_packed, 400),
    "labels": Target(packed("labels.npy"), Damage.of_header, read_packed, 400),
    "packed images": Target(packed("images.npy"), Damage.of_header, read_packed, 400),
    "offsets": Target(packed("offsets.npy"), Damage.of_header, read_packed, 400),
    "hashes": Target(packed("hashes.npy"), Damage.of_header, read_packed, 200),
    "proof": Target(packed("proved.json"), Damage.of_json, read_packed, 200),
    "list": Target(make_lists, Damage.of_bytes, lambda path: read_source(DTD, path.parent), 500),
    "VPT's list": Target(
        make_json_list, Damage.of_json, lambda path: read_source(CUB, path.parent), 500
    ),
    "archive": Target(make_archive, Damage.of_bytes, lambda path: read_source(DTD, path), 500),
    "weights": Target(make_weights, Damage.of_header, read_weights, 150),
    "original weights": Target(make_originals, Damage.of_bytes, read_weights, 150),
}
TARGETS |= {suffix: Target(an_image(suffix), Damage.of_bytes, read_image, 300) for suffix in IMAGES}


@pytest.fixture
def bounded() -> Iterator[None]:
    """Bound the memory that a reader may ask for; end what waits for ever."""
    status = Path("/proc/self/status").read_text("utf-8")
    (kilobytes,) = re.findall(r"VmSize:\s+(\d+) kB", status)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1024 * int(kilobytes) + MOST_MEMORY, hard))
    yield
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The programs that were started."""
    words: list[object] = []
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *args, **_: words.append(args))
    return words


def state_of(folder: Path) -> dict[str, bytes]:
    """The files that stand around the folder of the damaged one."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("bounded")
def test_damage_is_refused_in_our_words(
    name: str, tmp_path: Path, started: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    target = TARGETS[name]
    damage = Damage(name)
    (tmp_path / "neighbour").write_text("not ours")
    around = state_of(tmp_path)
    (tmp_path / "inside").mkdir()
    path = target.make(tmp_path / "inside")
    good = path.read_bytes()
    target.read(path)
    outcomes = Counter[str]()
    for _ in range(TIMES * target.times):
        bad = target.damage(damage, good)
        path.write_bytes(bad)
        signal.alarm(TOO_LONG_S)
        try:
            target.read(path)
            outcomes["read"] += 1
        except SanError as error:
            is_named = path.name in str(error) or str(path.parent) in str(error)
            outcomes["refused" if is_named else f"not named: {error}"] += 1
        except Exception as error:
            outcomes[f"{type(error).__name__}: {error} of {bad[:300]!r}"] += 1
    assert outcomes.keys() <= {"read", "refused"}, outcomes.most_common(5)
    assert started == []
    assert state_of(tmp_path) == around
