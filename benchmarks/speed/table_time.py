"""How long ten thousand records take to all tables: reading, making, writing, drawing.

python benchmarks/speed/table_time.py
"""

import argparse
import resource
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from san.answers import count_by_class
from san.compose import compose_grid
from san.config_files import choices
from san.counts import ParameterCounts
from san.record import DataSource, Record, Seconds, Status, hash_identity
from san.record_file import read_records, record_path, write_record
from san.record_names import named_by_value
from san.renamed_keys import schema_1_config
from san.report.draw import draw_table
from san.report.render import write_table
from san.report.selection import Wanted, select
from san.report.table import make_table
from san.runtime.environment import CodeState, DeviceInfo
from san.score import ClassScore, EpochEntry, Score
from san.tasks import load_suite

SUITES = ("vtab", "fgvc", "gic")
EPOCHS = 50
HISTORY = [EpochEntry(epoch, 1 / 3, 1e-3 / 3) for epoch in range(1, EPOCHS)]


def main() -> None:
    """Print a line of Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--records", type=int, default=10_000)
    wanted = parser.parse_args().records
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory)
        count = write_records(results / "records", wanted)
        begin = time.perf_counter()
        make_tables(results, count)
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    what = f"{count:,} records to the tables and figures of {len(SUITES)} suites"
    print(f"| {what} | {seconds:.1f} s, {peak:.2f} GiB |")


def write_records(directory: Path, wanted: int) -> int:
    """Write records of all tasks and methods, with so many seeds that there are at least `wanted`.

    Returns how many.
    """
    suites = [load_suite(name) for name in SUITES]
    methods = choices("method")
    cells = sum(len(suite.tasks) for suite in suites) * len(methods)
    seeds = -(-wanted // cells)
    for suite in suites:
        tasks = [f"{suite.name}/{task}" for task in suite.tasks]
        for run in compose_grid(tasks, methods, range(seeds), [f"epochs={EPOCHS}", "lr=0.003"]):
            r = make_record(run.config)
            path = record_path(directory, r.suite, r.method, r.task, r.seed, r.id)
            write_record(r, path)
    return cells * seeds


def make_tables(results: Path, count: int) -> None:
    """Read the records, of which there are `count`, and write tables and figures."""
    records, _ = read_records(results / "records")
    assert len(records) == count
    records = [named_by_value(r) for r in records]
    for name in SUITES:
        table = make_table(load_suite(name), records)
        selection = select(table, Wanted())
        write_table(table, results / "tables", selection)
        draw_table(table, selection, records, results)


@cache
def make_result(suite: str, task: str, place: int, seed: int) -> tuple[Score, list[ClassScore]]:
    """Return a made-up score of a test split, and its results by class.

    place: of the method; each is a point better than the one before.
    """
    facts = load_suite(suite).tasks[task]
    total = facts.size("test")
    answers = np.random.default_rng(seed).random(total) < 0.6 + place / 100
    labels = np.arange(total) % len(facts.classes)
    score = Score(EPOCHS, int(answers.sum()), total, 0.5)
    return score, count_by_class(facts.classes, labels, answers)


def make_record(config: dict[str, Any]) -> Record:
    """Return a record as a run of a resolved configuration leaves it, of a made-up score."""
    data = config["data"]
    method = config["method"]["name"]
    seed = config["seed"]
    place = choices("method").index(method)
    score, classes = make_result(data["suite"], data["task"], place, seed)
    own = 1000 * 2**place
    counts = ParameterCounts(
        method=own, norm=1000, head=1000, trainable=own + 2000, total=10**9, percent=30.0
    )
    return Record(
        id=hash_identity({"of": [data["suite"], data["task"], method, seed]}),
        suite=data["suite"],
        task=data["task"],
        method=method,
        seed=seed,
        backbone=config["backbone"]["name"],
        protocol="last_epoch",
        variant="",
        selected_on="last",
        evaluated_on="test",
        status=Status.DONE,
        config=schema_1_config({**config, "precision": "bf16"}),
        weights="w",
        data=DataSource(train="a", evaluate="b", kind="tfds"),
        code=CodeState(),
        versions={},
        device=DeviceInfo(type="cuda"),
        created="2026-01-01T00:00:00+00:00",
        last=score,
        best=score,
        history=[*HISTORY, EpochEntry(EPOCHS, 0.1, 0.003, score)],
        classes=classes,
        params=counts,
        seconds=Seconds(fit=100.0, step=0.1),
    )


if __name__ == "__main__":
    main()
