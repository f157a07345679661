"""Hydra's side: tasks as choices of `data=`, and configurations of many runs composed at once."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from san.renamed_keys import current_config, current_words
from san.tasks import Suite, Task, load_suite, suite_names

CONFIGS = Path(__file__).parents[1] / "configs"
Job = tuple[dict[str, Any], list[str]]  # a resolved configuration and the user's overrides
# Overrides that choose a cell of a table, or that its record states apart. Others may make a
# variant of the method.
CELL_KEYS = (
    "data",
    "data.root",
    "method",
    "backbone",
    "backbone.name",
    "protocol",
    "seed",
    "device",
    "precision",
    "data_root",
    "results_dir",
    "force",
    "allow_unverified_data",
    "save_adapter",
    "num_workers",
    "max_hours",
)


def register_tasks() -> None:
    """Offer every row of benchmarks/*.yaml as `data=<suite>/<task>`.

    A task brings the backbone, recipe and augmentation of its suite along.
    """
    for name in suite_names():
        suite = load_suite(name)
        for task in suite.tasks.values():
            _register_task(suite, task)


def _register_task(suite: Suite, task: Task) -> None:
    node = {
        "defaults": [
            {"override /backbone@_global_.backbone": suite.backbone},
            {"override /augment@_global_.augment": suite.augment},
            {"override /recipe@_global_.recipe": task.recipe or suite.recipe},
        ],
        "suite": suite.name,
        "task": task.name,
        "resize": suite.resize,
        "normalize": "${backbone.normalize}",
    }
    store = ConfigStore.instance()
    # Hydra loads `data=demo/count` from the group data/demo, but lists, completes and globs by
    # the group data.
    store.store(group=f"data/{suite.name}", name=task.name, node=node, package="data")
    store.store(group="data", name=f"{suite.name}/{task.name}", node=node, package="data")


def config_choices(group: str) -> list[str]:
    """Return the choices that a group of `configs/` offers, such as `method`, sorted."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def compose_grid(
    tasks: Sequence[str], methods: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]
) -> list[Job]:
    """Return configuration and overrides of the runs of tasks (`vtab/cifar`) x methods x seeds.

    Hydra composes each task and each method once; a method's configuration is a node of its own,
    so they combine, and thousands of runs take seconds.
    """
    register_tasks()
    words = current_words(overrides, methods)
    by_task = {task: _compose([f"data={task}", *words]) for task in tasks}
    by_method = {
        method: _compose([f"method={method}", f"data={tasks[0]}", *words]).method
        for method in methods
    }
    kept = variant_overrides(words)
    jobs: list[Job] = []
    for task in tasks:
        for method in methods:
            config = by_task[task].copy()
            config.method = by_method[method]
            plain = _to_plain(config)
            jobs += [({**plain, "seed": seed}, kept) for seed in seeds]
    return jobs


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return a composed configuration as plain dictionaries, in current words."""
    return _to_plain(_in_current_words(config))


def user_overrides() -> list[str]:
    """Return the overrides of the present Hydra job that may make a variant of its method."""
    return variant_overrides(HydraConfig.get().overrides.task)


def variant_overrides(words: Iterable[str]) -> list[str]:
    """Return the overrides that do more than choose a cell of a table."""
    kept = []
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key not in CELL_KEYS and not key.startswith("logger"):
            kept.append(word)
    return kept


def compose_config(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a run without running it; interpolations stay."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=current_words(overrides))


def _compose(overrides: Sequence[str]) -> DictConfig:
    return _in_current_words(compose_config(overrides))


def _in_current_words(config: DictConfig) -> DictConfig:
    """Rename old keys, which a user's own files may have, before interpolations look for them."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return OmegaConf.create(current_config(plain))


def _to_plain(config: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return dict(plain)
