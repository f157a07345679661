"""Every reader of a file that somebody else may have written: nothing in it runs, nothing hangs.

A reader ends with what it has read or with an error of ours that names the file. What each of them
makes of damaged content is tested beside it; here is what must hold for all.
"""

import io
import json
import logging
import os
import pickle
import signal
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pictures
import pytest
import torch
from conftest import a_record, tiny_vit
from odd_files import ODD_FILES, SMALL, VIT

import san
from san import recipe_files, record_file
from san.backbones import build_backbone, pretrained
from san.data import task_data
from san.data.pack import write_split
from san.data.prepare.sources import find_source
from san.data.split import read_split
from san.errors import MissingPackageError, SanError
from san.runtime import files, lease_holder
from san.runtime.cost import Meter
from san.search.space import read_search
from san.sweep import driver, slurm
from san.sweep.request import Launcher, SweepRequest
from san.tasks import load_suite
from san.training.checkpoint import Checkpoint, Trained
from san.training.history import History

TOO_LONG_S = 120  # what takes longer hangs
LISTS = {"train800": 8, "val200": 4, "test": 6}
CUB = load_suite("fgvc").task("cub")
DTD = load_suite("vtab").task("dtd")


@dataclass(frozen=True)
class Reader:
    """prepare makes a good place to read and returns the file that is foreign there.

    read reads it; it may also go on without the file, as what can be made again is.
    """

    prepare: Callable[[Path], Path]
    read: Callable[[Path], object]


def at(name: str) -> Callable[[Path], Path]:
    """A folder with nothing else in it."""
    return lambda folder: folder / name


def packed(name: str) -> Callable[[Path], Path]:
    """A packed split of image files, with its proof."""

    def prepare(folder: Path) -> Path:
        rows = [(f"i{i}", i % 3, bytes([i]) * 9) for i in range(5)]
        write_split(folder / "s", rows, {"made_by": "a test"})
        read_split(folder / "s", 5, 3)
        return folder / "s" / name

    return prepare


def listed(name: str) -> Callable[[Path], Path]:
    """A vtab-1k folder."""
    return lambda folder: pictures.vtab_lists(folder / "dtd", LISTS, 47) / name


def json_list(folder: Path) -> Path:
    """VPT's three lists."""
    splits = {}
    for number, part in enumerate(("train", "val", "test")):
        splits[part] = {f"{part}/{i}.jpg": 3 * number + i + 1 for i in range(3)}
    return pictures.vpt_json(folder / "cub", splits) / "train.json"


def bird_list(name: str) -> Callable[[Path], Path]:
    """The three lists of CUB-200-2011, of an image of each class for training and one for test."""

    def prepare(folder: Path) -> Path:
        numbers = range(2 * len(CUB.classes))
        lists: dict[str, list[object]] = {
            "images.txt": [f"{i}.jpg" for i in numbers],
            "image_class_labels.txt": [i // 2 + 1 for i in numbers],
            "train_test_split.txt": [i % 2 for i in numbers],
        }
        for each, values in lists.items():
            lines = [f"{i} {value}\n" for i, value in enumerate(values)]
            (folder / each).write_text("".join(lines))
        (folder / "images").mkdir()
        for i in numbers:
            (folder / "images" / f"{i}.jpg").touch()
        return folder / name

    return prepare


def tfds_copy(name: str) -> Callable[[Path], Path]:
    """What is looked at of a copy before TFDS opens it."""

    def prepare(folder: Path) -> Path:
        home = folder / "dtd" / "3.0.1"
        home.mkdir(parents=True)
        (home / "dataset_info.json").write_text("{}")
        (home / "features.json").write_text("{}")
        return home / name

    return prepare


def read_tfds_copy(path: Path) -> object:
    """Where TFDS is not installed, what comes before it has still been looked at."""
    try:
        return find_source(DTD, path.parents[2])
    except MissingPackageError as error:
        assert "tensorflow-datasets" in str(error)
        return None


def own_image(folder: Path) -> Path:
    """A folder of somebody's own images."""
    for label, name in enumerate("ab"):
        for i in range(12):
            pictures.save(folder / "own" / name / f"{i}.png", label, i)
    return folder / "own" / "a" / "x.jpg"


def read_own_images(path: Path) -> object:
    suite = task_data.folder_suite(str(path.parents[1]))
    (task,) = suite.tasks.values()
    return task_data.open_task(suite, task, path.parents[2] / "packed", "vtab", 32)


def read_answers(path: Path) -> object:
    return record_file.read_answers(a_record(answers="0123456789abcdef"), path)


def read_weights(path: Path) -> object:
    return build_backbone(VIT, 3, str(path), None, SMALL)


def resume(path: Path) -> None:
    model = tiny_vit()
    optimizer = torch.optim.SGD(model.parameters())
    checkpoint = Checkpoint(path, "a run", History(10), Meter(torch.device("cpu")))
    trained = Trained(model, optimizer)
    position = checkpoint.load(trained, torch.Generator(), epochs=3, batches=2)
    assert position.epoch == 1


def read_cluster(path: Path) -> object:
    request = SweepRequest("demo", launcher=Launcher.SLURM, cluster=path)
    return driver.cluster_options(request)


READERS = {
    "record": Reader(at("r.json"), record_file.read_record),
    "answers": Reader(at("r.answers"), read_answers),
    "lease": Reader(at("r.claim"), lease_holder.find_holder),
    "checkpoint": Reader(at("r.checkpoint"), resume),
    "adapter": Reader(at("r.safetensors"), lambda path: san.restore(tiny_vit(), path)),
    "weights": Reader(at("w.safetensors"), read_weights),
    "original weights": Reader(at("w.npz"), read_weights),
    "manifest": Reader(packed("manifest.json"), lambda path: read_split(path.parent, 5, 3)),
    "ids": Reader(packed("ids.json"), lambda path: read_split(path.parent, 5, 3)),
    "labels": Reader(packed("labels.npy"), lambda path: read_split(path.parent, 5, 3)),
    "images": Reader(packed("images.npy"), lambda path: read_split(path.parent, 5, 3)),
    "offsets": Reader(packed("offsets.npy"), lambda path: read_split(path.parent, 5, 3)),
    "hashes": Reader(packed("hashes.npy"), lambda path: read_split(path.parent, 5, 3)),
    "proof": Reader(packed("proved.json"), lambda path: read_split(path.parent, 5, 3)),
    "list": Reader(listed("train800.txt"), lambda path: find_source(DTD, path.parent)),
    "VPT's list": Reader(json_list, lambda path: find_source(CUB, path.parent)),
    "birds' list": Reader(bird_list("images.txt"), lambda path: find_source(CUB, path.parent)),
    "birds' labels": Reader(
        bird_list("image_class_labels.txt"), lambda path: find_source(CUB, path.parent)
    ),
    "birds' splits": Reader(
        bird_list("train_test_split.txt"), lambda path: find_source(CUB, path.parent)
    ),
    "archive": Reader(at("x.zip"), lambda path: find_source(DTD, path)),
    "own image": Reader(own_image, read_own_images),
    "TFDS copy": Reader(tfds_copy("dataset_info.json"), read_tfds_copy),
    "TFDS features": Reader(tfds_copy("features.json"), read_tfds_copy),
    "cluster": Reader(at("c.yaml"), read_cluster),
    "recipe": Reader(at("r.csv"), recipe_files.read_rows),
    "search": Reader(at("s.yaml"), read_search),
    "submitted jobs": Reader(at("submitted.jsonl"), lambda path: slurm.submitted_jobs(path.parent)),
}


@dataclass(frozen=True)
class Bomb:
    """Leaves a mark where it is unpickled."""

    mark: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def as_pickle(mark: Path) -> bytes:
    return pickle.dumps(Bomb(str(mark)))


def as_torch_file(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": Bomb(str(mark))}, buffer)
    return buffer.getvalue()


def as_npy(mark: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(str(mark))], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def as_npz(mark: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"embedding/kernel": np.array([Bomb(str(mark))], dtype=object)})
    return buffer.getvalue()


def as_zip(mark: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train800.txt", as_pickle(mark))
        archive.writestr("data.pkl", as_pickle(mark))
    return buffer.getvalue()


def as_yaml(mark: Path) -> bytes:
    return f"!!python/object/apply:os.mkdir ['{mark}']".encode()


def as_json(mark: Path) -> bytes:
    return json.dumps({"py/reduce": [{"py/type": "os.mkdir"}, [str(mark)]]}).encode()


def as_eps(mark: Path) -> bytes:
    """PIL hands such a file to Ghostscript, which runs what is in it."""
    program = f"({mark}) (w) file closefile showpage\n"
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n" + program.encode()


CODE = [as_pickle, as_torch_file, as_npy, as_npz, as_zip, as_yaml, as_json, as_eps]


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    """End a test that waits for ever."""
    signal.alarm(TOO_LONG_S)
    yield
    signal.alarm(0)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The files that were checked before they were opened, or given to safetensors."""
    paths = set()

    def note_calls(module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def noted(path: Path | str, *args: Any) -> object:
            paths.add(Path(path))
            return function(path, *args)

        monkeypatch.setattr(module, name, noted)

    note_calls(files, "_stat")
    note_calls(pretrained, "load_file")
    return paths


def read(name: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Read; whatever is refused is refused in our words, which name the file or its folder."""
    caplog.set_level(logging.CRITICAL)
    try:
        READERS[name].read(path)
    except SanError as error:
        assert path.name in str(error) or str(path.parent) in str(error), name


@pytest.mark.parametrize("name", READERS)
def test_nothing_in_a_file_runs(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    looked_at: set[Path],
) -> None:
    mark = tmp_path / "mark"
    started: list[object] = []
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *words, **_: started.append(words))
    for number, content in enumerate(CODE):
        (tmp_path / str(number)).mkdir()
        path = READERS[name].prepare(tmp_path / str(number))
        path.write_bytes(content(mark))
        looked_at.clear()
        read(name, path, caplog)
        assert path in looked_at, content.__name__  # else nothing is tested
        assert not mark.exists(), content.__name__
        assert started == [], content.__name__


def test_the_bombs_go_off_where_they_are_unpickled(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    pickle.loads(as_pickle(tmp_path / "a"))
    torch.load(io.BytesIO(as_torch_file(tmp_path / "b")), weights_only=False)
    np.load(io.BytesIO(as_npy(tmp_path / "c")), allow_pickle=True)
    with np.load(io.BytesIO(as_npz(tmp_path / "d")), allow_pickle=True) as arrays:
        arrays["embedding/kernel"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d"]


OTHER_FILES: dict[str, Callable[[Path], object]] = {
    **ODD_FILES,
    "a link to itself": lambda path: path.symlink_to(path),
    "an empty file": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
}


@pytest.mark.parametrize("name", READERS)
def test_nothing_is_waited_for(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for kind, put in OTHER_FILES.items():
        folder = tmp_path / kind
        folder.mkdir()
        path = READERS[name].prepare(folder)
        path.unlink(missing_ok=True)
        put(path)
        read(name, path, caplog)


def test_a_good_record_is_read(tmp_path: Path) -> None:
    """Else a reader that refuses everything would pass."""
    path = tmp_path / "r.json"
    record_file.write_record(a_record(suite="gone"), path)
    assert READERS["record"].read(path) == a_record(suite="gone")


def test_good_answers_are_read(tmp_path: Path) -> None:
    answers = np.arange(1000) < 900
    digest = record_file.write_answers(answers, tmp_path / "r.answers")
    read = record_file.read_answers(a_record(answers=digest), tmp_path / "r.answers")
    assert read.tolist() == answers.tolist()
