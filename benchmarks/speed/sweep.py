"""What a sweep costs beside training: planning many runs, and the share of a worker's start.

python benchmarks/speed/sweep.py --data data   # the packed demo suite; prepared if it is not there
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from san import compose
from san.methods import method_names
from san.record_file import read_records
from san.sweep.plan import plan_runs, run_status
from san.tasks import load_suite

ROOT = Path(__file__).parents[2]
KIB_PER_GIB = 2**20


def planning_row(minimum_runs: int, data_root: Path) -> str:
    """Plan many runs of the demo suite and look up their states; return a row of the table."""
    tasks = [f"demo/{task}" for task in load_suite("demo").tasks]
    methods = method_names()
    runs_per_seed = len(tasks) * len(methods)
    seeds = range(-(-minimum_runs // runs_per_seed))  # rounded up
    overrides = [f"data_root={data_root}", "logger=none"]

    begin = time.perf_counter()
    runs = plan_runs(compose.compose_grid(tasks, methods, seeds, overrides))
    planned = time.perf_counter()
    for run in runs:
        run_status(run)
    looked_up = time.perf_counter()

    planning_s = planned - begin
    status_s = looked_up - planned
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_GIB
    cost = f"{planning_s:.1f} s, their states {status_s:.1f} s, {peak_gib:.2f} GiB"
    return f"| {len(runs):,} runs planned | {cost} |"


def worker_row(tasks: str, methods: str, data_root: Path) -> str:
    """Run a sweep in one process; return a row: what share was not training or evaluation."""
    with tempfile.TemporaryDirectory() as results_dir:
        command = [
            sys.executable,
            str(ROOT / "scripts" / "reproduce.py"),
            "demo",
            f"--methods={methods}",
            f"--tasks={tasks}",
            "--jobs=1",
            "--submitted-ns=0",
            f"results_dir={results_dir}",
            f"data_root={data_root}",
            "logger=none",
        ]
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603  (our own program)
        wall_s = time.perf_counter() - begin
        records, _ = read_records(Path(results_dir) / "records")
    build_s = 0.0
    work_s = 0.0
    for run in records:
        assert run.seconds is not None  # check=True: all runs are done
        build_s += run.seconds.build or 0.0
        work_s += (run.seconds.fit or 0.0) + (run.seconds.evaluate or 0.0)
    start_s = wall_s - work_s - build_s
    overhead = 100 * (1 - work_s / wall_s)
    cost = f"{wall_s:.0f} s, of which {build_s:.1f} s build models and {start_s:.1f} s start"
    plural = "s" if len(records) > 1 else ""
    return f"| a worker of {len(records)} run{plural} | {cost}: {overhead:.0f} % |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--runs", type=int, default=10_000)
    args = parser.parse_args()
    data_root = args.data.absolute()
    print("| what | cost |\n|:--|:--|")
    print(planning_row(args.runs, data_root), flush=True)
    print(worker_row("digits", "san", data_root), flush=True)
    print(worker_row("digits,count,terrain", "linear,ssf,san", data_root))


if __name__ == "__main__":
    main()
