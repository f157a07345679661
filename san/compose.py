"""Hydra's side: tasks as choices of `data=`, runs composed, and the defaults they depart from."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError

from san import settings
from san.config_files import choices, choices_without_rows, compose_file, method_node, read_choice
from san.config_names import (
    backbone_name,
    backbone_words,
    protocol_name,
    protocol_words,
    task_words,
)
from san.errors import InvalidValueError, SanError
from san.recipe_resolvers import register_resolvers
from san.renamed_keys import current_config, current_words
from san.schema import check_value
from san.settings import Base, RunConfig
from san.tasks import OWN_IMAGES, Suite, Task, load_suite, suite_names

_CHOSEN_BY_SWEEP = {"data": "--tasks", "method": "--methods", "seed": "--seeds"}


def register() -> None:
    """Tell Hydra what stands in no file of `configs/`: tasks, and what recipes say of a task.

    Every row of benchmarks/*.yaml is a choice `data=<suite>/<task>`, which brings the backbone,
    recipe and augmentation of its suite along.
    """
    # Hydra copies the store, with all tasks, in every composition, which takes a third of its time.
    # It never changes what is stored, so that one store will do.
    ConfigStore.__deepcopy__ = lambda store, _memo: store  # type: ignore[attr-defined]
    for name in suite_names():
        suite = load_suite(name)
        if suite.is_own_images:
            _register_own_images(suite)
        for task in suite.tasks.values():
            _register_task(suite, task)
    register_resolvers()


def _register_own_images(suite: Suite) -> None:
    """Store the choice `data=folder`, whose folder is `data.root`; `data.task` may name it."""
    node = {**_data_node(suite, suite.recipe), "root": "???", "task": None}
    ConfigStore.instance().store(group="data", name=suite.name, node=node, package="data")


def _data_node(suite: Suite, recipe: str) -> dict[str, Any]:
    """Return what all tasks of a suite with a recipe have in common."""
    return {
        "defaults": [
            {"override /backbone@_global_.backbone": suite.backbone},
            {"override /augment@_global_.augment": suite.augment},
            {"override /recipe@_global_.recipe": recipe},
        ],
        "suite": suite.name,
        "resize": suite.resize,
        "normalize": "${backbone.normalize}",
    }


def _register_task(suite: Suite, task: Task) -> None:
    node = {**_data_node(suite, task.recipe or suite.recipe), "task": task.name}
    store = ConfigStore.instance()
    # Hydra loads `data=demo/count` from the group data/demo, but lists, completes and globs by
    # the group data.
    store.store(group=f"data/{suite.name}", name=task.name, node=node, package="data")
    store.store(group="data", name=f"{suite.name}/{task.name}", node=node, package="data")


def compose_grid(
    tasks: Sequence[str], methods: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]
) -> list[RunConfig]:
    """Return the runs of tasks (`vtab/cifar`) x methods x seeds.

    methods: by name, or with options: `san:propagation=off:train_norms=false`. Hydra composes each
    task and each method once; a method's configuration is a node of its own,
    so they combine, and thousands of runs take seconds. Raises InvalidValueError on an override
    that chooses one task, method or seed, which would be swallowed.
    """
    register()
    names = [method.partition(":")[0] for method in methods]
    words = current_words(overrides, names)
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key in _CHOSEN_BY_SWEEP:
            option = _CHOSEN_BY_SWEEP[key]
            raise InvalidValueError(f"{word} is one run's setting; {option} says which runs.")
    by_method = {method: _grid_method(method, tasks[0], words) for method in methods}
    resolved: dict[tuple[str, str], RunConfig] = {}
    for alike in _alike(tasks):
        # Words may be options that not every method has.
        node = _compose([f"method={names[0]}", *_words_of(alike[0]), *words])
        for method in methods:
            node.method = by_method[method]
            for task, run in zip(alike, _resolve_alike(node, alike), strict=True):
                resolved[task, method] = run
    runs: list[RunConfig] = []
    for task in tasks:
        for method in methods:
            config, base = resolved[task, method]
            runs += [RunConfig({**config, "seed": seed}, base) for seed in seeds]
    return runs


def own_images(overrides: Sequence[str]) -> tuple[str, str | None]:
    """Return the folder of own images that overrides choose, and the name that they give it.

    Raises InvalidValueError where they choose no folder.
    """
    register()
    composed = compose_config([*_words_of(OWN_IMAGES), *overrides])
    if OmegaConf.is_missing(composed.data, "root"):
        raise InvalidValueError(
            f"No folder of {OWN_IMAGES} was given; give data.root=FOLDER, with FOLDER/CLASS/*.jpg."
        )
    data = _to_plain(composed)["data"]
    for key, kind in {"root": str, "task": str | None}.items():
        check_value(data[key], kind, f"data.{key}")
    return data["root"], data["task"]


def _words_of(task: str) -> list[str]:
    """Return the overrides that choose a task called `vtab/cifar`."""
    suite, _, name = task.partition("/")
    return task_words(suite, name or None)


def _alike(tasks: Sequence[str]) -> list[list[str]]:
    """Return tasks (`vtab/cifar`) by what they are composed alike with: suite and recipe."""
    groups: dict[tuple[str, str | None], list[str]] = {}
    for name in tasks:
        suite, _, task = name.partition("/")
        found = load_suite(suite)
        recipe = None if found.is_own_images else found.task(task).recipe
        groups.setdefault((suite, recipe), []).append(name)
    return list(groups.values())


def _resolve_alike(node: DictConfig, tasks: Sequence[str]) -> list[RunConfig]:
    """Return the runs of tasks whose configurations are those of the first, but for the name.

    A recipe with rows, and whatever else depends on the task, is resolved for each.
    """
    names = [task.partition("/")[2] for task in tasks]
    runs = []
    written = OmegaConf.to_yaml(node)
    if "data.task" in written or "recipe_row" in written:
        for name in names:
            node.data.task = name
            runs.append(resolve(node))
        return runs
    config, base = resolve(node)
    for name in names:
        data = {**config["data"], "task": name}
        runs.append(RunConfig({**config, "data": data}, base))
    return runs


def _grid_method(method: str, task: str, words: Sequence[str]) -> DictConfig:
    """Return the configuration of a method of a grid, with its options and those of all runs."""
    name, *options = method.split(":")
    # Settings take keys that they do not have.
    own = [re.sub(r"^method\.settings\.", r"++\g<0>", f"method.{option}") for option in options]
    own = current_words(own, [name])
    if not own and not any(word.lstrip("+~").startswith("method.") for word in words):
        return method_node(name)
    node: DictConfig = _compose([f"method={name}", *_words_of(task), *words, *own]).method
    return node


def resolve(config: DictConfig) -> RunConfig:
    """Return a composed configuration as plain dictionaries in current words, with its base.

    Backbone and protocol are called by what they are. Raises InvalidValueError where
    `backbone.name` says something else than what is built, or a key is missing.
    """
    from san.config_keys import check_required  # noqa: PLC0415  (torch is slow; --help needs none)

    current = _in_current_words(config)
    words: Any = OmegaConf.to_container(current, resolve=False)
    check_required(words)
    plain = _to_plain(current)
    backbone = plain["backbone"]
    name = backbone_name(backbone)
    said = backbone.get("name")
    if said is not None and said not in (name, backbone["timm_name"]):
        raise InvalidValueError(
            f"backbone.name is '{said}', but what is built is {name}. "
            f"For {said} give {shlex.join(backbone_words(said))}, "
            f"for {name} {shlex.join(backbone_words(name))}. "
            f"In a file of your own write `name: {name}`."
        )
    backbone["name"] = name
    plain["protocol"]["name"] = protocol_name(plain["protocol"])
    return RunConfig(plain, base_of(plain))


def compose_config(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a run without running it; interpolations stay."""
    return compose_file("train", current_words(overrides))


def _compose(overrides: Sequence[str]) -> DictConfig:
    return _in_current_words(compose_config(overrides))


def _in_current_words(config: DictConfig) -> DictConfig:
    """Rename old keys, which a user's own files may have, before interpolations look for them."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return OmegaConf.create(current_config(plain))


def _to_plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except InterpolationKeyError as error:
        missing = str(error).partition("'")[2].partition("'")[0]
        raise InvalidValueError(
            f"The configuration has no `{missing}`, which is the value of `{error.full_key}`; it "
            f"is required. Leave out ~{missing}, or give {error.full_key}=VALUE."
        ) from error
    except InterpolationResolutionError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, SanError):
            cause = cause.__cause__ or cause.__context__
        raise cause or error from None  # of `${recipe:...}`
    return dict(plain)


def base_of(config: Mapping[str, Any]) -> Base:
    """Return the default composition of a run, with the recipe and augmentation nearest to it.

    The default is that of its suite, method, backbone and protocol by their names, and of its task
    where that has a recipe of its own. A recipe with rows is never guessed from values, as they
    differ by task: it is the one that the run was given, with the row that it had then.
    """
    recipe = config.get("recipe") or {}
    if recipe.get("rows") is None or recipe.get("name") not in choices("recipe"):
        return _nearest_base(config, {}, "", ("augment", "recipe", "schedule"))
    chosen = _recipe_words(recipe, _cell_words(config, of_task=True))
    return _nearest_base(config, chosen, json.dumps(recipe), ("augment", "schedule"))


def _nearest_base(
    config: Mapping[str, Any], chosen: Mapping[str, str], recipe: str, groups: Sequence[str]
) -> Base:
    """Return the base with the choices of groups from which a run departs in the fewest settings.

    chosen: words that choose its recipe, and recipe: that recipe as JSON, where it has rows.
    """
    method = config["method"]["name"]
    words = _cell_words(config, of_task=bool(chosen))
    base = Base(_composed(method, (*words, *chosen.values()), recipe), chosen)
    changed = settings.departures(config, base)
    for group in groups:
        # One departure cannot be said in fewer words.
        if len(settings.of_group(changed, group)) < 2:
            continue
        taken = dict(base.overrides)
        for choice in choices_without_rows(group):
            overrides = {**taken, group: f"{group}={choice}"}
            other = Base(_composed(method, (*words, *overrides.values()), recipe), overrides)
            count = len(settings.departures(config, other))
            if count < len(changed):
                base = other
                changed = settings.departures(config, base)
    return base


def with_recipe(config: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a run's configuration as if it had been given another recipe of the same values.

    recipe: as it was recorded for another cell. Of a recipe with rows it is the row of today; None
    where that has none for the cell. The values of the run stay as they are.
    """
    words = _cell_words(config, of_task=True)
    if recipe.get("rows") is not None and recipe.get("name") in choices("recipe"):
        words = (*words, *_recipe_words(recipe, words).values())
    node = _composed_node(words).copy()
    node.method = config["method"]
    found = _to_plain(node.recipe)
    if found.get("rows") is not None and found["row"] is None:
        return None
    return {**config, "recipe": found}


def _recipe_words(recipe: Mapping[str, Any], cell: Sequence[str]) -> dict[str, str]:
    """Return the overrides, by key, that choose a recipe with rows for a cell (its overrides)."""
    name = recipe["name"]
    words = {"recipe": f"recipe={name}"}
    search = recipe.get("search")
    if search != read_choice("recipe", name).get("search"):
        words["recipe.search"] = f"recipe.search={search}"
    rows = recipe["rows"]
    if rows != _composed_node((*cell, *words.values())).recipe.rows:
        words["recipe.rows"] = f"recipe.rows={settings.override_value(rows)}"
    return words


def _cell_words(config: Mapping[str, Any], of_task: bool) -> tuple[str, ...]:
    """Return the overrides that choose suite, task, backbone and protocol of a run.

    The task is the first of its suite with the same default composition, unless its own matters.
    """
    data = config["data"]
    suite = load_suite(data["suite"])
    task = data["task"]
    if suite.is_own_images:
        task = task if of_task else None
    elif not of_task:
        task = _representative(suite, suite.task(task))
    words = task_words(suite.name, task, root=".")
    words += backbone_words(config["backbone"]["name"])
    words += protocol_words(config["protocol"]["name"])
    return tuple(words)


@cache
def _composed(method: str, words: tuple[str, ...], recipe: str = "") -> dict[str, Any]:
    """Return the resolved composition of a method with overrides of anything else.

    recipe: as JSON, in place of the one that the words choose.
    """
    config = _composed_node(words).copy()
    config.method = method_node(method)
    if recipe:
        config.recipe = json.loads(recipe)
    return _to_plain(config)


@cache
def _composed_node(words: tuple[str, ...]) -> DictConfig:
    register()
    return compose_config(words)


def _representative(suite: Suite, task: Task) -> str:
    """Return the first task of the suite whose default composition is that of `task`."""
    return next(each.name for each in suite.tasks.values() if each.recipe == task.recipe)
