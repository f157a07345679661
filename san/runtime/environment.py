"""Where a number comes from: code, versions, device, cost."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from san.version import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "timm", "numpy", "hydra-core", "scikit-learn", "torchvision", "pillow")


@cache
def git_state() -> dict[str, Any]:
    """Return the commit of the checkout and whether it had changes; both None outside a git checkout."""

    def git(*words: str) -> str:
        answer = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    return {
        "python": platform.python_version(),
        "san": __version__,
        **{name: version(name) for name in PACKAGES},
    }
