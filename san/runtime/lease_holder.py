"""Who holds the lease of a run, and whether that process lives.

A process on this host is looked up in /proc, which is certain and takes no time. Any other one is
watched: it touches its file every HEARTBEAT_S, and counts as dead only once the file has stayed as
it is for STALE_AFTER_S of our own monotonic clock. The file's time is compared with itself alone,
so neither a wrong clock of the file server nor one of another host makes a live process look dead.
"""

import functools
import os
import stat
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from san.errors import FileAccessError, SanError
from san.runtime import files
from san.runtime.environment import host_name

HEARTBEAT_S = 20.0  # seconds between touches of the lease file
ALIVE_FOR_S = 3 * HEARTBEAT_S  # after a touch a process surely counts as alive for so long
STALE_AFTER_S = 300.0  # a process on another host counts as dead after so long without a touch
_MAX_BYTES = 2**16  # of a lease file: far more than any version writes
_Count = Annotated[int, Meta(ge=0, lt=2**31)]


@dataclass(frozen=True)
class Lease:
    """The content of a lease file: who runs the run, since when, and its progress.

    born: start time of the process, as process ids are reused; since: Unix time;
    token: unique to each lease, hex digits; namespace: see `_process_namespace`, "" where unknown
    or written by an earlier version.
    """

    host: Annotated[str, Meta(max_length=255)]
    pid: Annotated[int, Meta(gt=0, lt=2**31)]
    born: str
    since: Annotated[float, Meta(ge=0)]
    token: Annotated[str, Meta(pattern=r"\A[0-9a-f]{1,64}\Z")]  # it becomes part of a file name
    epoch: _Count = 0
    epochs: _Count = 0
    namespace: str = ""

    @classmethod
    def of_this_process(cls, since: float, token: str) -> "Lease":
        """Return a lease that names this process."""
        pid = os.getpid()
        born = process_start_time(pid)
        return cls(host_name(), pid, born, since, token, namespace=_process_namespace())

    @property
    def is_local(self) -> bool:
        """Whether this process can look its holder up: same host, boot and process namespace.

        Two containers may share a host name, and two machines one that nobody has changed.
        """
        is_here = self.namespace in ("", _process_namespace())
        return is_here and self.host == host_name() and bool(self.born)


UNREADABLE = Lease("unknown", 0, "", 0.0, "unreadable")


class Liveness(StrEnum):
    """What is known of the process that holds a lease.

    silent: it is not on this host, and we have not watched it for long enough to tell.
    """

    ALIVE = "alive"
    SILENT = "silent"
    DEAD = "dead"


@dataclass(frozen=True)
class Sighting:
    """What one look at a lease file has found; two are equal as long as nobody has touched it.

    mtime_ns: by the clock of the file server, which may be wrong.
    """

    lease: Lease
    mtime_ns: int
    size: int


@dataclass(frozen=True)
class Holder:
    """The process that holds the lease in the file `path`."""

    path: Path
    sighting: Sighting
    liveness: Liveness

    @property
    def lease(self) -> Lease:
        """The content of the file."""
        return self.sighting.lease

    @property
    def name(self) -> str:
        """The process, for messages; what others have written cannot steer a terminal."""
        if self.lease == UNREADABLE:
            return "an unknown process"
        host = "".join(char if char.isprintable() else "?" for char in self.lease.host)
        return f"{host} process {self.lease.pid}"

    @property
    def way_out(self) -> str:
        """What a person can do who does not want to wait, for messages."""
        if self.lease.is_local and self.liveness == Liveness.ALIVE:
            stop = f"`kill {self.lease.pid}` stops it, but a sweep starts its run again"
            return f"it lives and holds {self.path}; {stop}"
        return f"if that process is gone, remove {self.path}"


@dataclass
class _Watched:
    """What this process has seen of a file, by its own monotonic clock.

    since: when it was first seen as it is. looked: when it was last seen. has_changed: whether it
    came to be as it is between two looks that were at most ALIVE_FOR_S apart.
    """

    signature: object
    since: float
    looked: float
    has_changed: bool = False


_watched: dict[Path, _Watched] = {}


def find_holder(path: Path) -> Holder | None:
    """Return who holds the lease at `path`; None if there is no such file.

    The first look at a lease of another host finds it silent; call this again to learn more.
    Raises FileAccessError where a directory is in its place.
    """
    started = time.monotonic()
    sighting = look(path)
    if sighting is None:
        _watched.pop(path, None)
        return None
    liveness = _local_liveness(sighting.lease)
    if liveness is None:
        liveness = _foreign_liveness(path, sighting, started)
    return Holder(path, sighting, liveness)


def seconds_unchanged(path: Path, signature: object, started: float) -> float:
    """Return for how long this process has surely seen a file with the same signature.

    started: `time.monotonic()` before the look that gave the signature.
    """
    watched = _watched.get(path)
    now = time.monotonic()
    if watched is None or watched.signature != signature:
        # A change since a look of long ago says little about now.
        has_changed = watched is not None and now - watched.looked < ALIVE_FOR_S
        _watched[path] = _Watched(signature, now, now, has_changed)
        return 0.0
    watched.looked = now
    return started - watched.since


def look(path: Path) -> Sighting | None:
    """Return what is at `path` now; None if nothing is. Errors as in `find_holder`."""
    lease = read_lease(path)
    if lease is None:
        return None
    try:
        # What cannot be read may be a link to a device, whose time says nothing.
        status = path.stat(follow_symlinks=lease != UNREADABLE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return Sighting(lease, 0, 0)
    return Sighting(lease, status.st_mtime_ns, status.st_size)


def read_lease(path: Path) -> Lease | None:
    """Return the lease in a file; None if there is no such file.

    Whatever cannot be read (an empty file that a machine left when it crashed, the file of another
    user, a FIFO) counts as the lease of an unknown host: it is watched, and becomes stale in time.
    Raises FileAccessError where a directory is in its place.
    """
    try:
        lease: Lease = files.read_json(path, Lease, _MAX_BYTES)
    except SanError:
        return _unreadable_lease(path)
    return lease


def process_start_time(pid: int) -> str:
    """Return the start time of a process in the kernel's ticks, or "" if it is gone or a zombie."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    # The second field is the program's name in brackets, which may contain spaces and any bytes.
    fields = line.rpartition(b")")[2].split()
    is_zombie = fields[0] == b"Z"
    return "" if is_zombie else fields[19].decode()


def _unreadable_lease(path: Path) -> Lease | None:
    """Return what counts as the lease in a file that cannot be read; None if it is gone."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return UNREADABLE
    if stat.S_ISDIR(mode):
        raise FileAccessError(
            f"{path} is a directory; the file that says who runs this run belongs there. "
            "Move it away."
        )
    return UNREADABLE


def _local_liveness(lease: Lease) -> Liveness | None:
    """Return whether a process on this host lives; None if it cannot be looked up from here."""
    if not lease.is_local:
        return None
    born = process_start_time(lease.pid)
    if born == lease.born:
        return Liveness.ALIVE
    if not born and _is_hidden(lease.pid):
        return None
    return Liveness.DEAD


def _is_hidden(pid: int) -> bool:
    """Return whether a process of another user has this id; /proc may be mounted to hide those."""
    try:
        os.kill(pid, 0)  # sends nothing
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _foreign_liveness(path: Path, sighting: Sighting, started: float) -> Liveness:
    silence = seconds_unchanged(path, sighting, started)
    if silence >= STALE_AFTER_S:
        return Liveness.DEAD
    is_alive = _watched[path].has_changed and silence < ALIVE_FOR_S
    return Liveness.ALIVE if is_alive else Liveness.SILENT


@functools.cache
def _process_namespace() -> str:
    """Return what tells apart the processes that share their ids with us from all others."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  (it is no path)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""
    return f"{namespace} {boot}"
