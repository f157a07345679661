"""The lease of a run: a file beside its record while it is running, so that it never runs twice.

A lease is created atomically, touched while its process lives, and taken over by exactly one other
process once that one is dead: on the same host this is seen at once; on another host the lease must
not have been touched for a while. Works on shared file systems.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from san.runtime import files

HEARTBEAT_S = 20.0  # seconds between touches of the lease file
STALE_AFTER_S = 300.0  # a process on another host counts as dead after so long without a touch
TAKEOVER_LOCK_TIMEOUT_S = 60.0  # a takeover lock older than this is stale


@dataclass(frozen=True)
class Lease:
    """The content of a lease file: who runs the run, since when, and its progress.

    born: start time of the process, as process ids are reused; since: Unix time;
    token: unique to each lease.
    """

    host: str
    pid: int
    born: str
    since: float
    token: str
    epoch: int = 0
    epochs: int = 0

    def alive(self, path: Path) -> bool:
        """Return whether the process that holds the lease at `path` lives, as far as we can see."""
        if self.host == socket.gethostname():
            return process_start_time(self.pid) == self.born
        try:
            last_touch = path.stat().st_mtime
        except FileNotFoundError:
            return False
        return time.time() - last_touch < STALE_AFTER_S


def process_start_time(pid: int) -> str:
    """Return the start time of a process in the kernel's ticks, or "" if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field is the program's name in brackets, which may itself contain spaces.
    fields = stat.rpartition(")")[2].split()
    is_zombie = fields[0] == "Z"
    return "" if is_zombie else fields[19]


def lease_path(record: Path) -> Path:
    """Return the lease file of the run that writes this record."""
    return record.with_suffix(".claim")  # older versions on the same file system look for it


def read_lease(path: Path) -> Lease | None:
    """Return the lease in a file, or None if there is no such file.

    An unreadable one (a machine that crashed can leave an empty file) counts as one of an unknown
    host, so that it becomes stale in time.
    """
    try:
        return Lease(**json.loads(path.read_text()))
    except OSError:
        return None
    except (ValueError, TypeError):
        return Lease("unknown", 0, "", 0.0, "unreadable")


def acquire(path: Path) -> Lease | None:
    """Create a lease; return None if another living process holds it.

    Raises FileAccessError where the file system refuses it: a full disk, no hard links.
    """
    with files.refused_by_system(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return _create(path, _new_lease())


def _create(path: Path, mine: Lease) -> Lease | None:
    complete = path.with_name(f".{path.name}-{mine.token}")
    try:
        complete.write_text(_to_json(mine))
        # Unlike a rename, a link fails if the target exists; and readers see a complete file.
        os.link(complete, path)
    except FileExistsError:
        return _acquire_stale(path, mine)
    finally:
        complete.unlink(missing_ok=True)
    return mine


class HeldLease:
    """A lease that this process holds; a thread touches its file until `release`.

    on_lost: called if another process has taken the lease over, as one on another host does if the
    touches stopped reaching it for too long.
    """

    def __init__(self, path: Path, lease: Lease, on_lost: Callable[[], None]) -> None:
        self._path = path
        self._lease = lease
        self._on_lost = on_lost
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._heartbeat, daemon=True)
        self._thread.start()

    def report(self, epoch: int, epochs: int) -> None:
        """Write the progress into the file; a full disk does not stop the run."""
        if self._was_lost():
            self._on_lost()
            return
        with contextlib.suppress(OSError):
            _overwrite(replace(self._lease, epoch=epoch, epochs=epochs), self._path)

    def release(self) -> None:
        """Stop the heartbeat and delete the file, unless it has become another process's."""
        self._released.set()
        self._thread.join()
        current = read_lease(self._path)
        if current is not None and current.token == self._lease.token:
            self._path.unlink(missing_ok=True)

    def _heartbeat(self) -> None:
        while not self._released.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._path)
            if self._was_lost():
                self._on_lost()
                return

    def _was_lost(self) -> bool:
        # A missing file is not a loss: a file system that fails for a moment looks the same.
        current = read_lease(self._path)
        return current is not None and current.token != self._lease.token


@contextlib.contextmanager
def hold(path: Path, on_lost: Callable[[], None] = lambda: None) -> Iterator[HeldLease | None]:
    """Hold a lease during a block; yield None if another living process holds it."""
    lease = acquire(path)
    if lease is None:
        yield None
        return
    held = HeldLease(path, lease, on_lost)
    try:
        yield held
    finally:
        held.release()


def _new_lease() -> Lease:
    pid = os.getpid()
    return Lease(
        host=socket.gethostname(),
        pid=pid,
        born=process_start_time(pid),
        since=time.time(),
        token=uuid.uuid4().hex,
    )


def _acquire_stale(path: Path, mine: Lease) -> Lease | None:
    """Replace the lease of a dead process; of several that try at once, only one succeeds."""
    old = read_lease(path)
    if old is None or old.alive(path):
        return None
    lock = path.with_name(f".{path.name}-{old.token}.taken")
    _remove_stale_lock(lock)
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        return None
    try:
        if read_lease(path) != old:  # another process took it over before we had the lock
            return None
        _overwrite(mine, path)
        return mine
    finally:
        lock.unlink(missing_ok=True)


def _remove_stale_lock(lock: Path) -> None:
    """Remove the takeover lock of a process that died while it held it."""
    with contextlib.suppress(FileNotFoundError):
        age = time.time() - lock.stat().st_mtime
        if age > TAKEOVER_LOCK_TIMEOUT_S:
            lock.unlink()


def _overwrite(lease: Lease, path: Path) -> None:
    files.write_text(_to_json(lease), path)


def _to_json(lease: Lease) -> str:
    return json.dumps(asdict(lease))
