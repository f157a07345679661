"""Two processes (torchrun, gloo) that share a run: the same as one with the same global batch, and only rank 0 writes."""

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

from san import record
from san.data.batches import Batches, Preprocess
from san.data.split import Images, Split
from san.runtime import lease

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def command(results: Path, data: Path, *words: str, processes: int = 2) -> list[str]:
    start = TORCHRUN if processes == 2 else [sys.executable]
    chosen = [
        "data=demo/digits",
        "logger=none",
        "save_adapter=true",
        f"results={results}",
        f"data_root={data}",
    ]
    return [*start, "train.py", *words, *chosen]


def adapters(results: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {p.stem: load_file(p) for p in sorted(results.rglob("*.safetensors"))}


@pytest.mark.sweep
def test_two_processes_equal_one(tmp_path: Path, data_root: Path) -> None:
    # 800 + 200 images in batches of 63: neither the full batches nor the last one can be shared evenly.
    words = [
        "-m",
        "method=san,full,lora,adapter",
        "epochs=1",
        "batch_size=63",
        "optimizer=sgd",
        "lr=0.05",
    ]
    for processes in (1, 2):
        done = subprocess.run(
            command(tmp_path / str(processes), data_root, *words, processes=processes),
            cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(" % in ") + done.stderr.count(" % in ") == 4  # rank 1 is silent
    one, two = adapters(tmp_path / "1"), adapters(tmp_path / "2")
    assert len(one) == 4
    assert one.keys() == two.keys()
    for name, tensors in one.items():
        for key, value in tensors.items():
            torch.testing.assert_close(
                two[name][key], value, rtol=1e-4, atol=2e-6, msg=f"{name} {key}"
            )
    scores = [
        [r.last for r in record.read_records(tmp_path / n / "records")[0]] for n in ("1", "2")
    ]
    assert scores[0] == scores[1]
    assert [r.device["count"] for r in record.read_records(tmp_path / "2" / "records")[0]] == [
        2
    ] * 4


@pytest.mark.sweep
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_told_to_stop_or_bereft_of_one_they_go_on_with_the_same_bits(
    number: signal.Signals, tmp_path: Path, data_root: Path
) -> None:
    words = [
        "method=san",
        "epochs=8",
        "+backbone.arguments.drop_path_rate=0.3",
    ]  # which draws other numbers by rank
    whole = subprocess.run(
        command(tmp_path / "a", data_root, *words), cwd=ROOT, timeout=200, check=False
    )
    assert whole.returncode == 0
    stopped = subprocess.Popen(command(tmp_path / "b", data_root, *words), cwd=ROOT)
    deadline, found = time.monotonic() + 100, None
    while time.monotonic() < deadline and (found is None or found.epoch < 3):
        time.sleep(0.02)
        found = next((lease.read_lease(p) for p in tmp_path.rglob("b/records/**/*.claim")), None)
    if number == signal.SIGKILL:  # a rank dies; the other has saved itself after every epoch
        found = subprocess.run(
            ["pgrep", "-P", str(stopped.pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(found.stdout.split()[-1]), signal.SIGKILL)
    else:
        stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(60) != 0
    assert len(list(tmp_path.rglob("b/**/*.checkpoint"))) == 1
    assert not list(tmp_path.rglob("b/records/**/*.json"))
    again = subprocess.run(
        command(tmp_path / "b", data_root, *words), cwd=ROOT, timeout=200, check=False
    )
    assert again.returncode == 0
    one, two = adapters(tmp_path / "a"), adapters(tmp_path / "b")
    assert one.keys() == two.keys()
    assert len(one) == 1
    for name, tensors in one.items():
        assert all(torch.equal(two[name][key], value) for key, value in tensors.items())
    assert not list(tmp_path.rglob("*.checkpoint"))


def batches(
    images: int, size: int, rank: int, ranks: int, order: torch.Generator | None
) -> Batches:
    pixels = np.zeros((images, 4, 4, 3), np.uint8)
    split = Split(
        (Images(pixels),),
        np.arange(images),
        [str(i) for i in range(images)],
        "f",
        ({"made_by": "a test"},),
    )
    return Batches(
        split, size, Preprocess("vtab", "half"), 4, torch.device("cpu"), order, share=(rank, ranks)
    )  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_shares_of_a_batch_are_the_batch_and_their_weights_its_mean(ranks: int) -> None:
    whole = [
        labels.tolist() for _, labels in batches(11, 4, 0, 1, torch.Generator().manual_seed(5))
    ]
    parts = [batches(11, 4, r, ranks, torch.Generator().manual_seed(5)) for r in range(ranks)]
    shares = [[labels.tolist() for _, labels in part] for part in parts]
    for i, batch in enumerate(whole):
        assert sorted(label for share in shares for label in share[i]) == sorted(batch)
        mean = (
            sum(p.weight(i) * np.mean(share[i]) for p, share in zip(parts, shares, strict=True))
            / ranks
        )
        assert mean == pytest.approx(np.mean(batch))


def test_every_image_is_scored_once_though_a_rank_may_have_none_of_a_batch() -> None:
    seen = [
        label
        for r in range(3)
        for _, labels in batches(9, 4, r, 3, None)
        for label in labels.tolist()
    ]
    assert sorted(seen) == list(range(9))


def test_a_last_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"leaves 1 images for the last batch .* 3 processes share it"
    ):
        batches(9, 4, 0, 3, torch.Generator())
