"""Search the hyper-parameters of every method alike on val200, and write what was found as data.

python scripts/search.py demo --methods ssf,san --tasks digits,count      # five learning rates each
python scripts/search.py vtab --search lr_wd --trials 8 --launcher slurm --jobs 8
python scripts/search.py vtab --plan                                      # what there is to run
python train.py method=san data=demo/digits recipe=tuned                  # uses what was found

Trials are runs with records, below results/search; the same command resumes. What was found is
written to benchmarks/tuned/<suite>_<backbone>_<search>.csv once all trials of a method on a task
are there; after jobs of SLURM by one more call without --launcher.
"""

import argparse
import sys

from san.installation import localize_commands
from san.sweep.arguments import add_search_arguments, add_sweep_arguments, make_request


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or a list of words."""
    parser = argparse.ArgumentParser(
        description=localize_commands(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_sweep_arguments(parser)
    add_search_arguments(parser)
    return parser.parse_intermixed_args(words)


def main() -> None:
    """Parse arguments and do what they ask for."""
    args = parse_arguments()
    request = make_request(args, args.search, args.trials, args.tuned_dir)
    from san.sweep import driver  # noqa: PLC0415  (torch takes seconds; --help needs none of it)

    is_complete = driver.work(request, plan=args.plan, status=args.status, cancel=args.cancel)
    sys.exit(0 if is_complete else 1)
