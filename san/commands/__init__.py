"""The programs of the project: a module each, whose docstring is its help.

`san-peft NAME ...` calls them from anywhere; in a checkout so do train.py and scripts/NAME.py.
Each has a `main` that reads sys.argv, and may say WHEN_INTERRUPTED.
"""

import ast
import importlib
import pkgutil
import sys
from pathlib import Path

from san import cli
from san.errors import choose
from san.version import __version__

_USAGE = """san-peft PROGRAM ...: parameter-efficient fine-tuning of vision models, compared

{programs}

san-peft PROGRAM --help says what a program takes. Images and results are read and written below the
working directory: data/, results/, benchmarks/tuned/ (what a search finds)."""


def main() -> None:
    """Run the program that the command line names: the console command `san-peft`."""
    cli.main(_start)


def run(program: str) -> None:
    """Run a program with the rest of the command line; errors of the user's are printed."""
    module = importlib.import_module(f"{__name__}.{program}")
    cli.main(module.main, getattr(module, "WHEN_INTERRUPTED", "Interrupted."))


def program_names() -> list[str]:
    """Return the names of all programs, sorted."""
    modules = pkgutil.iter_modules(__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def _start() -> None:
    words = sys.argv[1:]
    if words in ([], ["-h"], ["--help"]):
        cli.print_while_read(_usage())
    elif words == ["--version"]:
        cli.print_while_read(f"san-peft {__version__}")
    else:
        program = choose(words[0], program_names(), "program")
        sys.argv = [f"san-peft {program}", *words[1:]]
        run(program)


def _usage() -> str:
    """Return the programs with a line each, which is read off their files: importing takes long."""
    names = program_names()
    width = max(map(len, names))
    lines = []
    for name in names:
        text = Path(__file__).with_name(f"{name}.py").read_text("utf-8")
        summary = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        lines.append(f"  {name:{width}}  {summary}")
    return _USAGE.format(programs="\n".join(lines))
