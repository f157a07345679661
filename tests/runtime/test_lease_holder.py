"""Who counts as dead: a process of this host by /proc, any other by watching its file alone."""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import Clock

from san.errors import FileAccessError
from san.runtime import lease, lease_holder
from san.runtime.lease_holder import STALE_AFTER_S, Lease, Liveness, find_holder, read_lease

FOREIGN = Lease(host="another-host", pid=1, born="1", since=0.0, token="0a")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.claim"


def write(content: Lease, path: Path) -> None:
    path.write_text(json.dumps(asdict(content)))


def touch(path: Path, skew: float) -> None:
    """Touch a file as a file server does whose clock is wrong."""
    now = time.time() + skew
    os.utime(path, (now, now))


def liveness(path: Path) -> Liveness | None:
    holder = find_holder(path)
    return None if holder is None else holder.liveness


def mine() -> Lease:
    return Lease.of_this_process(since=0.0, token="0b")


@pytest.mark.parametrize("skew", [0, -400, -3600, 3600, 1e9])
def test_a_silent_lease_is_dead_after_the_watch_whatever_its_time(
    skew: float, path: Path, clock: Clock
) -> None:
    write(FOREIGN, path)
    touch(path, skew)
    assert liveness(path) == Liveness.SILENT
    clock.now += STALE_AFTER_S - 1
    assert liveness(path) == Liveness.SILENT
    assert lease.acquire(path) is None
    clock.now += 1
    assert liveness(path) == Liveness.DEAD
    assert lease.acquire(path) is not None


@pytest.mark.parametrize("skew", [0, -400, -3600, 3600])
def test_a_lease_that_is_touched_is_never_stolen(skew: float, path: Path, clock: Clock) -> None:
    write(FOREIGN, path)
    for beat in range(50):
        touch(path, skew + beat * lease_holder.HEARTBEAT_S)
        assert liveness(path) == (Liveness.ALIVE if beat else Liveness.SILENT)
        assert lease.acquire(path) is None
        clock.now += lease_holder.HEARTBEAT_S
    clock.now += lease_holder.ALIVE_FOR_S
    assert liveness(path) == Liveness.SILENT
    clock.now += STALE_AFTER_S
    assert liveness(path) == Liveness.DEAD


def test_the_wall_clock_decides_nothing(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(FOREIGN, path)
    assert liveness(path) == Liveness.SILENT
    monkeypatch.setattr(time, "time", lambda: 1e11)
    assert liveness(path) == Liveness.SILENT
    clock.now += STALE_AFTER_S
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert liveness(path) == Liveness.DEAD


def test_a_change_since_a_look_of_long_ago_is_no_sign_of_life_now(path: Path, clock: Clock) -> None:
    write(FOREIGN, path)
    assert liveness(path) == Liveness.SILENT
    clock.now += 10 * STALE_AFTER_S
    touch(path, -400)
    assert liveness(path) == Liveness.SILENT
    clock.now += STALE_AFTER_S
    assert liveness(path) == Liveness.DEAD


def test_a_look_that_took_long_is_no_proof_of_silence(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server that hangs: the answer may be as old as the question, and as new as now."""
    write(FOREIGN, path)
    original = lease_holder.read_lease

    def slowly(file: Path) -> Lease | None:
        clock.now += 10 * STALE_AFTER_S
        return original(file)

    monkeypatch.setattr(lease_holder, "read_lease", slowly)
    assert liveness(path) == Liveness.SILENT
    assert liveness(path) == Liveness.SILENT


def test_a_file_that_comes_back_is_watched_anew(path: Path, clock: Clock) -> None:
    write(FOREIGN, path)
    status = path.stat()
    assert liveness(path) == Liveness.SILENT
    path.unlink()
    assert liveness(path) is None
    clock.now += 2 * STALE_AFTER_S
    write(FOREIGN, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert liveness(path) == Liveness.SILENT


def lease_with(**changes: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(asdict(FOREIGN) | changes))


UNREADABLE = {
    "empty": lambda path: path.write_text(""),
    "half": lambda path: path.write_text("{"),
    "of another type": lambda path: path.write_text("[1]"),
    "without its keys": lambda path: path.write_text('{"host": 1}'),
    "deep": lambda path: path.write_text("[" * 20_000),
    "large": lambda path: path.write_text(" " * 2**17),
    "no UTF-8": lambda path: path.write_bytes(b'{"host": "\xff"}'),
    "NaN": lambda path: path.write_text(json.dumps(asdict(FOREIGN) | {"since": float("nan")})),
    "a path as token": lease_with(token="../../x"),
    "a token of two lines": lease_with(token="0a\n"),
    "no token": lease_with(token=""),
    "a number as token": lease_with(token=10),
    "a negative process": lease_with(pid=-1),
    "a huge process": lease_with(pid=10**30),
    "a huge epoch": lease_with(epoch=10**300),
    "a long host": lease_with(host="h" * 10_000),
    "a FIFO": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a directory": lambda path: path.symlink_to(path.parent),
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_watched_and_taken_over_in_time(
    make: Callable[[Path], object], path: Path, clock: Clock
) -> None:
    make(path)
    holder = find_holder(path)
    assert holder is not None
    assert holder.lease == lease_holder.UNREADABLE
    assert holder.name == "an unknown process"
    assert holder.way_out == f"if that process is gone, remove {path}"
    assert lease.acquire(path) is None
    clock.now += STALE_AFTER_S - 1
    assert lease.acquire(path) is None
    clock.now += 1
    with lease.hold(path) as held:
        assert held is not None
        assert path.is_file()
        assert not path.is_symlink()
    assert list(path.parent.iterdir()) == []


def test_the_file_of_another_user_that_may_not_be_read_is_watched(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise FileAccessError("Permission denied")  # root may read everything

    write(FOREIGN, path)
    monkeypatch.setattr(lease_holder.files, "read_json", refuse)
    assert read_lease(path) == lease_holder.UNREADABLE
    assert lease.acquire(path) is None
    clock.now += lease_holder.HEARTBEAT_S
    touch(path, 10)
    assert liveness(path) == Liveness.ALIVE
    clock.now += STALE_AFTER_S
    assert liveness(path) == Liveness.DEAD


def test_a_directory_is_no_lease(path: Path) -> None:
    path.mkdir()
    with pytest.raises(FileAccessError, match=f"{path} is a directory"):
        find_holder(path)


@pytest.mark.parametrize("parent", ["missing", "a file"])
def test_only_where_nothing_is_there_nobody_holds_it(parent: str, tmp_path: Path) -> None:
    if parent == "a file":
        (tmp_path / parent).touch()
    assert find_holder(tmp_path / parent / "run.claim") is None


def test_a_process_of_this_host_is_looked_up_at_once(path: Path) -> None:
    write(mine(), path)
    assert liveness(path) == Liveness.ALIVE
    write(replace(mine(), born="1"), path)
    assert liveness(path) == Liveness.DEAD
    write(replace(mine(), pid=2**31 - 1), path)
    assert liveness(path) == Liveness.DEAD


@pytest.mark.parametrize(
    "change",
    [{"namespace": "pid:[1] another boot"}, {"host": "another-host"}, {"born": ""}],
    ids=["a container with the same name", "another host", "nothing known of its start"],
)
def test_the_process_ids_of_others_say_nothing(
    change: dict[str, str], path: Path, clock: Clock
) -> None:
    write(replace(mine(), pid=2**31 - 1, **change), path)
    assert liveness(path) == Liveness.SILENT
    clock.now += STALE_AFTER_S
    assert liveness(path) == Liveness.DEAD
    assert not replace(mine(), **change).is_local


def test_a_process_that_proc_hides_is_watched(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_another_user(pid: int, number: int) -> None:
        raise PermissionError

    write(mine(), path)
    monkeypatch.setattr(lease_holder, "process_start_time", lambda pid: "")
    assert liveness(path) == Liveness.DEAD
    monkeypatch.setattr(os, "kill", of_another_user)
    assert liveness(path) == Liveness.SILENT
    clock.now += STALE_AFTER_S
    assert liveness(path) == Liveness.DEAD


def test_a_lease_of_an_earlier_version_is_read(path: Path) -> None:
    content = asdict(mine())
    del content["namespace"]
    path.write_text(json.dumps(content))
    assert read_lease(path) == replace(mine(), namespace="")
    assert liveness(path) == Liveness.ALIVE
    path.write_text(json.dumps(content | {"pid": 2**31 - 1}))
    assert liveness(path) == Liveness.DEAD


def test_a_lease_of_a_later_version_is_read(path: Path) -> None:
    path.write_text(json.dumps(asdict(FOREIGN) | {"something": [1]}))
    assert read_lease(path) == FOREIGN


def test_the_way_out_is_said(path: Path) -> None:
    write(replace(FOREIGN, host="evil\x1b[2J\nhost"), path)
    holder = find_holder(path)
    assert holder is not None
    assert holder.name == "evil?[2J?host process 1"
    assert holder.way_out == f"if that process is gone, remove {path}"
    write(mine(), path)
    holder = find_holder(path)
    assert holder is not None
    assert holder.name == f"{socket.gethostname()} process {os.getpid()}"
    assert holder.way_out.startswith(f"it lives and holds {path}; `kill {os.getpid()}` stops it")


def test_a_host_with_any_name_knows_its_own_lease(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h\xf6st\udcff")
    with lease.hold(path):
        assert liveness(path) == Liveness.ALIVE


def test_a_program_with_any_name_has_a_start_time() -> None:
    name = Path("/proc/self/comm")
    original = name.read_bytes()
    known = lease_holder.process_start_time(os.getpid())
    try:
        name.write_bytes(b"a) \xff (b")
        assert lease_holder.process_start_time(os.getpid()) == known != ""
    finally:
        name.write_bytes(original)
    assert lease_holder.process_start_time(2**31 - 1) == ""
