"""Who runs what: one file beside the record while a run is in flight, so that two sweeps never do a run twice.

A claim is created atomically, touched while its process lives, and taken over by one other where the process is gone:
known at once on the same host, on another when it has not been touched for a while. Shared file systems will do.
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

HEARTBEAT_S = 20.0  # seconds between signs of life
STALE_AFTER_S = 300.0  # seconds without one after which a process on another host is taken for dead
TAKEOVER_LOCK_TIMEOUT_S = (
    60.0  # seconds after which a door that is still shut belongs to somebody who died in it
)


@dataclass(frozen=True)
class Lease:
    """Who is running, since when, and how far it is. born: when the process started, as ids are reused."""

    host: str
    pid: int
    born: str
    since: float
    token: str
    epoch: int = 0
    epochs: int = 0

    def alive(self, path: Path) -> bool:
        """Return whether the process that made the claim at `path` lives, as far as can be told from here."""
        if self.host == socket.gethostname():
            return process_start_time(self.pid) == self.born
        try:
            return time.time() - path.stat().st_mtime < STALE_AFTER_S
        except FileNotFoundError:
            return False


def process_start_time(pid: int) -> str:
    """Return the start time of a process in the kernel's ticks; nothing where there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def lease_path(record: Path) -> Path:
    """Return where the claim of the run with this record is."""
    return record.with_suffix(".claim")


def read_lease(path: Path) -> Lease | None:
    """Return the claim in a file, or None where there is none.

    One that cannot be read (a machine that crashed can leave an empty one) is that of an unknown host.
    """
    try:
        return Lease(**json.loads(path.read_text()))
    except OSError:
        return None
    except (ValueError, TypeError):
        return Lease("unknown", 0, "", 0.0, "unreadable")


def write_lease(claim: Lease, path: Path) -> None:
    """Write a claim over what is there, whole."""
    new = path.with_name(f".{path.name}-{claim.token}")
    try:
        new.write_text(json.dumps(asdict(claim)))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def acquire(path: Path) -> Lease | None:
    """Claim a run; return None where another living process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = Lease(
        socket.gethostname(),
        os.getpid(),
        process_start_time(os.getpid()),
        time.time(),
        uuid.uuid4().hex,
    )
    new = path.with_name(f".{path.name}-{mine.token}")
    try:
        new.write_text(json.dumps(asdict(mine)))
        os.link(new, path)  # fails if there is one, and what is there is whole
        return mine
    except FileExistsError:
        return acquire_stale(path, mine)
    finally:
        new.unlink(missing_ok=True)


def acquire_stale(path: Path, mine: Lease) -> Lease | None:
    """Replace the claim of a dead process; of several that try only one succeeds."""
    old = read_lease(path)
    if old is None or old.alive(path):
        return None
    door = path.with_name(f".{path.name}-{old.token}.taken")
    with contextlib.suppress(FileNotFoundError):
        if time.time() - door.stat().st_mtime > TAKEOVER_LOCK_TIMEOUT_S:
            door.unlink()
    try:
        door.touch(exist_ok=False)
    except FileExistsError:
        return None
    try:
        if read_lease(path) != old:  # somebody was here before the door was closed
            return None
        write_lease(mine, path)
        return mine
    finally:
        door.unlink(missing_ok=True)


@contextlib.contextmanager
def hold(
    path: Path, robbed: Callable[[], None] = lambda: None
) -> Iterator[Callable[[int, int], None] | None]:
    """Hold a claim for a while; yield what reports (epoch, epochs), or None where another process has it.

    robbed: called where another process has taken it over, as one does that has not seen this one for long.
    """
    claim = acquire(path)
    if claim is None:
        yield None
        return
    over = threading.Event()

    def lost() -> bool:
        """Return whether the claim has become another's."""
        now = read_lease(path)
        return now is not None and now.token != claim.token

    def live() -> None:
        """Show signs of life until the claim is given back."""
        while not over.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(path)
            if lost():
                robbed()
                return

    thread = threading.Thread(target=live, daemon=True)
    thread.start()

    def report(epoch: int, epochs: int) -> None:
        """Say how far the run is; a disk that is full does not end it."""
        if lost():
            return robbed()
        with contextlib.suppress(OSError):
            write_lease(replace(claim, epoch=epoch, epochs=epochs), path)

    try:
        yield report
    finally:
        over.set()
        thread.join()
        now = read_lease(path)
        if now is not None and now.token == claim.token:
            path.unlink(missing_ok=True)
