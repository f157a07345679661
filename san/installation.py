"""Where the data files of the project are, and how its programs are called here.

In a checkout `configs/`, `benchmarks/` and `clusters/` stand beside the package, programs are
`train.py` and `scripts/*.py`, and what a search finds is written into the checkout. In a wheel
these folders are inside the package, which nobody writes to; the one program is `san-peft`, and the
working directory takes the place of the checkout.
"""

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent
IS_CHECKOUT = not (PACKAGE / "configs").is_dir()
PROJECT = PACKAGE.parent if IS_CHECKOUT else PACKAGE
WRITE_ROOT = PROJECT if IS_CHECKOUT else Path()  # of data that is made here
CONFIGS = PROJECT / "configs"
BENCHMARKS = PROJECT / "benchmarks"
CLUSTERS = PROJECT / "clusters"
# A line of a help text that calls a program, with the comment that stands beside it, or the end.
_CALL = re.compile(r"(python (?:scripts/)?(\w+)\.py)(.*?)(?=  #|$)", re.MULTILINE)


def command(program: str) -> str:
    """Return how a user calls a program, such as `prepare`: what advice says."""
    return " ".join(command_words(program))


def command_words(program: str) -> list[str]:
    """Return how a user calls a program, word by word."""
    if not IS_CHECKOUT:
        return ["san-peft", program]
    return ["python", "train.py" if program == "train" else f"scripts/{program}.py"]


def process_words(program: str) -> list[str]:
    """Return how a process of ours calls a program, in whatever directory and checkout or not.

    -P: what stands in the working directory is not imported.
    """
    return [sys.executable, "-P", "-m", "san.commands", program]


def localize_commands(text: str) -> str:
    """Return a text with programs, written as in a checkout, called as they are here.

    A comment that stands beside a call stays in its column.
    """
    return _CALL.sub(_call_here, text)


def _call_here(found: re.Match[str]) -> str:
    called = command(found[2])
    is_commented = found.end() < len(found.string) and found.string[found.end()] == " "
    padding = len(found[1]) - len(called) if is_commented else 0
    return called + found[3] + " " * padding


def install_command(extra: str) -> str:
    """Return what installs an extra of the project."""
    return f"pip install -e '.[{extra}]'" if IS_CHECKOUT else f"pip install 'san-peft[{extra}]'"


def find_rows(name: str, is_own: bool) -> Path:
    """Return the file that a recipe names as its rows, such as `benchmarks/recipes/mai.csv`.

    is_own: whether a search of the user's wrote it. Then the one below the working directory comes
    before the one that the project ships; else after it, so that no other checkout's is read.
    """
    own = WRITE_ROOT / name
    shipped = PROJECT / name
    places = (own, shipped) if is_own else (shipped, own)
    for place in places:
        if place.is_file():
            return place
    return own
