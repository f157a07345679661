"""Write the tables of all suites that have records, as CSV, Markdown and LaTeX with a figure, and print them.

python scripts/tables.py                        # every suite and backbone that something was run of
python scripts/tables.py vtab                   # one, beside the published numbers, even before anything was run
python scripts/tables.py vtab --backbone swin_b_in22k
python scripts/tables.py --cell vtab san cifar  # where a number comes from, and the commands that repeat it
"""

import argparse
import importlib.util
import logging
import sys
from dataclasses import replace
from pathlib import Path

from san import record
from san.report import explain, figure, render
from san.report.table import make_table
from san.runtime.wandb_logger import open_logger
from san.tasks import load_suite, suite_names


def main() -> None:
    """Parse arguments, read records, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "suite", nargs="*", help=f"default: all with records; of {', '.join(suite_names())}"
    )
    parser.add_argument(
        "--backbone", help="of the suites that are named, also one that nothing was run with yet"
    )
    parser.add_argument(
        "--cell", nargs=3, metavar=("SUITE", "METHOD", "TASK"), help="say where a number comes from"
    )
    parser.add_argument(
        "--wandb", action="store_true", help="log them as one more W&B run of each suite, too"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="where records/ and tables/ are"
    )
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("san").setLevel(logging.INFO)
    records, problems = record.read_records(args.results / "records")
    for problem in problems:
        print(f"Skipped: {problem}", file=sys.stderr)
    if args.cell:
        print(*explain.explain_cell(*args.cell, records), sep="\n")
        return
    for name in args.suite:
        load_suite(name)
    pairs = {(r.suite, r.backbone) for r in records if r.suite in (args.suite or suite_names())}
    pairs |= {(name, args.backbone or load_suite(name).backbone) for name in args.suite}
    if args.backbone:
        pairs = {pair for pair in pairs if pair[1] == args.backbone}
    if not pairs:
        sys.exit(
            f"Error: no results of a suite below {args.results / 'records'}. Run `make demo` first, or name a suite."
        )
    others = sorted({r.suite for r in records} - set(suite_names()))
    if others:
        print(f"No tables of {', '.join(others)}: no suites of benchmarks/.", file=sys.stderr)
    made = [
        write(suite, backbone, records, len(problems), args) for suite, backbone in sorted(pairs)
    ]
    sys.exit(0 if any(made) else 1)  # no bool: wandb hands it on, and wants a number


def write(
    name: str, backbone: str, records: list[record.Record], problems: int, args: argparse.Namespace
) -> bool:
    """Write and print the table of a suite and a backbone; return whether there is something to write."""
    suite = load_suite(name)
    table = make_table(suite, records, backbone)
    if problems:
        note = f"{problems} files are no records of this version and are left out; python scripts/tables.py names them."
        table = replace(table, notes=(*table.notes, note))
    if table.ours.cells.empty and table.cited.cells.empty:
        run = "make demo" if name == "demo" else f"python scripts/reproduce.py {name}"
        print(
            f"Error: no test results of {name} below {args.results / 'records'}. Run `{run}` first.",
            file=sys.stderr,
        )
        return False
    file = name if backbone == suite.backbone else f"{name}_{backbone}"
    paths = render.write_table(table, args.results / "tables", file) + figure.draw_figure(
        table, args.results / "figures", file
    )
    print(render.markdown(table))
    print("Written:", *paths)
    if importlib.util.find_spec("matplotlib") is None:
        print("No figure without matplotlib: `make tables` installs it and draws.")
    if args.wandb:
        logger = open_logger(
            "wandb", {"results": str(args.results)}, f"tables-{name}-{backbone}", name, "tables"
        )
        logger.tables({"cells": table.facts, "runs": table.runs})
        logger.finish({})
    return True


if __name__ == "__main__":
    try:
        main()
    except LookupError as error:
        sys.exit(f"Error: {error.args[0]}")
    except OSError as error:
        sys.exit(
            f"Error: the tables cannot be written: {error}. Those that were there are as they were."
        )
