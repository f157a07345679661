"""What a sweep costs beside training: planning many runs, and the start-up share of a unit that works through some.

python benchmarks/speed/sweep.py --data data   # the packed demo suite; it is prepared where it is not there
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from san import compose, methods, record
from san.sweep import plan
from san.tasks import load_suite

ROOT = Path(__file__).parents[2]


def planning(runs: int, data: Path) -> str:
    """Plan at least that many runs of the demo suite and look up how far they are; return a line of the table."""
    tasks, names = [f"demo/{task}" for task in load_suite("demo").tasks], methods.method_names()
    seeds = range(-(-runs // (len(tasks) * len(names))))
    begin = time.perf_counter()
    cells = plan.plan_runs(
        compose.compose_grid(tasks, names, seeds, [f"data_root={data}", "logger=none"])
    )
    planned = time.perf_counter()
    for cell in cells:
        plan.run_status(cell)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    looked = time.perf_counter() - planned
    return f"| {len(cells):,} runs planned | {planned - begin:.1f} s, their states {looked:.1f} s, {peak:.2f} GiB |"


def unit(tasks: str, names: str, data: Path) -> str:
    """Run a sweep in one process; return a line of the table: what of its time was training and evaluating."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--methods", names, "--tasks", tasks, "--jobs", "1", "--unit", "0"]
        settings = [f"results={folder}", f"data_root={data}", "logger=none"]
        command = [sys.executable, str(ROOT / "scripts/reproduce.py"), "demo", *words, *settings]
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603  (our own program)
        wall = time.perf_counter() - begin
        done, _ = record.read_records(Path(folder) / "records")
    spent = {part: sum(r.seconds[part] for r in done) for part in ("build", "fit", "evaluate")}
    work = spent["fit"] + spent["evaluate"]
    each = f"{wall:.0f} s, of which {spent['build']:.1f} s build models and {wall - work - spent['build']:.1f} s start"
    return f"| a unit of {len(done)} runs | {each}: {100 * (1 - work / wall):.0f} % |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--runs", type=int, default=10_000)
    args = parser.parse_args()
    data = args.data.absolute()
    print("| what | cost |\n|:--|:--|")
    print(planning(args.runs, data), flush=True)
    print(unit("digits", "san", data), flush=True)
    print(unit("digits,count,terrain", "linear,ssf,san", data))


if __name__ == "__main__":
    main()
