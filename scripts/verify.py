"""Prove that packed data is what its manifest says, and that it is the benchmark.

python scripts/verify.py vtab                # every packed task of a suite: counts, classes, pixels, membership
python scripts/verify.py vtab/cifar --card   # what to know of a task, packed or not
python scripts/verify.py vtab --sheets       # results/figures/data/<task>.png, a grid of images to look at
"""

import argparse
import sys
from pathlib import Path

from san.data import verify
from san.data.prepare.card import class_names, task_card
from san.data.prepare.contact_sheet import draw_sheet
from san.tasks import Task, select_tasks, suite_names

MARK = {True: "ok   ", False: "WRONG", None: "?    "}


def homes(task: Task, root: Path) -> list[Path]:
    """Return the packed forms of a task."""
    folder = root / task.suite / task.name
    return sorted(p for p in folder.glob("*") if p.is_dir() and not p.name.startswith("."))


def main() -> None:
    """Check what is packed; exit with 1 if anything is wrong, or nothing is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tasks", nargs="+", metavar="SUITE[/TASK]", help=f"suites: {', '.join(suite_names())}"
    )
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="packed images (default: data)"
    )
    parser.add_argument("--card", action="store_true", help="print the data set cards instead")
    parser.add_argument("--sheets", action="store_true", help="draw the contact sheets as well")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="where figures/ is (default: results)"
    )
    args = parser.parse_args()
    bad = there = proved = 0
    pairs = select_tasks(args.tasks)
    for _, task in pairs:
        found = homes(task, args.root)
        if args.card:
            print(task_card(task, found[0] if found else None))
            continue
        there += bool(found)
        if not found:
            print(f"{task.suite}/{task.name}: not packed")
        for home in found:
            findings = verify.verify(task, home)
            wrong = any(f.good is False for f in findings)
            bad += wrong
            proved += not wrong and any(
                f.good and f.text.startswith("the ids of") for f in findings
            )
            print(
                f"{task.suite}/{task.name} ({home.name})",
                *(f"  {MARK[f.good]} {f.text}" for f in findings),
                sep="\n",
            )
            if args.sheets and wrong:
                print("  no contact sheet of data that is wrong")
            elif args.sheets:
                path = args.results / "figures" / "data" / f"{task.name}.png"
                split = verify.load_part(
                    task, home, verify.parts_of(task, home, "+".join(task.splits))[0]
                )
                draw_sheet(task, class_names(task, home), split, path)
                print(f"  {path}")
    if not args.card:
        print(
            f"{there} of {len(pairs)} tasks are packed below {args.root}: {bad} wrong, {proved} proved by their names."
        )
        sys.exit(1 if bad or not there else 0)


if __name__ == "__main__":
    try:
        main()
    except (LookupError, ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
