"""scripts/prepare.py in two processes, killed, and with mistakes of users."""

import subprocess
import sys
import time
from pathlib import Path

import pictures
from small_tasks import VTAB

from san.data.verify import verify

ROOT = Path(__file__).parents[3]
SIZES = {"train800": 800, "val200": 200, "test": 711}


def command(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, ROOT / "scripts/prepare.py", *arguments]


def is_good(folder: Path) -> bool:
    findings = verify(VTAB.task("kitti"), folder)
    return len(findings) >= 3 and all(finding.good is not False for finding in findings)


def test_two_processes_prepare_the_same_task(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "kitti", SIZES, 4)
    prepare = command("vtab/kitti", "--from", folder, "--side", "16", "--root", tmp_path / "data")
    both = [subprocess.Popen(prepare, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()[-500:]
    home = tmp_path / "data/vtab/kitti/vtab-16"
    assert sorted(path.name for path in home.iterdir()) == ["test", "train", "val"]
    assert is_good(home)


def test_killing_preparation_loses_only_the_split_in_flight(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "kitti", SIZES, 4, height=188, width=621)
    prepare = command("vtab/kitti", "--from", folder, "--root", tmp_path / "data")
    first = subprocess.Popen(prepare, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    home = tmp_path / "data/vtab/kitti/vtab-224"
    deadline = time.monotonic() + 120
    while not (home / "train").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.wait()
    complete = [path.name for path in home.iterdir() if not path.name.startswith(".")]
    assert "train" in complete
    assert "test" not in complete

    manifest = home / "train/manifest.json"
    written = manifest.stat().st_mtime_ns
    again = subprocess.run(prepare, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "train: already packed" in again.stdout
    assert "test: 711 images" in again.stdout
    assert manifest.stat().st_mtime_ns == written
    # Nothing of the killed process is left.
    assert sorted(path.name for path in home.iterdir()) == ["test", "train", "val"]
    assert is_good(home)


def test_mistakes_are_said_without_a_trace(tmp_path: Path) -> None:
    mistakes = {
        ("vtab/cifra", "--plan"): "Error: Unknown task of vtab 'cifra'. Did you mean cifar",
        ("vtab/dtd", "--from", str(tmp_path / "nix")): "nix does not exist; a folder or a .zip",
    }
    for arguments, message in mistakes.items():
        done = subprocess.run(
            command(*arguments, "--root", tmp_path), capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_task_that_cannot_be_prepared_is_counted(tmp_path: Path) -> None:
    prepare = command("vtab/dtd", "--from", tmp_path, "--root", tmp_path / "data")
    done = subprocess.run(prepare, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "manual vtab/dtd: nothing of it is at" in done.stdout
    assert "Error: vtab/dtd: nothing of it is at" in done.stderr
    assert "1 of 1 tasks could not be prepared. Run this again to go on." in done.stderr
