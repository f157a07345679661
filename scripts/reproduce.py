"""Run every cell of a suite that has no record yet, then print the table.

python scripts/reproduce.py demo --methods ssf,san --tasks digits,count --seeds 0,1,2 epochs=5
"""

import argparse
import math
import subprocess
import sys
from pathlib import Path

from san.tasks import load_suite, suite_names

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Parse arguments and hand a Hydra multirun to train.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=suite_names())
    parser.add_argument("--methods", help="comma-separated; default: the suite's own")
    parser.add_argument("--tasks", help="comma-separated; default: all of the suite")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("overrides", nargs="*", help="anything else that train.py takes, e.g. epochs=5")
    args = parser.parse_args()
    suite = load_suite(args.suite)
    tasks = (args.tasks or ",".join(suite.tasks)).split(",")
    cells = [
        f"method={args.methods or ','.join(suite.methods)}",
        f"data={','.join(f'{suite.name}/{task}' for task in tasks)}",
    ]
    runs = math.prod(len(c.split("=")[1].split(",")) for c in (*cells, f"seeds={args.seeds}"))
    print(f"{runs} runs of {suite.title.lower()}; those with a record are not run again.", flush=True)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *cells, f"seed={args.seeds}", *args.overrides]
    failed = subprocess.run(command, check=False).returncode  # noqa: S603  (our own program)
    results = next((o.removeprefix("results=") for o in args.overrides if o.startswith("results=")), "results")
    table = [sys.executable, str(ROOT / "scripts/tables.py"), suite.name, "--results", results]
    sys.exit(subprocess.run(table, check=False).returncode or failed)  # noqa: S603


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # train.py has said what became of the run in flight
