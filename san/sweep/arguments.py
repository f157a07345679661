"""The command line of a sweep, which several programs share. Imports no torch."""

import argparse
from pathlib import Path

from san.errors import InvalidValueError, choose
from san.installation import IS_CHECKOUT, command
from san.record import Status
from san.search.space import search_names
from san.sweep.request import Launcher, SweepRequest
from san.tasks import load_suite, suite_names


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is searched."""
    parser.add_argument(
        "--search", default="lr", choices=search_names(), help="a file of benchmarks/searches/"
    )
    parser.add_argument("--trials", type=positive, help="points of the space; default: the file's")
    parser.add_argument("--tuned-dir", type=Path, help="where the file goes: benchmarks/tuned")


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which runs there are, and how they are done."""
    program = "train.py" if IS_CHECKOUT else command("train")
    add = parser.add_argument
    add("suite", choices=suite_names())
    add("--methods", default="", help="comma-separated, as `san` or `san:propagation=off`")
    add("--tasks", default="", help="comma-separated; default: all of the suite")
    add("--seeds", default="", help="comma-separated; default: the suite's own")
    add("--backbone", help="default: the suite's own")
    add(
        "--jobs",
        type=positive,
        help="processes, SLURM jobs or Ray workers at a time; default: one a visible GPU, or one",
    )
    add("--retry", default="", help="failed, oom, or both: do these runs again, too")
    add("--fail-fast", action="store_true", help="start no more runs after the first that fails")
    add(
        "--launcher",
        default="local",
        choices=[each.value for each in Launcher],
        help="where the runs are done",
    )
    add("--cluster", type=Path, help="options of jobs; default: clusters/<launcher>.yaml")
    add("--plan", action="store_true", help="print what would be run, and stop")
    add("--status", action="store_true", help="print how far the runs are, and stop")
    add("--cancel", action="store_true", help="cancel the SLURM jobs of this results directory")
    add("overrides", nargs="*", help=f"anything else that {program} takes, e.g. epochs=5")
    # The old name of --cluster.
    add("--profile", type=Path, dest="cluster", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    # For the jobs of a launcher: when they were submitted, in nanoseconds.
    add("--submitted-ns", type=int, help=argparse.SUPPRESS)


def positive(text: str) -> int:
    """Return a positive number; argparse names this function where it raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def make_request(
    args: argparse.Namespace,
    search: str | None = None,
    trials: int | None = None,
    tuned_dir: Path | None = None,
) -> SweepRequest:
    """Return the checked request of a command line; see `SweepRequest` for the others."""
    return SweepRequest(
        suite=args.suite,
        methods=_split(args.methods),
        tasks=_split(args.tasks),
        seeds=_seeds(args.seeds) or _default_seeds(args.suite, search),
        backbone=args.backbone,
        jobs=args.jobs,
        retry=_retry(args.retry),
        fail_fast=args.fail_fast,
        launcher=Launcher(args.launcher),
        cluster=args.cluster,
        overrides=tuple(args.overrides),
        submitted_ns=args.submitted_ns,
        search=search,
        trials=trials,
        tuned_dir=tuned_dir,
    )


def _default_seeds(suite: str, search: str | None) -> tuple[int, ...]:
    """Return the seeds of a suite; of a search one, unless more are asked for."""
    return load_suite(suite).seeds if search is None else (0,)


def _split(text: str) -> tuple[str, ...]:
    """Return what commas part, but for those within brackets: `lora:targets=[q,v],ssf`."""
    depth = 0
    words = [""]
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            words.append("")
        else:
            words[-1] += character
    return tuple(words) if text else ()


def _seeds(text: str) -> tuple[int, ...]:
    words = text.split(",") if text else []
    if not all(word.isdecimal() for word in words):
        raise InvalidValueError(
            f"--seeds came as '{text}'; allowed: whole numbers joined by commas, e.g. 0,1,2."
        )
    return tuple(int(word) for word in words)


def _retry(text: str) -> tuple[Status, ...]:
    allowed = (Status.FAILED, Status.OOM)
    names = [word for word in text.split(",") if word]
    return tuple(Status(choose(name, allowed, "--retry")) for name in names)
