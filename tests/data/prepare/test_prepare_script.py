"""scripts/prepare.py in two processes, and killed."""

import subprocess
import sys
import time
from pathlib import Path

import pictures
from small_tasks import ROOT, VTAB

from san.data import verify


def test_two_processes_prepare_the_same_task(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(
        tmp_path / "kitti", {"train800": 800, "val200": 200, "test": 711}, 4
    )
    command = [
        sys.executable,
        str(ROOT / "scripts/prepare.py"),
        "vtab/kitti",
        "--from",
        str(folder),
        "--side",
        "16",
    ]
    both = [
        subprocess.Popen([*command, "--root", str(tmp_path / "data")], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [(p.communicate()[1].decode()[-500:], p.returncode)[1] for p in both] == [0, 0]
    home = tmp_path / "data/vtab/kitti/vtab-16"
    assert sorted(p.name for p in home.iterdir()) == ["test", "train", "val"]
    assert all(f.good is not False for f in verify.verify(VTAB.task("kitti"), home))


def test_killing_preparation_loses_only_the_split_in_flight(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(
        tmp_path / "kitti", {"train800": 800, "val200": 200, "test": 711}, 4, height=375, width=1242
    )
    command = [
        sys.executable,
        str(ROOT / "scripts/prepare.py"),
        "vtab/kitti",
        "--from",
        str(folder),
    ]
    command += ["--root", str(tmp_path / "data")]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    home = tmp_path / "data/vtab/kitti/vtab-224"
    deadline = time.monotonic() + 120
    while not (home / "train").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.wait()
    whole = sorted(p.name for p in home.iterdir() if not p.name.startswith("."))
    assert "train" in whole
    assert "test" not in whole
    stamp = (home / "train/manifest.json").stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "train: there already" in again.stdout
    assert "test: 711 images" in again.stdout
    assert (home / "train/manifest.json").stat().st_mtime_ns == stamp
    assert sorted(p.name for p in home.iterdir()) == [
        "test",
        "train",
        "val",
    ]  # nothing of the killed one is left
    assert all(f.good is not False for f in verify.verify(VTAB.task("kitti"), home))
