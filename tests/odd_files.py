"""What may stand where a file is looked for, and other things that several tests read."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

DEEP = "[" * 100_000 + "]" * 100_000  # JSON that exhausts the stack
# A backbone that is built at once.
VIT = "vit_tiny_patch16_224.augreg_in21k"
SMALL = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}


def bind(path: Path) -> None:
    """Put a socket at a path, whatever its length."""
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as each:
        each.bind(path.name)
    os.chdir(here)


# What puts it at a path, by the words that an error has for it.
NOT_REGULAR: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a directory": Path.mkdir,
    "a socket": bind,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
DANGLING = "a link to a file that is not there"
ODD_FILES = NOT_REGULAR | {DANGLING: lambda path: path.symlink_to("nothing")}


def replace_by(kind: str, path: Path) -> None:
    """Put one of ODD_FILES where a file may be."""
    path.unlink(missing_ok=True)
    ODD_FILES[kind](path)
