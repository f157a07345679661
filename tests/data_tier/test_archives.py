"""From archives in upstream formats through the real TFDS builders to training, all 19 tasks. Needs the extra `prepare`."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_tier import archives, downloads
from san.data import pack, verify
from san.data.layout import class_name_mismatch
from san.data.prepare import download, labels
from san.data.prepare.pack_task import pack_splits
from san.data.prepare.sources import find_source, tfds
from san.data.resize import resize
from san.tasks import load_suite

pytestmark = pytest.mark.data
ROOT = Path(__file__).parents[2]
VTAB = load_suite("vtab")
SIDE = 32


def quiet(examples, title, total):
    return examples


@pytest.fixture(scope="session")
def upstream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("upstream")
    archives.write_all(folder)
    return folder


@pytest.fixture(scope="session")
def copies(tmp_path_factory, upstream):
    """TFDS copies of all 16 data sets, made by the real builders."""
    folder = tmp_path_factory.mktemp("tfds")
    built = set()
    tensorflow_datasets = tfds.load()
    tensorflow_datasets.disable_progress_bar()
    for task in VTAB.tasks.values():
        name, builder = tfds.name_of(task), task.tfds.builder
        if name not in built:
            with pytest.MonkeyPatch.context() as patch:
                downloads.serve(patch, upstream / builder)
                tfds.build(name, folder, upstream / builder)
            built.add(name)
    assert len(built) == 16
    return folder


@pytest.fixture(scope="session")
def packed(tmp_path_factory, copies):
    """All 19 tasks packed at 32 px by the script, as a user would."""
    root = tmp_path_factory.mktemp("packed")
    command = [
        sys.executable,
        ROOT / "scripts/prepare.py",
        "vtab",
        "--tfds",
        copies,
        "--root",
        root,
    ]
    done = subprocess.run(
        [*command, "--side", str(SIDE), "--force"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def home_of(packed, task):
    found = [p for p in (packed / "vtab" / task.name).iterdir() if p.is_dir()]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("name", VTAB.tasks)
def test_every_split_of_every_task(name, packed, copies):
    task = VTAB.task(name)
    home = home_of(packed, task)
    assert home.name == ("native" if task.native_size else f"vtab-{SIDE}")
    sizes = {}
    for split in ("train", "val", "train+val", "test"):
        parts = [verify.load_part(task, home, part) for part in verify.parts_of(task, home, split)]
        sizes[split] = sum(len(part) for part in parts)
        assert all(
            part.labels.min() >= 0 and part.labels.max() < len(task.classes) for part in parts
        )
    assert (sizes["train"], sizes["val"], sizes["train+val"]) == (800, 200, 1000)
    assert sizes["test"] >= 50
    held = np.bincount(verify.load_part(task, home, "train").labels, minlength=len(task.classes))
    assert np.count_nonzero(held) > 0.9 * min(len(held), 800 / 3)


@pytest.mark.parametrize("name", VTAB.tasks)
def test_pixels_and_labels_are_those_that_tensorflow_datasets_reads(name, packed, copies):
    """Against TFDS's own decoding of the same rows; JPEG decoders may differ, lossless images may not."""
    task = VTAB.task(name)
    source = find_source(task, copies)
    split, _, rows = source.stored("val")
    ours = verify.load_part(task, home_of(packed, task), "val")
    theirs = source.builder.as_data_source(split=split)
    for i in (0, 1, 199):
        example = theirs[rows[i]]
        image = np.asarray(example["image"])
        image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
        image = image * 255 if image.max() <= 1 else image
        wanted = image if task.native_size else resize([image], "vtab", SIDE)[0]
        assert np.abs(ours.image(i).astype(int) - wanted.astype(int)).mean() < 0.5
        assert ours.labels[i] == labels.label_of(example, task.tfds.label_rule)


@pytest.mark.parametrize(
    ("name", "form", "count"),
    [
        ("cifar", "train_{:05d}", archives.ONE),
        ("svhn", "train_{:06d}", archives.ONE),
        ("dsprites_loc", "{:06d}", 1280),
    ],
)
def test_the_order_of_ids_is_the_documented_one(name, form, count, packed):
    """Ascending md5 of split name and key, computed here from nothing but the number of images."""
    order = sorted(
        range(count),
        key=lambda i: hashlib.md5(f"train{i}".encode(), usedforsecurity=False).hexdigest(),
    )
    ids = json.loads((home_of(packed, VTAB.task(name)) / "train/ids.json").read_text())
    assert ids == [form.format(i) for i in order[:800]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("clevr_count", "clevr_dist"),
        ("dsprites_loc", "dsprites_ori"),
        ("smallnorb_azi", "smallnorb_ele"),
    ],
)
def test_paired_tasks_share_one_image_file(one, other, packed):
    for part in ("train", "val", "test"):
        files = [home_of(packed, VTAB.task(name)) / part / "images.npy" for name in (one, other)]
        assert files[0].samefile(files[1])
        labelled = [np.load(f.with_name("labels.npy")).tolist() for f in files]
        assert labelled[0] != labelled[1]


def test_tfrecord_copies_are_read_the_same(tmp_path, upstream, packed):
    """The same builder in the older format, without TensorFlow's reader."""
    import tensorflow_datasets

    for name in ("cifar", "clevr_dist", "kitti"):
        task = VTAB.task(name)
        builder = task.tfds.builder
        with pytest.MonkeyPatch.context() as patch:
            downloads.serve(patch, upstream / builder)
            tensorflow_datasets.builder(
                builder, data_dir=str(tmp_path), file_format="tfrecord"
            ).download_and_prepare()
        assert list(tmp_path.glob(f"{builder}/*/*.tfrecord*"))
        pack_splits(
            VTAB,
            task,
            find_source(task, tmp_path),
            tmp_path / "packed",
            "vtab",
            SIDE,
            force=True,
            progress=quiet,
        )
        for part in ("train", "val", "test"):
            ours, theirs = (
                pack.read_manifest(home_of(r, task) / part) for r in (tmp_path / "packed", packed)
            )
            assert ours["digest"] == theirs["digest"]


def test_a_truncated_tfrecord_is_named(tmp_path, upstream):
    import tensorflow_datasets

    task = VTAB.task("cifar")
    with pytest.MonkeyPatch.context() as patch:
        downloads.serve(patch, upstream / "cifar100")
        tensorflow_datasets.builder(
            "cifar100", data_dir=str(tmp_path), file_format="tfrecord"
        ).download_and_prepare()
    shard = next(tmp_path.glob("cifar100/*/*train.tfrecord*"))
    shard.write_bytes(shard.read_bytes()[:300_000])
    with pytest.raises(ValueError, match="is truncated"):
        pack_splits(
            VTAB,
            task,
            find_source(task, tmp_path),
            tmp_path / "packed",
            "vtab",
            SIDE,
            force=True,
            progress=quiet,
        )
    assert not (tmp_path / "packed/vtab/cifar/native/train").exists()


def test_training_where_tensorflow_cannot_be_imported(packed, tmp_path):
    """All 19 tasks, one epoch each, in one process."""
    blocked = "import sys; sys.modules.update(tensorflow=None, tensorflow_datasets=None, array_record=None); "
    start = (
        "sys.argv[0] = 'train.py'; import runpy; runpy.run_path('train.py', run_name='__main__')"
    )
    options = [
        "-m",
        "data=glob(vtab/*)",
        "backbone=vit_nano",
        "epochs=1",
        "warmup_epochs=0",
        "force_data=true",
        "logger=none",
    ]
    options += [f"data_root={packed}", f"results={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", blocked + start, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = [json.loads(p.read_text()) for p in tmp_path.glob("records/vtab/san/*.json")]
    assert {r["task"] for r in records} == set(VTAB.tasks)
    assert all(r["status"] == "done" and r["data"]["forced"] for r in records)
    assert all(r["data"]["source"].startswith("TFDS") for r in records)


def test_unproved_data_does_not_train_unless_forced(packed, tmp_path):
    command = [
        sys.executable,
        "train.py",
        "data=vtab/cifar",
        "backbone=vit_nano",
        f"data_root={packed}",
    ]
    done = subprocess.run(
        [*command, f"results={tmp_path}", "logger=none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the benchmark's 3b988aec91f8a50f" in done.stderr
    assert "force_data=true" in done.stderr


def test_vit_b16_from_a_local_file_of_random_weights(packed, tmp_path):
    import timm
    from safetensors.torch import save_file

    save_file(
        timm.create_model("vit_base_patch16_224.augreg_in21k", num_classes=0).state_dict(),
        tmp_path / "random.safetensors",
    )
    command = [
        sys.executable,
        "train.py",
        "data=vtab/cifar",
        f"backbone.weights={tmp_path / 'random.safetensors'}",
    ]
    options = [
        "epochs=1",
        "warmup_epochs=0",
        "protocol=tune",
        "protocol.train=val",
        "batch_size=10",
        "force_data=true",
        "logger=none",
        f"data_root={packed}",
    ]
    done = subprocess.run(
        [*command, *options, f"results={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(next(tmp_path.glob("records/vtab/san/cifar*.json")).read_text())
    assert (record["backbone"], record["last"]["total"]) == ("vit_b16_augreg_in21k", 200)


def test_names_of_classes_and_sizes_of_downloads_are_those_of_tfds():
    import tensorflow_datasets

    suites = [load_suite(name) for name in ("vtab", "fgvc", "gic", "robustness")]
    tasks = [task for suite in suites for task in suite.tasks.values() if task.tfds]
    assert len(tasks) == 19 + 4 + 2 + 2
    for task in tasks:
        facts = task.tfds
        builder = tensorflow_datasets.builder(tfds.name_of(task), data_dir="unused")
        names = getattr(dict(builder.info.features.items()).get("label"), "names", None)
        if names and not names[0].isdecimal():
            assert class_name_mismatch(task, names) == "", task.name
        assert int(str(builder.version).split(".")[0]) in facts.major_versions
        size = sum(info.size for info in builder.url_infos.values()) / 1e9
        if task.name not in (
            "caltech101",
            "eurosat",
            "diabetic_retinopathy",
            "imagenet",
        ):  # alternatives, and by hand
            assert task.download_gb == pytest.approx(size, rel=0.02, abs=0.005)


def test_a_build_without_network_says_what_was_tried(tmp_path):
    places = download.Paths(tmp_path, tmp_path / "tfds", tmp_path / "manual")
    steps = download.plan([(VTAB, VTAB.task("cifar"))], places, None, 224)
    assert [s.action for s in steps] == ["build"]
    errors = download.prepare_all(steps, places, 224, False, 1, quiet, print)
    assert len(errors) == 1
    assert "cifar-100-binary.tar.gz" in errors[0]
    assert str(tmp_path / "manual" / "cifar100") in errors[0]
    assert not list(tmp_path.glob("vtab/*"))
