"""Runs that differ in their seed alone are checked once, and planned as if each were alone."""

from pathlib import Path

import pytest

from san.compose import compose_grid
from san.experiment import from_config
from san.settings import RunConfig
from san.sweep import disk, plan
from san.sweep.plan import PlannedRun, plan_runs

TASKS = ["demo/digits", "vtab/cifar"]  # one that is drawn, and one that is not prepared
METHODS = ["linear", "san:shift=true"]


def grid(root: Path, seeds: list[int]) -> list[RunConfig]:
    return compose_grid(TASKS, METHODS, seeds, [f"results_dir={root}", f"data_root={root}"])


def alone(configs: list[RunConfig]) -> list[PlannedRun]:
    return [run for config in configs for run in plan_runs([config])]


def test_many_seeds_are_planned_like_each_alone(tmp_path: Path) -> None:
    configs = grid(tmp_path, [0, 1, 7])
    planned = plan_runs(configs)
    assert planned == alone(configs)
    prepared = [run for run in planned if run.path is not None]
    assert len({run.path for run in prepared}) == len(prepared) == 6
    for run in prepared:
        experiment = from_config(*run.run_config)
        assert experiment.record_path(tmp_path) == run.path
        assert experiment.seed == experiment.config["seed"] == run.seed
    missing = [run for run in planned if not run.is_prepared]
    assert [run.seed for run in missing] == [0, 1, 7, 0, 1, 7]


def test_an_invalid_seed_is_an_obstacle_of_its_run_alone(tmp_path: Path) -> None:
    configs = grid(tmp_path, [0, -1, 1])
    for cell in (configs[:3], configs[-3:]):  # prepared, and not
        for order in (cell, [cell[1], cell[0], cell[2]]):
            planned = plan_runs(order)
            assert planned == alone(order)
            assert [run.seed for run in planned if "seed came as" in run.obstacle] == [-1]


def test_equal_settings_of_other_types_are_planned_apart(tmp_path: Path) -> None:
    one, true = (
        compose_grid(["demo/digits"], [f"partial:blocks={word}"], [0], [f"results_dir={tmp_path}"])
        for word in ("1", "true")
    )
    planned = plan_runs([*one, *true])
    assert [run.obstacle.partition(";")[0] for run in planned] == [
        "",
        "method.blocks came as True",
    ]


def test_each_cell_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def note(*arguments: object) -> object:
        checked.append(arguments)
        return from_config(*arguments)

    monkeypatch.setattr(plan, "from_config", note)
    assert len(plan_runs(grid(tmp_path, list(range(50))))) == 200
    assert len(checked) == len(TASKS) * len(METHODS)


def test_settings_of_a_library_are_planned(tmp_path: Path, data_root: Path) -> None:
    overrides = [f"data_root={data_root}", f"results_dir={tmp_path}"]
    names = ["peft:kind=hira:settings.r=2", "peft:kind=hira:settings.r=4"]
    runs = plan.plan_runs(compose_grid(["demo/count"], names, [0], overrides))
    few, more = map(disk.trainable_parameters, runs)
    head = 129 * 6
    assert more - head == 2 * (few - head) > 0
