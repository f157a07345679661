"""Do every run of a suite that has no record yet, then print the table. The same command resumes.

python scripts/reproduce.py demo --methods ssf,san --tasks digits,count --seeds 0,1,2 epochs=5
python scripts/reproduce.py vtab --plan                      # what is to be run, and what it takes
python scripts/reproduce.py vtab --status                    # what is done or failed, and why
python scripts/reproduce.py vtab --launcher slurm --jobs 8   # eight jobs share it; returns at once
python scripts/reproduce.py vtab --launcher ray              # as many workers as Ray has room for
python scripts/reproduce.py vtab --cancel                    # cancels the SLURM jobs
"""

import argparse
import sys
from pathlib import Path

from san import cli
from san.errors import InvalidValueError, choose
from san.record import Status
from san.sweep.request import Launcher, SweepRequest
from san.tasks import suite_names


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or a list of words."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("suite", choices=suite_names())
    add("--methods", default="", help="comma-separated; default: the suite's own")
    add("--tasks", default="", help="comma-separated; default: all of the suite")
    add("--seeds", default="0", help="comma-separated")
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
    add("overrides", nargs="*", help="anything else that train.py takes, e.g. epochs=5")
    # The old name of --cluster.
    add("--profile", type=Path, dest="cluster", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    # For the jobs of a launcher: when they were submitted, in nanoseconds.
    add("--submitted-ns", type=int, help=argparse.SUPPRESS)
    return parser.parse_intermixed_args(words)


def positive(text: str) -> int:
    """Return a positive number; argparse names this function where it raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def make_request(args: argparse.Namespace) -> SweepRequest:
    """Return the checked request of a command line."""
    return SweepRequest(
        suite=args.suite,
        methods=_split(args.methods),
        tasks=_split(args.tasks),
        seeds=_seeds(args.seeds),
        backbone=args.backbone,
        jobs=args.jobs,
        retry=_retry(args.retry),
        fail_fast=args.fail_fast,
        launcher=Launcher(args.launcher),
        cluster=args.cluster,
        overrides=tuple(args.overrides),
        submitted_ns=args.submitted_ns,
    )


def main() -> None:
    """Parse arguments and do what they ask for."""
    args = parse_arguments()
    request = make_request(args)
    from san.sweep import driver  # noqa: PLC0415  (torch takes seconds; --help needs none of it)

    if args.cancel:
        driver.cancel(request)
    elif args.plan:
        driver.show_plan(request)
    elif args.status:
        driver.show_status(request)
    else:
        is_complete = driver.run(request)
        sys.exit(0 if is_complete else 1)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _seeds(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise InvalidValueError(
            f"--seeds came as '{text}'; allowed: whole numbers joined by commas, e.g. 0,1,2."
        )
    return tuple(int(word) for word in words)


def _retry(text: str) -> tuple[Status, ...]:
    allowed = (Status.FAILED, Status.OOM)
    names = [word for word in text.split(",") if word]
    return tuple(Status(choose(name, allowed, "--retry")) for name in names)


if __name__ == "__main__":
    cli.main(main)
