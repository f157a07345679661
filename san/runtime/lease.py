"""The lease of a run: a file beside its record while it is running, so that it never runs twice.

A lease is created atomically, touched while its process lives, and taken over by exactly one other
process once that one is dead (`san.runtime.lease_holder` says when). Works on shared file systems.
"""

import contextlib
import json
import logging
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from san.runtime import files, lease_holder
from san.runtime.lease_holder import (
    Holder,
    Lease,
    Liveness,
    Sighting,
    find_holder,
    look,
    read_lease,
    seconds_unchanged,
)

TAKEOVER_LOCK_TIMEOUT_S = 60.0  # a takeover lock that is there for so long is stale
POLL_S = 2.0  # between looks at a lease that another host holds
READABLE_BY_ALL = 0o644  # whatever the umask: other users' sweeps share the work
log = logging.getLogger(__name__)


def lease_path(record: Path) -> Path:
    """Return the lease file of the run that writes this record."""
    return record.with_suffix(".claim")  # older versions on the same file system look for it


def acquire(path: Path, dead: Sighting | None = None) -> Lease | None:
    """Create a lease; return None if another process holds it, as far as we can see.

    dead: a lease that somebody has watched for long enough; it is taken over if it is still so.
    Raises FileAccessError where the file system refuses it: a full disk, no hard links, a directory
    in its place.
    """
    mine = Lease.of_this_process(since=time.time(), token=uuid.uuid4().hex)
    with files.refused_by_system(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _written(mine, path) as complete:
            try:
                # Unlike a rename, a link fails if the target exists.
                os.link(complete, path)
            except FileExistsError:
                return mine if _take_over(path, complete, dead) else None
    return mine


class HeldLease:
    """A lease that this process holds; a thread touches its file until `release`.

    on_lost: called if another process has taken the lease over, as one on another host does if the
    touches stopped reaching it for too long, or somebody has removed the file.
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
        if self._current_token() == self._lease.token:
            self._path.unlink(missing_ok=True)

    def _heartbeat(self) -> None:
        while not self._released.wait(lease_holder.HEARTBEAT_S):
            if self._was_lost():
                self._on_lost()
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def _was_lost(self) -> bool:
        # A file system that fails for a moment shows no file, or one that cannot be read.
        tokens_of_nobody = ("", lease_holder.UNREADABLE.token)
        return self._current_token() not in (self._lease.token, *tokens_of_nobody)

    def _current_token(self) -> str:
        """Return the token in the file; "" if there is none."""
        with contextlib.suppress(OSError):
            current = read_lease(self._path)
            if current is not None:
                return current.token
        return ""


@contextlib.contextmanager
def hold(
    path: Path,
    on_lost: Callable[[], None] = lambda: None,
    dead: Sighting | None = None,
    stop: threading.Event | None = None,
) -> Iterator[HeldLease | None]:
    """Hold a lease during a block; yield None if another process holds it.

    dead: as in `acquire`. stop: watch a process on another host until it is known whether it lives,
    or until this event; None: whoever is not known to be dead holds its lease.
    """
    lease = acquire(path, dead)
    if lease is None and stop is not None:
        lease = _watch(path, stop)
    if lease is None:
        yield None
        return
    held = HeldLease(path, lease, on_lost)
    try:
        yield held
    finally:
        held.release()


def _watch(path: Path, stop: threading.Event) -> Lease | None:
    """Watch what holds a lease; acquire it once that is dead or gone, else return None."""
    holder = find_holder(path)
    if holder is not None:
        if holder.liveness == Liveness.ALIVE or _was_touched_lately(holder):
            return None
        _announce(holder)
    while not stop.wait(POLL_S):
        holder = find_holder(path)
        if holder is not None and holder.liveness == Liveness.ALIVE:
            return None
        if holder is None or holder.liveness == Liveness.DEAD:
            lease = acquire(path)
            if lease is not None:
                return lease
    return None


def _announce(holder: Holder) -> None:
    """Say why nothing happens for some minutes, and what a person can do."""
    log.warning(
        "%s holds this run and shows no sign of life. If its file does not change within %.0f s, "
        "the run is taken over. To go on at once, %s.",
        holder.name,
        lease_holder.STALE_AFTER_S,
        holder.way_out,
    )


def _was_touched_lately(holder: Holder) -> bool:
    """Return whether a lease file is hardly older than a new one, by the file server's clock.

    Such a process is taken for alive without watching it: nothing is lost if that is wrong.
    """
    with (
        files.refused_by_system(holder.path),
        tempfile.TemporaryFile(dir=holder.path.parent) as new,
    ):
        now_ns = os.fstat(new.fileno()).st_mtime_ns
    age = (now_ns - holder.sighting.mtime_ns) / 1e9
    return 0 <= age < lease_holder.ALIVE_FOR_S


def _take_over(path: Path, complete: Path, dead: Sighting | None) -> bool:
    """Replace the lease of a dead process; of several that try at once, only one succeeds."""
    holder = find_holder(path)
    if holder is None:
        return False
    if holder.liveness != Liveness.DEAD and holder.sighting != dead:
        return False
    lock = path.with_name(f".{path.name}-{holder.lease.token}.taken")
    _remove_stale_lock(lock)
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        # It may have been touched, or taken over by another process before we had the lock.
        if look(path) != holder.sighting:
            return False
        complete.replace(path)
        return True
    finally:
        lock.unlink(missing_ok=True)


def _remove_stale_lock(lock: Path) -> None:
    """Remove the takeover lock of a process that died while it held it."""
    started = time.monotonic()
    with contextlib.suppress(FileNotFoundError):
        age = seconds_unchanged(lock, lock.lstat().st_mtime_ns, started)
        if age > TAKEOVER_LOCK_TIMEOUT_S:
            lock.unlink()


def _overwrite(lease: Lease, path: Path) -> None:
    with _written(lease, path) as complete:
        complete.replace(path)


@contextlib.contextmanager
def _written(lease: Lease, path: Path) -> Iterator[Path]:
    """Yield a hidden file with the content of a lease, which is removed if it is still there.

    Readers of `path` see a complete file, whether this one is linked or moved to it.
    """
    complete = path.with_name(f".{path.name}-{lease.token}")
    try:
        complete.write_text(json.dumps(asdict(lease)), "utf-8")
        complete.chmod(READABLE_BY_ALL)
        yield complete
    finally:
        complete.unlink(missing_ok=True)
