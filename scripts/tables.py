"""Print a suite's table from the local records, and write it as CSV, Markdown and LaTeX.

python scripts/tables.py demo
"""

import argparse
import sys
from pathlib import Path

from san import record, tables
from san.tasks import load_suite, suite_names


def main() -> None:
    """Parse arguments, read records, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="?", default="demo", choices=suite_names())
    parser.add_argument("--results", type=Path, default=Path("results"), help="where records/ and tables/ are")
    args = parser.parse_args()
    records, problems = record.read_all(args.results / "records")
    for problem in problems:
        print(f"Skipped: {problem}", file=sys.stderr)
    table = tables.make(load_suite(args.suite), records)
    if table.cells.empty:
        sys.exit(
            f"Error: no test results of {args.suite} below {args.results / 'records'}. Run `make {args.suite}` first."
        )
    paths = tables.write(table, args.results / "tables", args.suite)
    print(tables.markdown(table))
    print("Written:", *paths)


if __name__ == "__main__":
    main()
