"""Verify that packed data is what its manifest says, and that it is the benchmark.

python scripts/verify.py vtab               # all packed tasks: counts, classes, pixels, membership
python scripts/verify.py vtab/cifar --card  # what to know of a task, packed or not
python scripts/verify.py vtab --sheets      # results/figures/data/<task>.png, images to look at
"""

import argparse
import sys
from pathlib import Path

from san.data.prepare.card import task_card
from san.data.prepare.verify_tasks import packed_folders, verify_tasks
from san.installation import localize_commands
from san.runtime.paths import expand_path
from san.tasks import select_tasks, suite_names


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=localize_commands(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    suites = ", ".join(suite_names())
    add("tasks", nargs="+", metavar="SUITE[/TASK]", help=f"suites: {suites}")
    add("--root", type=Path, default=Path("data"), help="packed images (default: data)")
    add("--card", action="store_true", help="print the data set cards instead")
    add("--sheets", action="store_true", help="draw the contact sheets as well")
    add(
        "--results",
        type=Path,
        default=Path("results"),
        help="where figures/ is (default: results)",
    )
    return parser.parse_args()


def main() -> None:
    """Check what is packed; exit with 1 if anything is wrong, or nothing is there."""
    args = parse_arguments()
    root = expand_path(args.root)
    tasks = [task for _, task in select_tasks(args.tasks)]
    if args.card:
        for task in tasks:
            folders = packed_folders(task, root)
            print(task_card(task, folders[0] if folders else None))
        return
    figures = args.results / "figures" / "data"
    summary = verify_tasks(
        tasks,
        root,
        figures if args.sheets else None,
        say=print,
    )
    print(summary)
    sys.exit(0 if summary.is_good else 1)
