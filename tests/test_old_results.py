"""A results folder that the code of commit a10070e wrote: everything in it is done, same tables."""

import shutil
from pathlib import Path

import pandas as pd

from san.compose import compose_grid
from san.record_file import read_records
from san.record_names import named_by_value
from san.report.render import write_table
from san.report.table import make_table
from san.sweep.plan import RunState, plan_runs, run_status
from san.tasks import load_suite

OLD = Path(__file__).parent / "golden" / "a10070e"
DEMO = load_suite("demo")


def test_every_run_is_found_done(tmp_path: Path, data_root: Path) -> None:
    shutil.copytree(OLD / "records", tmp_path / "records")
    tasks = [f"demo/{task}" for task in DEMO.tasks]
    words = ["epochs=1", "logger=none", f"results_dir={tmp_path}", f"data_root={data_root}"]
    runs = plan_runs(compose_grid(tasks, DEMO.methods, [0], [*words, "device=cpu"]))
    assert len(runs) == 24
    assert {run_status(run).state for run in runs} == {RunState.DONE}


def test_tables_have_the_same_numbers(tmp_path: Path) -> None:
    """Against the files of cells and runs that were written then, under the keys of that time."""
    records, problems = read_records(OLD / "records")
    assert len(records) == 24
    assert problems == []
    named = [named_by_value(r) for r in records]
    write_table(make_table(DEMO, named), tmp_path)
    cells = pd.read_csv(tmp_path / "demo_cells.csv")
    then = pd.read_csv(OLD / "tables" / "demo_cells.csv")
    now = cells[cells["task"].notna()].set_index(["row", "task"])["mean"]
    pd.testing.assert_series_equal(now, then.set_index(["row", "task"])["mean"])
    assert len(now) == 24
    runs = pd.read_csv(tmp_path / "demo_runs.csv").set_index("id")
    runs_then = pd.read_csv(OLD / "tables" / "demo_runs.csv").set_index("id")
    columns = ["method", "task", "seed", "correct", "total", "accuracy", "params_trainable"]
    columns += ["seconds_fit", "data_evaluate", "precision", "peak_bytes"]
    pd.testing.assert_frame_equal(runs[columns], runs_then[columns])
