"""How long ten thousand records take to all tables: reading, making, writing CSV, Markdown and LaTeX, drawing.

python benchmarks/speed/tables.py
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from san import methods, record
from san.record import Point, Record
from san.report import figure, render
from san.report.table import make_table
from san.tasks import load_suite

SUITES = ("vtab", "fgvc", "gic")


def synthetic(folder: Path, count: int) -> int:
    """Write at least `count` records of all tasks and methods with as many seeds as that takes; return how many."""
    pairs = [(load_suite(name), task) for name in SUITES for task in load_suite(name).tasks]
    seeds = -(-count // (len(pairs) * len(methods.method_names())))
    for suite, task in pairs:
        for method in methods.method_names():
            for seed in range(seeds):
                one = done(suite.name, task, method, suite.backbone, seed)
                record.write_record(
                    one, record.record_path(folder, suite.name, method, task, seed, one.id)
                )
    return len(pairs) * len(methods.method_names()) * seeds


def done(suite: str, task: str, method: str, backbone: str, seed: int) -> Record:
    """Return a record as a run leaves it, of a score that nothing has made."""
    point, names = Point(100, 7000 + seed, 10000), ("method", "norm", "head", "trainable", "total")
    return Record(
        id=record.hash_identity({"of": [suite, task, method, seed]}), suite=suite, task=task, method=method, seed=seed,
        backbone=backbone, protocol="last_epoch", variant="", selected_on="last", evaluated_on="test", status="done",
        config={"precision": "bf16", "data": {"resize": "vtab", "normalise": "half"}}, weights="w",
        data={"train": "a", "evaluate": "b", "kind": "tfds"}, code={}, versions={}, device={"type": "cuda"},
        created="2026-01-01T00:00:00+00:00", last=point, best=point, curve=[point] * 10,
        params=dict.fromkeys(names, 1000), seconds={"fit": 100.0, "step": 0.1},
    )  # fmt: skip


def main() -> None:
    """Print a line of Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=10_000)
    count = parser.parse_args().records
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = synthetic(folder / "records", count)
        begin = time.perf_counter()
        records, _ = record.read_records(folder / "records")
        assert len(records) == made
        for name in SUITES:
            table = make_table(load_suite(name), records)
            render.write_table(table, folder / "tables", name)
            figure.draw_figure(table, folder / "figures", name)
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"| {made:,} records to the tables and figures of {len(SUITES)} suites | {seconds:.1f} s, {peak:.2f} GiB |"
    )


if __name__ == "__main__":
    main()
