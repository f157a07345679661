"""One process runs a run: claims are taken once, given back, and taken over from the dead alone."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from san.runtime import lease


def test_a_claim_is_held_once_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "run.claim"
    with lease.hold(path) as report:
        assert report is not None
        with lease.hold(path) as second:
            assert second is None
        report(3, 10)
        found = lease.read_lease(path)
        assert found is not None
        assert (found.pid, found.epoch, found.epochs) == (os.getpid(), 3, 10)
        assert found.alive(path)
    assert list(path.parent.iterdir()) == []


def test_a_claim_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    code = (
        f"from san.runtime import lease; from pathlib import Path; lease.take(Path({str(path)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    left = lease.read_lease(path)
    assert left is not None
    assert not left.alive(path)
    with lease.hold(path) as report:
        assert report is not None
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_the_same_number_is_not_the_one_that_claimed(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    mine = lease.acquire(path)
    assert mine is not None
    lease.write_lease(replace(mine, born="1", token="other"), path)
    with lease.hold(path) as report:
        assert report is not None


@pytest.mark.parametrize(("silent", "taken"), [(0, False), (lease.STALE_AFTER_S + 10, True)])
def test_a_claim_of_another_host_is_alive_as_long_as_it_is_touched(
    silent: float, taken: bool, tmp_path: Path
) -> None:
    path = tmp_path / "run.claim"
    far = lease.Lease("another-host", 1, "1", 0.0, "token")
    path.write_text(json.dumps(asdict(far)))
    os.utime(path, (time.time() - silent,) * 2)
    with lease.hold(path) as report:
        assert (report is not None) == taken
    assert path.exists() != taken


def test_a_claim_that_was_taken_over_is_not_given_back(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    with lease.hold(path):
        thief = lease.Lease("another-host", 1, "1", 0.0, "thief")
        lease.write_lease(thief, path)
    assert lease.read_lease(path) == thief


def compete(path: Path, gate: float, won: Path) -> None:
    while time.time() < gate:
        pass
    if lease.acquire(path) is not None:
        (won / str(os.getpid())).touch()
    time.sleep(1)


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_try_at_once_one_gets_it(stale: bool, tmp_path: Path) -> None:
    path, won = tmp_path / "run.claim", tmp_path / "won"
    won.mkdir()
    if stale:
        path.write_text(json.dumps(asdict(lease.Lease("another-host", 1, "1", 0.0, "old"))))
        os.utime(path, (0, 0))
    context = get_context("fork")
    processes = [
        context.Process(target=compete, args=(path, time.time() + 0.3, won)) for _ in range(12)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(list(won.iterdir())) == 1


def test_a_door_that_somebody_died_in_opens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.claim"
    code = (
        f"from san.runtime import lease; from pathlib import Path; lease.take(Path({str(path)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    left = lease.read_lease(path)
    assert left is not None
    door = path.with_name(f".{path.name}-{left.token}.taken")
    door.touch()
    assert lease.acquire(path) is None
    os.utime(door, (time.time() - 2 * lease.TAKEOVER_LOCK_TIMEOUT_S,) * 2)
    assert lease.acquire(path) is not None
    assert not door.exists()


@pytest.mark.parametrize("text", ["", "{", '{"host": 1}'])
def test_a_claim_that_a_crashed_machine_left_unreadable_is_taken_over_in_time(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.claim"
    path.write_text(text)
    assert lease.acquire(path) is None
    os.utime(path, (time.time() - 2 * lease.STALE_AFTER_S,) * 2)
    with lease.hold(path) as report:
        assert report is not None
    assert list(tmp_path.iterdir()) == []


def test_who_is_taken_for_dead_and_lives_learns_of_it_and_leaves_the_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    path, robbed = tmp_path / "run.claim", []
    with lease.hold(path, lambda: robbed.append(True)) as report:
        assert report is not None
        mine = lease.read_lease(path)
        assert mine is not None
        other = replace(mine, host="another", token="other")
        lease.write_lease(other, path)
        report(3, 10)
        deadline = time.monotonic() + 5
        while len(robbed) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(robbed) == 2  # by its report, and by its signs of life
    assert lease.read_lease(path) == other
