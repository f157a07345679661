"""Run every cell of a suite that has no record yet, then print the table. Killed? The same command goes on.

python scripts/reproduce.py demo --methods ssf,san --tasks digits,count --seeds 0,1,2 epochs=5
python scripts/reproduce.py vtab --plan      # what there is to do, how long it will take; runs nothing
python scripts/reproduce.py vtab --status    # what is done, running, lost, failed and why; also while it runs elsewhere
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from san import border
from san.tasks import load_suite, suite_names

ROOT = Path(__file__).parents[1]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=suite_names())
    parser.add_argument("--methods", help="comma-separated; default: the suite's own")
    parser.add_argument("--tasks", help="comma-separated; default: all of the suite")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--backbone", help="default: the suite's own")
    parser.add_argument("--jobs", type=int, help="processes at a time; default: one a visible GPU, one without any")
    parser.add_argument("--retry", default="", help="failed, oom, or both: run those again, too")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first run that fails")
    parser.add_argument("--plan", action="store_true", help="say what would be run, and stop")
    parser.add_argument("--status", action="store_true", help="say how far the runs are, and stop")
    parser.add_argument("overrides", nargs="*", help="anything else that train.py takes, e.g. epochs=5")
    return parser.parse_intermixed_args()


def devices() -> list[str]:
    """Return the names of the GPUs that are visible."""
    import torch  # noqa: PLC0415  (after --help)

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def report(cells: list[Any]) -> None:
    """Print how far the runs are, and what is to be said of single ones."""
    from san import plan  # noqa: PLC0415

    states = [plan.state(cell) for cell in cells]
    print(plan.summary(cells, states), *plan.lines(cells, states), sep="\n", flush=True)


def main() -> None:
    """Plan, run what is to be done, print the table; exit with 1 if a run failed, 143 if told to stop."""
    args = arguments()
    from san import plan, sweep  # noqa: PLC0415  (torch takes seconds)

    suite = load_suite(args.suite)
    tasks = [suite.task(name).name for name in args.tasks.split(",")] if args.tasks else list(suite.tasks)
    methods = args.methods.split(",") if args.methods else list(suite.methods)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    overrides = [*args.overrides, *([f"backbone={args.backbone}"] if args.backbone else [])]
    found = border.sweep([f"{suite.name}/{task}" for task in tasks], methods, seeds, overrides)
    cells = [plan.cell(*each) for each in found]
    report(cells)
    if args.plan or args.status:
        return
    todo = plan.todo(cells, args.retry.split(","))
    gpus = devices()
    outcome = sweep.work(todo, args.jobs or max(1, len(gpus)), gpus, args.fail_fast, print)
    if outcome.stopped:
        print("Stopped: what was in flight is saved, and the same command goes on.", file=sys.stderr)
        sys.exit(143)
    report(cells)
    results = next((o.removeprefix("results=") for o in args.overrides if o.startswith("results=")), "results")
    table = [sys.executable, str(ROOT / "scripts/tables.py"), suite.name, "--results", results]
    sys.exit(subprocess.run(table, check=False).returncode or bool(outcome.failed or outcome.lost))  # noqa: S603


if __name__ == "__main__":
    try:
        main()
    except border.COMPOSITION as error:
        sys.exit(f"Error: {border.explain(error)}")
    except (LookupError, ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
