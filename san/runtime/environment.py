"""Where a number comes from: code, package versions, device.

Imports no torch, as records nest these types.
"""

import platform
import socket
import subprocess
from collections.abc import Collection
from functools import cache
from importlib.metadata import version

from msgspec import Struct

from san.installation import PROJECT
from san.version import __version__

PACKAGES = ("torch", "timm", "numpy", "hydra-core", "scikit-learn", "torchvision", "pillow")


class CodeState(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The commit of the checkout, and whether files differed from it.

    Both are None outside a git checkout.
    """

    commit: str | None = None
    dirty: bool | None = None


class DeviceInfo(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The device of a run.

    type: `cpu` or `cuda`; count: processes that shared the run, each with one such device;
    threads: of torch, in each process; system: the operating system.
    """

    type: str | None = None
    name: str | None = None
    count: int = 0
    threads: int = 0
    system: str | None = None


@cache
def git_state() -> CodeState:
    """Return the state of the checkout that this code runs from.

    A package that is installed inside somebody's repository has no commit.
    """
    if not (PROJECT / ".git").exists():
        return CodeState()
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return CodeState()
    return CodeState(commit, dirty=bool(changes))


def host_name() -> str:
    """Return the name of this host in ASCII, as JSON cannot hold every byte."""
    return ascii(socket.gethostname())[1:-1]


def package_versions(extra: Collection[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on.

    extra: those that they depend on besides.
    """
    ours = {"python": platform.python_version(), "san": __version__}
    return ours | {name: version(name) for name in (*PACKAGES, *extra)}


def _git(*arguments: str) -> str:
    """Return what a git command prints; raise CalledProcessError where it fails."""
    command = ["git", "-C", str(PROJECT), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)  # noqa: S603
    return done.stdout.strip()
