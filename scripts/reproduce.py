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
import time
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from san import cli, compose
from san.errors import LaunchError, choose
from san.tasks import load_suite, suite_names

ROOT = Path(__file__).parents[1]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=suite_names())
    parser.add_argument("--methods", help="comma-separated; default: the suite's own")
    parser.add_argument("--tasks", help="comma-separated; default: all of the suite")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--backbone", help="default: the suite's own")
    parser.add_argument(
        "--jobs",
        type=positive,
        help="processes, SLURM jobs or Ray units at a time; default: one a visible GPU, or one",
    )
    parser.add_argument("--retry", default="", help="failed, oom, or both: run those again, too")
    parser.add_argument(
        "--fail-fast", action="store_true", help="begin no more runs after the first that fails"
    )
    parser.add_argument(
        "--launcher",
        default="local",
        choices=("local", "slurm", "ray"),
        help="what starts processes",
    )
    parser.add_argument(
        "--profile", type=Path, help="what jobs ask for; default: clusters/<launcher>.yaml"
    )
    for name, what in (("plan", "what would be run"), ("status", "how far the runs are")):
        parser.add_argument(f"--{name}", action="store_true", help=f"say {what}, and stop")
    # What a job is told: when it was handed out, in nanoseconds. It retries what had failed by then, leaves runs that
    # others are at alone, and makes no table.
    parser.add_argument("--unit", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--cancel", action="store_true", help="cancel the SLURM jobs of this results folder"
    )
    parser.add_argument(
        "overrides", nargs="*", help="anything else that train.py takes, e.g. epochs=5"
    )
    return parser.parse_intermixed_args()


def positive(text: str) -> int:
    """Return a number of processes; raise ValueError where there are none."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def devices() -> list[str]:
    """Return the names of the GPUs that are visible."""
    import torch  # noqa: PLC0415  (after --help)

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def processes(args: argparse.Namespace) -> int:
    """Return how many processes work at a time: as many as asked for, or one for each GPU, or one."""
    return max(1, len(devices())) if args.jobs is None else int(args.jobs)


def cells_of(args: argparse.Namespace) -> list[Any]:
    """Return the runs that the arguments mean; raise LookupError or ValueError that says what is allowed."""
    from san.sweep import plan  # noqa: PLC0415  (torch takes seconds)

    suite = load_suite(args.suite)
    for name in filter(None, args.retry.split(",")):
        choose(name, ("failed", "oom"), "--retry")
    if "force=true" in args.overrides:
        raise ValueError(
            "force=true would run everything again whenever the sweep goes on. Remove the records instead."
        )
    tasks = (
        dict.fromkeys(suite.task(name).name for name in args.tasks.split(","))
        if args.tasks
        else suite.tasks
    )
    methods = list(dict.fromkeys(args.methods.split(","))) if args.methods else list(suite.methods)
    if not all(seed.isdecimal() for seed in args.seeds.split(",")):
        raise ValueError(
            f"--seeds came as '{args.seeds}'; allowed: whole numbers joined by commas, e.g. 0,1,2."
        )
    seeds = list(dict.fromkeys(int(seed) for seed in args.seeds.split(",")))
    overrides = [*args.overrides, *([f"backbone={args.backbone}"] if args.backbone else [])]
    found = compose.compose_grid(
        [f"{suite.name}/{task}" for task in tasks], methods, seeds, overrides
    )
    return plan.plan_runs(found)


def report(args: argparse.Namespace, cells: list[Any], folder: Path) -> bool:
    """Print how far the runs are, what is to be said of single ones and of jobs, and in a plan what they need.

    Return whether none is left but those that others are at.
    """
    from san import record  # noqa: PLC0415
    from san.sweep import plan, slurm, status  # noqa: PLC0415

    states = [plan.run_status(cell) for cell in cells]
    known, _ = record.read_records(folder.parent / "records")
    print(status.summary(cells, states, known), *status.details(cells, states), sep="\n")
    for line in slurm.queued(folder):
        print(f"slurm    {line}")
    if args.plan:
        print(
            status.disk_estimate(cells, states, processes(args)),
            status.progress_table(cells, states),
            sep="\n\n",
        )
    sys.stdout.flush()
    return all(s.name in ("done", "running") for s in states)


def unit(args: argparse.Namespace) -> list[str]:
    """Return the command of one job: the same sweep on what it gets."""
    words = {
        "--methods": args.methods,
        "--tasks": args.tasks,
        "--seeds": args.seeds,
        "--backbone": args.backbone,
    }
    words |= {"--retry": args.retry or None, "--unit": str(time.time_ns())}
    options = [f"{key}={value}" for key, value in words.items() if value is not None]
    options += ["--fail-fast"] * args.fail_fast
    return [
        sys.executable,
        str(ROOT / "scripts/reproduce.py"),
        args.suite,
        *options,
        *args.overrides,
    ]


def submit(args: argparse.Namespace, todo: list[Any], folder: Path) -> None:
    """Hand the sweep to SLURM, if there is something to run."""
    from san.sweep import slurm  # noqa: PLC0415

    if not todo:
        print("Nothing to submit.")
        return
    ids = slurm.submit(unit(args), args.jobs or 1, profile(args), folder)
    print(
        f"Submitted {len(ids)} jobs: {', '.join(ids)}. Logs: {folder}. make status shows how far they are."
    )


def work(args: argparse.Namespace, todo: list[Any]) -> bool:
    """Run what is to be done, here or on Ray; return whether it was told to stop."""
    from san.sweep import pool, ray_pool  # noqa: PLC0415

    if args.launcher == "ray":
        return ray_pool.run_on_ray(unit(args), args.jobs, profile(args))
    return pool.run_pool(
        todo,
        processes(args),
        devices(),
        partial(print, flush=True),
        args.fail_fast,
        args.unit is None,
    ).stopped


def profile(args: argparse.Namespace) -> dict[str, Any]:
    """Read what jobs ask for; raise ValueError where the file holds no options."""
    path = args.profile or ROOT / f"clusters/{args.launcher}.yaml"
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--profile {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"--profile {path} holds no options. Write `name: value` lines, as in {ROOT / 'clusters'}."
        )
    return found


def main() -> None:
    """Plan, run what is to be done, print the table; exit with 1 if a run is not done, 143 if told to stop."""
    args = arguments()
    if args.profile and args.launcher == "local":
        raise ValueError("--profile is for --launcher slurm or ray; nothing is asked for here.")
    from san.sweep import plan, slurm  # noqa: PLC0415

    cells = cells_of(args)
    results = cells[0].config["results"]
    folder = Path(results).absolute() / "slurm"
    if args.cancel:
        print(
            "\n".join(f"cancelled {line}" for line in slurm.cancel(folder))
            or "No jobs of this folder are queued."
        )
        return
    whole = report(args, cells, folder)
    if args.plan or args.status:
        return
    if all(cell.path is None for cell in cells):
        sys.exit("Error: none of these runs can begin; what is blocked says why.")
    todo = plan.pending_runs(cells, args.retry.split(","), args.unit)
    if args.launcher == "slurm":
        submit(args, todo, folder)
        return
    if todo and work(args, todo):
        print(
            "Stopped: what was in flight is saved, and the same command goes on.", file=sys.stderr
        )
        sys.exit(143)
    if todo:
        whole = report(args, cells, folder)
    if args.unit is None:
        table = [sys.executable, str(ROOT / "scripts/tables.py"), args.suite, "--results", results]
        table += ["--wandb"] * (bool(todo) and cells[0].config["logger"]["name"] == "wandb")
        whole = subprocess.run(table, check=False).returncode == 0 and whole  # noqa: S603
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    try:
        main()
    except cli.CONFIG_ERRORS as error:
        sys.exit(f"Error: {cli.explain(error)}")
    except (LookupError, ValueError, OSError, LaunchError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
