"""One process runs a run: leases are acquired once, released, and taken over only from the dead."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from san.runtime import files, lease
from san.runtime.lease import Lease


def write(content: Lease, path: Path) -> None:
    path.write_text(json.dumps(asdict(content)))


def foreign_lease(token: str) -> Lease:
    return Lease(host="another-host", pid=1, born="1", since=0.0, token=token)


def make_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def lease_of_a_dead_process(path: Path) -> Lease:
    """Let another process acquire the lease at `path`, and die with it."""
    code = f"""
from pathlib import Path
from san.runtime import lease
assert lease.acquire(Path({str(path)!r})) is not None
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    left = lease.read_lease(path)
    assert left is not None
    return left


def test_a_lease_is_held_once_and_released(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "run.claim"
    with lease.hold(path) as held:
        assert held is not None
        with lease.hold(path) as second:
            assert second is None
        held.report(3, 10)
        found = lease.read_lease(path)
        assert found is not None
        assert (found.pid, found.epoch, found.epochs) == (os.getpid(), 3, 10)
        assert found.alive(path)
    assert list(path.parent.iterdir()) == []


def test_the_file_is_what_earlier_versions_read_and_write(tmp_path: Path) -> None:
    path = lease.lease_path(tmp_path / "0123.json")
    assert path == tmp_path / "0123.claim"
    with lease.hold(path):
        content = json.loads(path.read_text())
    assert set(content) == {"host", "pid", "born", "since", "token", "epoch", "epochs"}


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    assert not lease_of_a_dead_process(path).alive(path)
    with lease.hold(path) as held:
        assert held is not None
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_reuses_the_id_is_not_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    mine = lease.acquire(path)
    assert mine is not None
    write(replace(mine, born="1", token="other"), path)
    with lease.hold(path) as held:
        assert held is not None


@pytest.mark.parametrize(
    ("seconds_untouched", "taken"),
    [(0, False), (lease.STALE_AFTER_S - 10, False), (lease.STALE_AFTER_S + 10, True)],
)
def test_a_lease_of_another_host_is_alive_as_long_as_it_is_touched(
    seconds_untouched: float, taken: bool, tmp_path: Path
) -> None:
    path = tmp_path / "run.claim"
    write(foreign_lease("token"), path)
    make_old(path, seconds_untouched)
    with lease.hold(path) as held:
        assert (held is not None) == taken
    assert path.exists() != taken


def test_a_lease_that_was_taken_over_is_not_released(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    thief = foreign_lease("thief")
    with lease.hold(path):
        write(thief, path)
    assert lease.read_lease(path) == thief


def compete(path: Path, barrier: Barrier, winners: Path) -> None:
    barrier.wait(60)
    if lease.acquire(path) is not None:
        (winners / str(os.getpid())).touch()
    barrier.wait(60)  # a winner that exits before all have tried would be a dead holder


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_try_at_once_one_acquires_it(stale: bool, tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    winners = tmp_path / "winners"
    winners.mkdir()
    if stale:
        write(foreign_lease("old"), path)
        os.utime(path, (0, 0))
    context = get_context("fork")
    arguments = (path, context.Barrier(12), winners)
    processes = [context.Process(target=compete, args=arguments) for _ in range(12)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 12
    assert len(list(winners.iterdir())) == 1


def test_a_takeover_lock_of_a_dead_process_expires(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    left = lease_of_a_dead_process(path)
    lock = path.with_name(f".{path.name}-{left.token}.taken")
    lock.touch()
    assert lease.acquire(path) is None
    make_old(lock, 2 * lease.TAKEOVER_LOCK_TIMEOUT_S)
    assert lease.acquire(path) is not None
    assert not lock.exists()


@pytest.mark.parametrize("text", ["", "{", '{"host": 1}'])
def test_an_unreadable_lease_of_a_crashed_machine_is_taken_over_in_time(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.claim"
    path.write_text(text)
    assert lease.acquire(path) is None
    make_old(path, 2 * lease.STALE_AFTER_S)
    with lease.hold(path) as held:
        assert held is not None
    assert list(tmp_path.iterdir()) == []


def test_a_holder_taken_for_dead_learns_of_it_and_leaves_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    path = tmp_path / "run.claim"
    losses: list[bool] = []
    with lease.hold(path, lambda: losses.append(True)) as held:
        assert held is not None
        write(foreign_lease("other"), path)
        held.report(3, 10)
        deadline = time.monotonic() + 5
        while len(losses) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(losses) == 2  # once by its report, once by its heartbeat
    assert lease.read_lease(path) == foreign_lease("other")


def test_the_heartbeat_touches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    path = tmp_path / "run.claim"
    with lease.hold(path):
        make_old(path, 1000)
        deadline = time.monotonic() + 5
        while time.time() - path.stat().st_mtime > 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 100


def test_a_full_disk_does_not_stop_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(text: str, path: Path) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "run.claim"
    with lease.hold(path) as held:
        assert held is not None
        held.report(1, 10)
        with monkeypatch.context() as patched:
            patched.setattr(files, "write_text", full)
            held.report(2, 10)
        found = lease.read_lease(path)
        assert found is not None
        assert found.epoch == 1
