"""Run every cell of a suite that has no record yet, then print the table. Killed? The same command goes on.

python scripts/reproduce.py demo --methods ssf,san --tasks digits,count --seeds 0,1,2 epochs=5
python scripts/reproduce.py vtab --plan                      # what there is to do, how long it will take
python scripts/reproduce.py vtab --status                    # what is done, running, lost, failed and why
python scripts/reproduce.py vtab --launcher slurm --jobs 8   # eight jobs share it; returns at once
python scripts/reproduce.py vtab --launcher ray              # as many units as Ray has room for
python scripts/reproduce.py vtab --cancel                    # takes the jobs back
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from san import border
from san.errors import LaunchError
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
    parser.add_argument(
        "--jobs", type=int, help="processes, SLURM jobs or Ray units at a time; default: one a visible GPU, or one"
    )
    parser.add_argument("--retry", default="", help="failed, oom, or both: run those again, too")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first run that fails")
    parser.add_argument("--launcher", default="local", choices=("local", "slurm", "ray"), help="what starts processes")
    parser.add_argument("--profile", type=Path, help="what jobs ask for; default: configs/cluster/<launcher>.yaml")
    for name, what in (("plan", "what would be run"), ("status", "how far the runs are")):
        parser.add_argument(f"--{name}", action="store_true", help=f"say {what}, and stop")
    parser.add_argument("--no-table", action="store_true", help="make no table at the end")
    parser.add_argument("--cancel", action="store_true", help="cancel the SLURM jobs of this results folder")
    parser.add_argument("overrides", nargs="*", help="anything else that train.py takes, e.g. epochs=5")
    return parser.parse_intermixed_args()


def devices() -> list[str]:
    """Return the names of the GPUs that are visible."""
    import torch  # noqa: PLC0415  (after --help)

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def cells_of(args: argparse.Namespace) -> list[Any]:
    """Return the runs that the arguments mean."""
    from san import plan  # noqa: PLC0415  (torch takes seconds)

    suite = load_suite(args.suite)
    tasks = [suite.task(name).name for name in args.tasks.split(",")] if args.tasks else list(suite.tasks)
    methods = args.methods.split(",") if args.methods else list(suite.methods)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    overrides = [*args.overrides, *([f"backbone={args.backbone}"] if args.backbone else [])]
    found = border.sweep([f"{suite.name}/{task}" for task in tasks], methods, seeds, overrides)
    return plan.cells(found)


def report(args: argparse.Namespace, cells: list[Any], folder: Path) -> None:
    """Print how far the runs are, what is to be said of single ones and of jobs, and in a plan what they need."""
    from san import plan, slurm, status  # noqa: PLC0415

    states = [plan.state(cell) for cell in cells]
    print(status.summary(cells, states), *status.lines(cells, states), sep="\n")
    for line in slurm.queued(folder):
        print(f"slurm    {line}")
    if args.plan:
        print(status.disk(cells, states, args.jobs or max(1, len(devices()))))


def unit(args: argparse.Namespace) -> list[str]:
    """Return the command of one job: the same sweep, in one process."""
    words = {"--methods": args.methods, "--tasks": args.tasks, "--seeds": args.seeds, "--backbone": args.backbone}
    words |= {"--retry": args.retry or None, "--jobs": "1"}
    options = [f"{key}={value}" for key, value in words.items() if value is not None]
    options += ["--fail-fast"] * args.fail_fast + ["--no-table"] * (args.launcher == "ray")  # which makes it at the end
    return [sys.executable, str(ROOT / "scripts/reproduce.py"), args.suite, *options, *args.overrides]


def work(args: argparse.Namespace, cells: list[Any]) -> int:
    """Run what is to be done here or on Ray; return 1 if a run failed, 143 if told to stop, else 0."""
    from san import plan, ray, sweep  # noqa: PLC0415

    todo = plan.todo(cells, args.retry.split(","))
    if args.launcher == "ray":
        return max(ray.work(unit(args), args.jobs, profile(args)), default=0) if todo else 0
    gpus = devices()
    outcome = sweep.work(todo, args.jobs or max(1, len(gpus)), gpus, args.fail_fast, print)
    return 143 if outcome.stopped else int(bool(outcome.failed or outcome.lost))


def profile(args: argparse.Namespace) -> dict[str, Any]:
    """Read what jobs ask for."""
    path = args.profile or ROOT / f"configs/cluster/{args.launcher}.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def main() -> None:
    """Plan, run what is to be done, print the table; exit with 1 if a run failed, 143 if told to stop."""
    args = arguments()
    from san import slurm  # noqa: PLC0415

    results = next((o.removeprefix("results=") for o in args.overrides if o.startswith("results=")), "results")
    folder = Path(results).absolute() / "slurm"
    if args.cancel:
        print(*(f"cancelled {line}" for line in slurm.cancel(folder)), sep="\n")
        return
    cells = cells_of(args)
    report(args, cells, folder)
    if args.plan or args.status:
        return
    if args.launcher == "slurm":
        ids = slurm.submit(unit(args), args.jobs or 1, profile(args), folder)
        print(f"Submitted {len(ids)} jobs: {', '.join(ids)}. Logs: {folder}. make status shows how far they are.")
        return
    code = work(args, cells)
    if code == 143:
        print("Stopped: what was in flight is saved, and the same command goes on.", file=sys.stderr)
        sys.exit(143)
    if args.no_table:
        sys.exit(code)
    report(args, cells, folder)
    table = [sys.executable, str(ROOT / "scripts/tables.py"), args.suite, "--results", results]
    sys.exit(subprocess.run(table, check=False).returncode or code)  # noqa: S603


if __name__ == "__main__":
    try:
        main()
    except border.COMPOSITION as error:
        sys.exit(f"Error: {border.explain(error)}")
    except (LookupError, ValueError, OSError, LaunchError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
