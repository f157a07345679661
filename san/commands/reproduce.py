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

from san.installation import localize_commands
from san.sweep.arguments import add_sweep_arguments, make_request


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or a list of words."""
    parser = argparse.ArgumentParser(
        description=localize_commands(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_sweep_arguments(parser)
    return parser.parse_intermixed_args(words)


def main() -> None:
    """Parse arguments and do what they ask for."""
    args = parse_arguments()
    request = make_request(args)
    from san.sweep import driver  # noqa: PLC0415  (torch takes seconds; --help needs none of it)

    is_complete = driver.work(request, plan=args.plan, status=args.status, cancel=args.cancel)
    sys.exit(0 if is_complete else 1)
