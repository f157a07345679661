"""From archives in upstream formats through TFDS's own builders to training, all 19 tasks.

Needs the extra `prepare`.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_tier import archives, downloads
from san.data.layout import class_name_mismatch
from san.data.packed_task import PackedTask
from san.data.prepare.download import prepare_all
from san.data.prepare.labels import label_of
from san.data.prepare.pack_task import pack_splits
from san.data.prepare.sources import find_source, tfds
from san.data.prepare.steps import Action, Paths, plan_steps
from san.data.resize import resize
from san.errors import DataError
from san.tasks import Task, load_suite

pytestmark = pytest.mark.data
ROOT = Path(__file__).parents[2]
VTAB = load_suite("vtab")
SIDE = 32  # pixels


def run_python(arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upstream")
    archives.write_all(folder)
    return folder


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory, upstream: Path) -> Path:
    """TFDS copies of all 16 data sets, made by the real builders."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.load().disable_progress_bar()
    builders = {tfds.dataset_name(task): task.tfds.builder for task in VTAB.tasks.values()}
    assert len(builders) == 16
    for name, builder in builders.items():
        with pytest.MonkeyPatch.context() as patch:
            downloads.serve(patch, upstream / builder)
            tfds.build(name, folder, upstream / builder)
    return folder


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, copies: Path) -> Path:
    """All 19 tasks packed at 32 px by the script, as a user would."""
    root = tmp_path_factory.mktemp("packed")
    command = ["scripts/prepare.py", "vtab", "--tfds", copies, "--root", root]
    done = run_python([*command, "--side", str(SIDE), "--force"])
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def open_task(root: Path, task: Task) -> PackedTask:
    (folder,) = [path for path in (root / "vtab" / task.name).iterdir() if path.is_dir()]
    return PackedTask.open(task, folder)


@pytest.mark.parametrize("name", VTAB.tasks)
def test_every_split_of_every_task(name: str, packed: Path) -> None:
    task = VTAB.task(name)
    found = open_task(packed, task)
    assert found.folder.name == ("native" if task.native_size else f"vtab-{SIDE}")
    sizes = {}
    for split in ("train", "val", "train+val", "test"):
        parts = [found.load_part(part) for part in found.parts(split)]
        sizes[split] = sum(len(part) for part in parts)
        for part in parts:
            assert part.labels.min() >= 0
            assert part.labels.max() < len(task.classes)
    assert (sizes["train"], sizes["val"], sizes["train+val"]) == (800, 200, 1000)
    assert sizes["test"] >= 50
    classes = len(np.unique(found.load_part("train").labels))
    assert classes > 0.9 * min(len(task.classes), 800 / 3)


@pytest.mark.parametrize("name", VTAB.tasks)
def test_pixels_and_labels_are_those_that_tensorflow_datasets_reads(
    name: str, packed: Path, copies: Path
) -> None:
    """Against TFDS's own decoding of the same rows.

    JPEG decoders may differ, lossless images may not.
    """
    task = VTAB.task(name)
    source = find_source(task, copies)
    split, _, rows = source.stored_rows("val")
    ours = open_task(packed, task).load_part("val")
    theirs = source.builder.as_data_source(split=split)
    for i in (0, 1, 199):
        example = theirs[rows[i]]
        image = np.asarray(example["image"])
        if image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        if image.max() <= 1:
            image = image * 255
        wanted = image if task.native_size else resize([image], "vtab", SIDE)[0]
        difference = np.abs(ours.image(i).astype(int) - wanted.astype(int))
        assert difference.mean() < 0.5
        assert ours.labels[i] == label_of(example, task.tfds.label_rule)


@pytest.mark.parametrize(
    ("name", "form", "count"),
    [
        ("cifar", "train_{:05d}", archives.ONE),
        ("svhn", "train_{:06d}", archives.ONE),
        ("dsprites_loc", "{:06d}", 1280),
    ],
)
def test_the_order_of_ids_is_the_documented_one(
    name: str, form: str, count: int, packed: Path
) -> None:
    """Ascending md5 of split name and key, computed from nothing but the number of images."""

    def key(i: int) -> str:
        return hashlib.md5(f"train{i}".encode(), usedforsecurity=False).hexdigest()

    order = sorted(range(count), key=key)
    ids = open_task(packed, VTAB.task(name)).load_part("train").ids
    assert ids == [form.format(i) for i in order[:800]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("clevr_count", "clevr_dist"),
        ("dsprites_loc", "dsprites_ori"),
        ("smallnorb_azi", "smallnorb_ele"),
    ],
)
def test_paired_tasks_share_one_image_file(one: str, other: str, packed: Path) -> None:
    pair = [open_task(packed, VTAB.task(name)) for name in (one, other)]
    for part in ("train", "val", "test"):
        files = [task.folder / part / "images.npy" for task in pair]
        assert files[0].samefile(files[1])
        labels = [task.load_part(part).labels.tolist() for task in pair]
        assert labels[0] != labels[1]


def build_tfrecords(builder: str, upstream: Path, root: Path) -> None:
    """Prepare a data set in TFDS's older format."""
    import tensorflow_datasets

    with pytest.MonkeyPatch.context() as patch:
        downloads.serve(patch, upstream / builder)
        tensorflow_datasets.builder(
            builder, data_dir=str(root), file_format="tfrecord"
        ).download_and_prepare()


def pack_at_side(task: Task, copies: Path, root: Path) -> None:
    source = find_source(task, copies)
    pack_splits(VTAB, task, source, root, "vtab", SIDE, force=True)


def test_tfrecord_copies_are_read_the_same(tmp_path: Path, upstream: Path, packed: Path) -> None:
    """The same builder in the older format, without TensorFlow's reader."""
    for name in ("cifar", "clevr_dist", "kitti"):
        task = VTAB.task(name)
        build_tfrecords(task.tfds.builder, upstream, tmp_path)
        assert list(tmp_path.glob(f"{task.tfds.builder}/*/*.tfrecord*"))
        pack_at_side(task, tmp_path, tmp_path / "packed")
        ours = open_task(tmp_path / "packed", task)
        theirs = open_task(packed, task)
        for part in ("train", "val", "test"):
            assert ours.manifests[part]["digest"] == theirs.manifests[part]["digest"]


def test_a_truncated_tfrecord_is_named(tmp_path: Path, upstream: Path) -> None:
    build_tfrecords("cifar100", upstream, tmp_path)
    shard = next(tmp_path.glob("cifar100/*/*train.tfrecord*"))
    shard.write_bytes(shard.read_bytes()[:300_000])
    with pytest.raises(DataError, match="is truncated"):
        pack_at_side(VTAB.task("cifar"), tmp_path, tmp_path / "packed")
    assert not (tmp_path / "packed/vtab/cifar/native/train").exists()


def test_a_flipped_bit_of_a_tfrecord_is_named(tmp_path: Path, upstream: Path) -> None:
    build_tfrecords("cifar100", upstream, tmp_path)
    shard = next(tmp_path.glob("cifar100/*/*train.tfrecord*"))
    whole = shard.read_bytes()
    for place in (0, 5, 9, 14, 400, 300_000):
        data = bytearray(whole)
        data[place] ^= 8
        shard.write_bytes(data)
        with pytest.raises(
            DataError, match=f"{shard.name} (does not match its check|is truncated)"
        ):
            pack_at_side(VTAB.task("cifar"), tmp_path, tmp_path / "packed")
    shard.write_bytes(whole)
    pack_at_side(VTAB.task("cifar"), tmp_path, tmp_path / "packed")


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a": 5}', b"\xff\xfe"])
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "cifar100-train.*"])
def test_a_damaged_copy_is_named(
    name: str, damage: bytes, file_format: str, tmp_path: Path, upstream: Path, copies: Path
) -> None:
    if file_format == "tfrecord":
        build_tfrecords("cifar100", upstream, tmp_path)
    else:
        shutil.copytree(copies / "cifar100", tmp_path / "cifar100")
    (folder,) = (tmp_path / "cifar100").iterdir()
    (path,) = folder.glob(name)
    path.write_bytes(damage)
    with pytest.raises(DataError, match=str(folder)):
        pack_at_side(VTAB.task("cifar"), tmp_path, tmp_path / "packed")


def test_a_copy_that_would_run_code_is_refused(
    tmp_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TFDS imports the modules that features.json names."""
    import tensorflow_datasets

    shutil.copytree(copies / "cifar100", tmp_path / "cifar100")
    (folder,) = (tmp_path / "cifar100").iterdir()
    features = json.loads((folder / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["pythonClassName"] = "a_stranger.Label"
    (folder / "features.json").write_text(json.dumps(features))
    (tmp_path / "a_stranger.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="features.json names the class a_stranger.Label"):
        find_source(VTAB.task("cifar"), tmp_path)
    with pytest.raises(KeyboardInterrupt):  # without the check it runs
        tensorflow_datasets.builder_from_directory(str(folder))


def test_training_where_tensorflow_cannot_be_imported(packed: Path, tmp_path: Path) -> None:
    """All 19 tasks, one epoch each, in one process."""
    program = (
        "import runpy, sys\n"
        "sys.modules.update(tensorflow=None, tensorflow_datasets=None, array_record=None)\n"
        "sys.argv[0] = 'train.py'\n"
        "runpy.run_path('train.py', run_name='__main__')\n"
    )
    done = run_python(
        [
            "-c",
            program,
            "-m",
            "data=glob(vtab/*)",
            "backbone=vit_nano",
            "epochs=1",
            "warmup_epochs=0",
            "allow_unverified_data=true",
            "logger=none",
            f"data_root={packed}",
            f"results_dir={tmp_path}",
        ]
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = [json.loads(p.read_text()) for p in tmp_path.glob("records/vtab/san/*.json")]
    assert {r["task"] for r in records} == set(VTAB.tasks)
    for record in records:
        assert record["status"] == "done"
        assert record["data"]["forced"]
        assert record["data"]["source"].startswith("TFDS")


def test_unverified_data_does_not_train_unless_allowed(packed: Path, tmp_path: Path) -> None:
    done = run_python(
        [
            "train.py",
            "data=vtab/cifar",
            "backbone=vit_nano",
            f"data_root={packed}",
            f"results_dir={tmp_path}",
            "logger=none",
        ]
    )
    assert done.returncode == 1
    assert "the benchmark's 3b988aec91f8a50f" in done.stderr
    assert "allow_unverified_data=true" in done.stderr


def test_vit_b16_from_a_local_file_of_random_weights(packed: Path, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    weights = tmp_path / "random.safetensors"
    model = timm.create_model("vit_base_patch16_224.augreg_in21k", num_classes=0)
    save_file(model.state_dict(), weights)
    done = run_python(
        [
            "train.py",
            "data=vtab/cifar",
            "method=linear",  # every image goes through the backbone once
            f"backbone.weights={weights}",
            "epochs=1",
            "warmup_epochs=0",
            "protocol=tune",
            "protocol.train=val",
            "batch_size=10",
            "allow_unverified_data=true",
            "logger=none",
            f"data_root={packed}",
            f"results_dir={tmp_path}",
        ]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(next(tmp_path.glob("records/vtab/linear/cifar*.json")).read_text())
    assert record["backbone"] == "vit_b16_augreg_in21k"
    assert record["last"]["total"] == 200


# Tasks whose data set TFDS downloads in alternatives, or which is brought by hand.
OTHER_SIZES = ("caltech101", "eurosat", "diabetic_retinopathy", "imagenet")


def test_names_of_classes_and_sizes_of_downloads_are_those_of_tfds() -> None:
    import tensorflow_datasets

    suites = [load_suite(name) for name in ("vtab", "fgvc", "gic", "robustness")]
    tasks = [task for suite in suites for task in suite.tasks.values() if task.tfds]
    assert len(tasks) == 19 + 4 + 2 + 2
    for task in tasks:
        builder = tensorflow_datasets.builder(tfds.dataset_name(task), data_dir="unused")
        features = dict(builder.info.features.items())
        names = getattr(features.get("label"), "names", None)
        if names and not names[0].isdecimal():
            assert class_name_mismatch(task, names) == "", task.name
        major = int(str(builder.version).split(".")[0])
        assert major in task.tfds.major_versions
        size = sum(info.size for info in builder.url_infos.values()) / 1e9
        if task.name not in OTHER_SIZES:
            assert task.download_gb == pytest.approx(size, rel=0.02, abs=0.005)


def test_a_build_without_network_says_what_was_tried(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "tfds", tmp_path / "manual")
    steps = plan_steps([(VTAB, VTAB.task("cifar"))], paths, None, 224)
    assert [step.action for step in steps] == [Action.BUILD]
    (error,) = prepare_all(steps, paths, 224)
    assert "cifar-100-binary.tar.gz" in error
    assert str(tmp_path / "manual" / "cifar100") in error
    assert not list(tmp_path.glob("vtab/*"))
