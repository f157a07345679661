"""Hydra side: tasks as choices, and the configurations of many runs composed at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from san.tasks import load_suite, suite_names

CONFIGS = Path(__file__).parents[1] / "configs"
# Overrides that choose a cell of a table, or that its record states apart; others may make a variant of the method.
CELL = (
    "data", "data.root", "method", "backbone", "backbone.name", "protocol", "seed", "device", "precision", "data_root",
    "results", "force", "force_data", "save_adapter", "workers", "max_hours",
)  # fmt: skip


def register_tasks() -> None:
    """Offer every row of benchmarks/*.yaml as `data=<suite>/<task>`; a suite brings its backbone and recipe along."""
    store = ConfigStore.instance()
    for name in suite_names():
        suite = load_suite(name)
        chosen = [
            {"override /backbone@_global_.backbone": suite.backbone},
            {"override /augment@_global_.augment": suite.augment},
        ]
        for task in suite.tasks.values():
            recipe = {"override /recipe@_global_.recipe": task.recipe or suite.recipe}
            node = {
                "suite": name,
                "task": task.name,
                "resize": suite.resize,
                "normalise": "${backbone.normalise}",
            }
            # Hydra loads `data=demo/count` from the group data/demo, but lists, completes and globs by the group data.
            for group, option in ((f"data/{name}", task.name), ("data", f"{name}/{task.name}")):
                store.store(
                    group=group,
                    name=option,
                    node={"defaults": [*chosen, recipe], **node},
                    package="data",
                )


def compose_grid(
    tasks: Sequence[str], methods: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]
) -> list[tuple[dict[str, Any], list[str]]]:
    """Return configuration and settings of the runs of tasks (`vtab/cifar`) x methods x seeds, in that order.

    Hydra composes each task and each method once; a method's configuration is a node of its own, so they combine, and
    thousands of runs take seconds.
    """
    register_tasks()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        by_task = {task: compose("train", overrides=[f"data={task}", *overrides]) for task in tasks}
        nodes = {
            m: compose("train", overrides=[f"method={m}", f"data={tasks[0]}", *overrides]).method
            for m in methods
        }
    kept = [
        o
        for o in overrides
        if o.lstrip("+~").split("=")[0] not in CELL and not o.startswith("logger")
    ]
    cells: list[tuple[dict[str, Any], list[str]]] = []
    for task in tasks:
        for method in methods:
            config = by_task[task].copy()
            OmegaConf.set_struct(config, False)
            config.method = nodes[method]
            plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
            cells += [({**plain, "seed": seed}, kept) for seed in seeds]
    return cells


def user_overrides() -> list[str]:
    """Return the overrides of the present job that do more than choose its cell."""
    keys_of = {o: o.lstrip("+~").split("=")[0] for o in HydraConfig.get().overrides.task}
    return [o for o, key in keys_of.items() if key not in CELL and not key.startswith("logger")]
