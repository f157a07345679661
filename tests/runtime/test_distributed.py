"""Two processes (torchrun, gloo) that share a run: the same as one with the same global batch.

Only rank 0 writes.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from san.data.batches import Batches, Shard
from san.data.preprocess import Preprocess
from san.data.split import Images, Split
from san.errors import InvalidValueError
from san.record_file import read_records
from san.runtime import lease

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CPU = torch.device("cpu")
PREPROCESS = Preprocess("vtab", "inception")


def train_command(results_dir: Path, data_root: Path, *words: str, processes: int = 2) -> list[str]:
    start = TORCHRUN if processes == 2 else [sys.executable]
    chosen = [
        "data=demo/digits",
        "logger=none",
        "save_adapter=true",
        f"results_dir={results_dir}",
        f"data_root={data_root}",
    ]
    return [*start, "train.py", *words, *chosen]


def adapters(results_dir: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.stem: load_file(path) for path in sorted(results_dir.rglob("*.safetensors"))}


@pytest.mark.sweep
def test_two_processes_equal_one(tmp_path: Path, data_root: Path) -> None:
    # 800 + 200 images in batches of 63: neither the full batches nor the last one can be shared
    # evenly.
    words = [
        "-m",
        "method=san,full,lora,adapter",
        "epochs=1",
        "batch_size=63",
        "optimizer=sgd",
        "lr=0.05",
    ]
    for processes in (1, 2):
        command = train_command(tmp_path / str(processes), data_root, *words, processes=processes)
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr
        output = done.stdout + done.stderr
        assert output.count(" % in ") == 4  # rank 1 is silent
    one = adapters(tmp_path / "1")
    two = adapters(tmp_path / "2")
    assert len(one) == 4
    assert one.keys() == two.keys()
    for name, tensors in one.items():
        for key, value in tensors.items():
            torch.testing.assert_close(
                two[name][key], value, rtol=1e-4, atol=2e-6, msg=f"{name} {key}"
            )
    records_of_one, _ = read_records(tmp_path / "1" / "records")
    records_of_two, _ = read_records(tmp_path / "2" / "records")
    assert len(list(tmp_path.rglob("*.answers"))) == 8
    assert len(records_of_one) == len(records_of_two) == 4
    for one_alone, shared in zip(records_of_one, records_of_two, strict=True):
        assert shared.last.correct == one_alone.last.correct
        assert shared.last.loss == pytest.approx(one_alone.last.loss, rel=1e-4)
        assert shared.classes == one_alone.classes
        assert shared.answers == one_alone.answers
        (entry,) = shared.history
        assert entry.train_loss == pytest.approx(one_alone.history[0].train_loss, rel=1e-4)
        assert entry.lr == one_alone.history[0].lr
    assert [r.device.count for r in records_of_one] == [1] * 4
    assert [r.device.count for r in records_of_two] == [2] * 4


@pytest.mark.sweep
def test_ranks_evaluate_with_the_statistics_that_are_saved(tmp_path: Path, data_root: Path) -> None:
    """Each has seen images of its own; all end with those of rank 0."""
    words = ["method=mlp", "epochs=1", "lr=0.1", "optimizer=sgd"]
    train = train_command(tmp_path / "2", data_root, *words)
    assert subprocess.run(train, cwd=ROOT, timeout=200, check=False).returncode == 0
    (saved,) = (tmp_path / "2").rglob("*.safetensors")
    words.append(f"adapter_checkpoint={saved}")
    test = train_command(tmp_path / "1", data_root, *words, processes=1)
    assert subprocess.run(test, cwd=ROOT, timeout=200, check=False).returncode == 0
    (shared,), (alone,) = (read_records(tmp_path / n / "records")[0] for n in ("2", "1"))
    assert shared.last.correct == alone.last.correct
    assert shared.last.loss == pytest.approx(alone.last.loss, rel=1e-5)


def wait_for_epoch(epoch: int, records: Path) -> None:
    """Wait until a run has reported that this epoch is over."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        leases = [lease.read_lease(path) for path in records.rglob("*.claim")]
        if any(found is not None and found.epoch >= epoch for found in leases):
            return
        time.sleep(0.02)
    raise AssertionError(f"no run has reached epoch {epoch}")


def last_child(pid: int) -> int:
    command = ["pgrep", "-P", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(found.stdout.split()[-1])


@pytest.mark.sweep
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_or_after_the_death_of_a_rank_they_resume_to_the_same_bits(
    number: signal.Signals, tmp_path: Path, data_root: Path
) -> None:
    words = [
        "method=san",
        "epochs=8",
        "drop_path=0.3",  # draws different numbers on each rank
        "ema_decay=0.9",
        "clip_grad=0.5",
    ]
    uninterrupted = train_command(tmp_path / "a", data_root, *words)
    interrupted = train_command(tmp_path / "b", data_root, *words)
    assert subprocess.run(uninterrupted, cwd=ROOT, timeout=200, check=False).returncode == 0
    process = subprocess.Popen(interrupted, cwd=ROOT)
    wait_for_epoch(3, tmp_path / "b" / "records")
    if number == signal.SIGKILL:  # a rank dies; the other has saved itself after every epoch
        os.kill(last_child(process.pid), signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert len(list(tmp_path.rglob("b/**/*.checkpoint"))) == 1
    assert not list(tmp_path.rglob("b/records/**/*.json"))
    assert subprocess.run(interrupted, cwd=ROOT, timeout=200, check=False).returncode == 0
    expected = adapters(tmp_path / "a")
    resumed = adapters(tmp_path / "b")
    assert expected.keys() == resumed.keys()
    assert len(expected) == 1
    for name, tensors in expected.items():
        assert all(torch.equal(resumed[name][key], value) for key, value in tensors.items())
    assert not list(tmp_path.rglob("*.checkpoint"))
    (whole,) = read_records(tmp_path / "a" / "records")[0]
    (again,) = read_records(tmp_path / "b" / "records")[0]
    assert len(whole.history) == 8
    assert (again.history, again.answers) == (whole.history, whole.answers)
    assert again.started < again.created
    assert again.device_hours > again.seconds.fit * 2 / 3600


def numbered_split(images: int) -> Split:
    """Black images, labelled by their number."""
    return Split(
        (Images(np.zeros((images, 4, 4, 3), np.uint8)),),
        np.arange(images),
        [str(i) for i in range(images)],
        "f",
        ({"made_by": "a test"},),
    )


def training_labels(images: int, batch_size: int, shard: Shard) -> tuple[Batches, list[list[int]]]:
    batches = Batches.for_training(
        numbered_split(images),
        batch_size=batch_size,
        preprocess=PREPROCESS,
        image_size=4,
        device=CPU,
        generator=torch.Generator().manual_seed(5),
        shard=shard,
    )
    return batches, [labels.tolist() for _, labels in batches]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_shards_of_a_batch_are_the_batch_and_their_weights_its_mean(world_size: int) -> None:
    _, expected = training_labels(11, 4, Shard())
    assert len(expected) == 3
    ranks = [training_labels(11, 4, Shard(rank, world_size)) for rank in range(world_size)]
    for i, batch in enumerate(expected):
        shards = [labels[i] for _, labels in ranks]
        assert sorted(itertools.chain(*shards)) == sorted(batch)
        weighted = [batches.weight(i) * np.mean(labels[i]) for batches, labels in ranks]
        assert sum(weighted) / world_size == pytest.approx(np.mean(batch))


def test_every_image_is_scored_once_though_a_rank_may_have_none_of_a_batch() -> None:
    seen: list[int] = []
    for rank in range(3):
        batches = Batches.for_evaluation(
            numbered_split(9),
            batch_size=4,
            preprocess=PREPROCESS,
            image_size=4,
            device=CPU,
            shard=Shard(rank, 3),
        )
        for _, labels in batches:
            seen += labels.tolist()
    assert sorted(seen) == list(range(9))


def test_a_last_batch_that_cannot_be_shared_is_refused() -> None:
    message = r"leaves 1 images for the last batch .* 3 processes share it"
    with pytest.raises(InvalidValueError, match=message):
        training_labels(9, 4, Shard(0, 3))
