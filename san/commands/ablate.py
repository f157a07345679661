"""Ablate a method: search every arm alike, run what was found with several seeds, and compare.

python scripts/ablate.py san demo        # every arm of benchmarks/ablations/san.yaml
python scripts/ablate.py san demo --methods san,san:propagation=off --trials 3 --seeds 0,1
python scripts/ablate.py san vtab --only search --launcher slurm --jobs 8
python scripts/ablate.py san vtab --only search                           # writes what it found
python scripts/ablate.py san vtab --only runs --launcher slurm --jobs 8
python scripts/ablate.py san vtab                                         # the table

The same command resumes. The table is results/tables/<suite>_ablate_<name>.md.
"""

import argparse
import sys
from dataclasses import replace

from san.installation import localize_commands
from san.sweep.arguments import add_search_arguments, add_sweep_arguments, make_request


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or a list of words."""
    parser = argparse.ArgumentParser(
        description=localize_commands(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ablation", help="a file of benchmarks/ablations/")
    add_sweep_arguments(parser)
    add_search_arguments(parser)
    parser.add_argument("--only", choices=("search", "runs"), help="a part of it; default: all")
    return parser.parse_intermixed_args(words)


def main() -> None:
    """Parse arguments and do what they ask for."""
    args = parse_arguments()
    request = make_request(args, args.search, args.trials, args.tuned_dir)
    if not args.seeds:
        request = replace(request, seeds=())
    # Torch takes seconds; --help needs none of it.
    from san.sweep import ablation  # noqa: PLC0415

    is_complete = ablation.work(
        ablation.load_ablation(args.ablation),
        request,
        only=args.only,
        plan=args.plan,
        status=args.status,
        cancel=args.cancel,
    )
    sys.exit(0 if is_complete else 1)
