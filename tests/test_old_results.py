"""A results folder that the code of commit a10070e wrote: everything in it is done, same tables."""

import shutil
from pathlib import Path

from san.compose import compose_grid, named_by_value
from san.record_file import read_records
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


def test_tables_have_the_same_bytes(tmp_path: Path) -> None:
    records, problems = read_records(OLD / "records")
    assert len(records) == 24
    assert problems == []
    named = [named_by_value(r) for r in records]
    write_table(make_table(DEMO, named), tmp_path, "demo")
    files = sorted(path.name for path in (OLD / "tables").iterdir())
    assert len(files) == 5
    for name in files:
        assert (tmp_path / name).read_bytes() == (OLD / "tables" / name).read_bytes(), name
