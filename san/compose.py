"""The border to Hydra: tasks as config choices, and errors in words. Only this module and train.py know Hydra."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from san.errors import NonFiniteLossError, Preempted, WeightsError
from san.tasks import load_suite, suite_names

CONFIGS = Path(__file__).parents[1] / "configs"
# Overrides that choose a cell of a table, or that its record states apart; others may make a variant of the method.
CELL = (
    "data", "data.root", "method", "backbone", "backbone.name", "protocol", "seed", "device", "precision", "data_root",
    "results", "force", "force_data", "save_adapter", "workers", "max_hours",
)  # fmt: skip
COMPOSITION = (HydraException, OmegaConfBaseException)  # what composing a configuration raises
EXPECTED = (LookupError, ValueError, TypeError, OSError, WeightsError, NonFiniteLossError)


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
            recipe = {"override /recipe@_global_.recipe": task.facts.get("recipe", suite.recipe)}
            node = {"suite": name, "task": task.name, "resize": suite.resize, "normalise": "${backbone.normalise}"}
            # Hydra loads `data=demo/count` from the group data/demo, but lists, completes and globs by the group data.
            for group, option in ((f"data/{name}", task.name), ("data", f"{name}/{task.name}")):
                store.store(group=group, name=option, node={"defaults": [*chosen, recipe], **node}, package="data")


def sweep(
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
        nodes = {m: compose("train", overrides=[f"method={m}", f"data={tasks[0]}", *overrides]).method for m in methods}
    kept = [o for o in overrides if o.lstrip("+~").split("=")[0] not in CELL and not o.startswith("logger")]
    cells: list[tuple[dict[str, Any], list[str]]] = []
    for task in tasks:
        for method in methods:
            config = by_task[task].copy()
            OmegaConf.set_struct(config, False)
            config.method = nodes[method]
            plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
            cells += [({**plain, "seed": seed}, kept) for seed in seeds]
    return cells


def settings() -> list[str]:
    """Return the overrides of the present job that do more than choose its cell."""
    keys_of = {o: o.lstrip("+~").split("=")[0] for o in HydraConfig.get().overrides.task}
    return [o for o, key in keys_of.items() if key not in CELL and not key.startswith("logger")]


def run(main: Callable[[], Any]) -> None:
    """Call a Hydra main function; on an error we foresee print one message and exit with 1 (130 after Ctrl-C)."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hand exceptions to us instead of printing a trace
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(stop("Interrupted: no record was written for the run in flight.", 130))
    except Preempted as stopped:
        sys.exit(stop(f"Told to stop: {stopped}. The same command goes on from there.", 143))
    except COMPOSITION as error:
        sys.exit(stop(explain(error), 1))
    except EXPECTED as error:
        sys.exit(stop(str(error), 1))


def stop(message: str, code: int) -> int:
    """Print why the program ends and return its exit code."""
    sys.stderr.write(f"Error: {message}\n")
    return code


def explain(error: Exception) -> str:
    """Return Hydra's message, with the nearest names where a choice or a key is unknown."""
    text = str(error).strip()
    cause = error.__cause__ or error.__context__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        text = text.split("\nConfig search path:")[0].strip()
        return text + nearest(error.missing_cfg_file.partition("/")[2], error.options or [])
    key = re.search(r"Could not override '([^']+)'", text)
    if key is not None:
        return text + nearest(key.group(1), list(keys(default_config())))
    return text if cause is None or str(cause) in text else f"{text}\n{cause}"


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a sentence with the names most like `name`, or nothing."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"\nDid you mean {' or '.join(near)}?" if near else ""


def default_config() -> Mapping[str, Any]:
    """Compose the configuration without overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        plain: Mapping[str, Any] = OmegaConf.to_container(compose("train"), resolve=False)  # type: ignore[assignment]
    return plain


def keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys."""
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from keys(value, f"{prefix}{key}.")
