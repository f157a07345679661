"""One process runs a run: leases are acquired once, released, and taken over only from the dead.

Who counts as dead is in test_lease_holder.py.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from san.errors import FileAccessError
from san.runtime import lease, lease_holder
from san.runtime.lease_holder import Lease, Liveness, find_holder, look

PATIENCE_S = 600  # a machine that does other work may be slow


def write(content: Lease, path: Path) -> None:
    path.write_text(json.dumps(asdict(content)))


def foreign_lease(token: str) -> Lease:
    return Lease(host="another-host", pid=1, born="1", since=0.0, token=token)


def liveness(path: Path) -> Liveness | None:
    holder = find_holder(path)
    return None if holder is None else holder.liveness


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
        assert liveness(path) == Liveness.ALIVE
    assert list(path.parent.iterdir()) == []


def test_the_file_is_what_earlier_versions_read_and_write(tmp_path: Path) -> None:
    path = lease.lease_path(tmp_path / "0123.json")
    assert path == tmp_path / "0123.claim"
    with lease.hold(path):
        content = json.loads(path.read_text())
    written_by_all = {"host", "pid", "born", "since", "token", "epoch", "epochs"}
    # Earlier versions take a file with another key for that of an unknown host: they watch it.
    assert set(content) == written_by_all | {"namespace"}
    del content["namespace"]
    path.write_text(json.dumps(content))
    assert liveness(path) == Liveness.ALIVE


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    lease_of_a_dead_process(path)
    assert liveness(path) == Liveness.DEAD
    with lease.hold(path) as held:
        assert held is not None
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_reuses_the_id_is_not_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    mine = lease.acquire(path)
    assert mine is not None
    write(replace(mine, born="1", token="0e"), path)
    with lease.hold(path) as held:
        assert held is not None


def test_a_lease_that_was_taken_over_is_not_released(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    thief = foreign_lease("0ff")
    with lease.hold(path):
        write(thief, path)
    assert lease.read_lease(path) == thief


def compete(path: Path, barrier: Barrier, winners: Path) -> None:
    dead = look(path)
    barrier.wait(60)
    if lease.acquire(path, dead) is not None:
        (winners / str(os.getpid())).touch()
    barrier.wait(60)  # a winner that exits before all have tried would be a dead holder


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_try_at_once_one_acquires_it(stale: bool, tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    winners = tmp_path / "winners"
    winners.mkdir()
    if stale:
        write(foreign_lease("01d"), path)
    context = get_context("fork")
    arguments = (path, context.Barrier(12), winners)
    processes = [context.Process(target=compete, args=arguments) for _ in range(12)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 12
    assert len(list(winners.iterdir())) == 1


def test_a_takeover_lock_of_a_dead_process_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.claim"
    left = lease_of_a_dead_process(path)
    lock = path.with_name(f".{path.name}-{left.token}.taken")
    lock.touch()
    make_old(lock, -1e6)  # its time does not matter
    assert lease.acquire(path) is None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + lease.TAKEOVER_LOCK_TIMEOUT_S + 1)
    assert lease.acquire(path) is not None
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_holder_taken_for_dead_learns_of_it_and_leaves_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_holder, "HEARTBEAT_S", 0.05)
    path = tmp_path / "run.claim"
    losses: list[bool] = []
    with lease.hold(path, lambda: losses.append(True)) as held:
        assert held is not None
        write(foreign_lease("0e"), path)
        held.report(3, 10)
        deadline = time.monotonic() + 5
        while len(losses) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(losses) == 2  # once by its report, once by its heartbeat
    assert lease.read_lease(path) == foreign_lease("0e")


def test_the_heartbeat_touches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_holder, "HEARTBEAT_S", 0.05)
    path = tmp_path / "run.claim"
    with lease.hold(path):
        make_old(path, 1000)
        deadline = time.monotonic() + 5
        while time.time() - path.stat().st_mtime > 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 100


def test_a_full_disk_does_not_stop_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "run.claim"
    with lease.hold(path) as held:
        assert held is not None
        held.report(1, 10)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_text", full)
            held.report(2, 10)
        found = lease.read_lease(path)
        assert found is not None
        assert found.epoch == 1


class Beats:
    """Counts the heartbeats of leases, and makes them fast."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        was_lost = lease.HeldLease._was_lost

        def beat(held: lease.HeldLease) -> bool:
            lost = was_lost(held)
            self.count += 1
            return lost

        patch.setattr(lease_holder, "HEARTBEAT_S", 0.01)
        patch.setattr(lease.HeldLease, "_was_lost", beat)

    def wait_for_more(self) -> None:
        """Wait until the file has been looked at, from now on, at least twice."""
        enough = self.count + 3
        while self.count < enough:
            time.sleep(0.01)


def test_a_lease_that_a_person_removes_passes_to_the_next_and_the_first_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = Beats(monkeypatch)
    path = tmp_path / "run.claim"
    lost = threading.Event()
    with lease.hold(path, lost.set):
        path.unlink()
        beats.wait_for_more()
        assert not lost.is_set()  # a file system that fails for a moment looks the same
        second = lease.acquire(path)
        assert second is not None
        assert lost.wait(PATIENCE_S)
    assert lease.read_lease(path) == second


def test_a_lease_that_cannot_be_read_for_a_moment_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = Beats(monkeypatch)
    path = tmp_path / "run.claim"
    lost = threading.Event()
    with lease.hold(path, lost.set) as held:
        assert held is not None
        path.write_text("{")
        beats.wait_for_more()
        held.report(1, 2)
        path.unlink()
        path.mkdir()
        beats.wait_for_more()
        held.report(1, 2)
        assert not lost.is_set()
        path.rmdir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o777])
def test_everybody_can_read_a_lease_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    lease_of_a_dead_process(path)
    previous = os.umask(umask)
    try:
        for _ in ("taken over", "created"):
            with lease.hold(path) as held:
                assert held is not None
                assert path.stat().st_mode & 0o777 == 0o644
                held.report(1, 2)
                assert path.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(previous)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_the_place_of_a_lease_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.claim"
    path.mkdir()
    with pytest.raises(FileAccessError, match=f"{path} is a directory; .* Move it away"):
        lease.acquire(path)
    assert list(tmp_path.iterdir()) == [path]


class Elsewhere:
    """A process on another host that holds a lease, and what happens as somebody waits for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop = threading.Event()
        write(foreign_lease("0a"), path)

    def after(self, seconds: float, act: Callable[[], object]) -> threading.Timer:
        timer = threading.Timer(seconds, act)
        timer.start()
        return timer

    def wait(self) -> bool:
        """Whether a single run gets the lease in the end."""
        with lease.hold(self.path, stop=self.stop) as held:
            return held is not None


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    monkeypatch.setattr(lease, "POLL_S", 0.02)
    monkeypatch.setattr(lease_holder, "STALE_AFTER_S", 0.5)
    return Elsewhere(tmp_path / "run.claim")


@pytest.mark.parametrize("age", [400, -3600], ids=["old", "of the future"])
def test_a_single_run_watches_a_lease_of_another_host_until_it_is_dead(
    age: float, elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    make_old(elsewhere.path, age)
    start = time.monotonic()
    assert elsewhere.wait()
    assert time.monotonic() - start >= 0.5
    (said,) = caplog.messages
    assert "another-host process 1 holds this run" in said
    assert f"if that process is gone, remove {elsewhere.path}" in said
    assert list(elsewhere.path.parent.iterdir()) == []


def test_a_single_run_leaves_a_lease_that_was_touched_lately(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_announce", lambda holder: pytest.fail("it watches"))
    assert not elsewhere.wait()
    assert [found.name for found in elsewhere.path.parent.iterdir()] == ["run.claim"]


@pytest.mark.parametrize("age", [400, -3600], ids=["old", "of the future"])
def test_a_single_run_leaves_a_lease_that_is_touched_while_it_watches(
    age: float, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_holder, "STALE_AFTER_S", 1000.0)
    make_old(elsewhere.path, age)
    elsewhere.after(0.1, lambda: make_old(elsewhere.path, age - 1))
    assert not elsewhere.wait()
    assert lease.read_lease(elsewhere.path) == foreign_lease("0a")


def test_a_single_run_takes_a_lease_that_is_removed_while_it_watches(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_holder, "STALE_AFTER_S", 1000.0)
    make_old(elsewhere.path, 400)
    elsewhere.after(0.1, elsewhere.path.unlink)
    assert elsewhere.wait()


def test_a_signal_ends_the_watch(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_holder, "STALE_AFTER_S", 1000.0)
    monkeypatch.setattr(lease, "POLL_S", 100.0)
    make_old(elsewhere.path, 400)
    elsewhere.after(0.1, elsewhere.stop.set)
    assert not elsewhere.wait()
    assert lease.read_lease(elsewhere.path) == foreign_lease("0a")


def test_a_lease_that_a_sweep_has_found_dead_is_taken_unless_it_was_touched(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.claim"
    write(foreign_lease("0a"), path)
    assert lease.acquire(path) is None
    dead = look(path)
    make_old(path, 17)
    assert lease.acquire(path, dead) is None
    assert lease.acquire(path, look(path)) is not None
    assert [found.name for found in tmp_path.iterdir()] == ["run.claim"]
