"""Hydra's side: tasks as choices of `data=`, runs composed, and the defaults they depart from.

Also what a recorded run is called by its values, and the overrides that repeat it.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from msgspec.structs import replace
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from san import settings
from san.errors import InvalidValueError
from san.record import Record
from san.renamed_keys import current_config, current_words
from san.settings import Base, RunConfig
from san.tasks import Suite, Task, load_suite, suite_names

CONFIGS = Path(__file__).parents[1] / "configs"
_CHOSEN_BY_SWEEP = {"data": "--tasks", "method": "--methods", "seed": "--seeds"}
_ANY_MODEL = "timm"  # the choice of `backbone` that takes a name of timm


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
    return list(_choices(group))


def compose_grid(
    tasks: Sequence[str], methods: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]
) -> list[RunConfig]:
    """Return the runs of tasks (`vtab/cifar`) x methods x seeds.

    Hydra composes each task and each method once; a method's configuration is a node of its own,
    so they combine, and thousands of runs take seconds. Raises InvalidValueError on an override
    that chooses one task, method or seed, which would be swallowed.
    """
    register_tasks()
    words = current_words(overrides, methods)
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key in _CHOSEN_BY_SWEEP:
            option = _CHOSEN_BY_SWEEP[key]
            raise InvalidValueError(f"{word} is one run's setting; {option} says which runs.")
    one_method = f"method={methods[0]}"  # words may be options that not every method has
    by_task = {task: _compose([one_method, f"data={task}", *words]) for task in tasks}
    by_method = {method: _method_node(method) for method in methods}
    if any(word.lstrip("+~").startswith("method.") for word in words):
        for method in methods:
            chosen = [f"method={method}", f"data={tasks[0]}", *words]
            by_method[method] = _compose(chosen).method
    runs: list[RunConfig] = []
    for task in tasks:
        for method in methods:
            node = by_task[task].copy()
            node.method = by_method[method]
            config, base = resolve(node)
            runs += [RunConfig({**config, "seed": seed}, base) for seed in seeds]
    return runs


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
    name = _backbone_name(backbone)
    said = backbone.get("name")
    if said is not None and said not in (name, backbone["timm_name"]):
        raise InvalidValueError(
            f"backbone.name is '{said}', but what is built is {name}. "
            f"For {said} give {shlex.join(backbone_words(said))}, "
            f"for {name} {shlex.join(backbone_words(name))}. "
            f"In a file of your own write `name: {name}`."
        )
    backbone["name"] = name
    plain["protocol"]["name"] = _protocol_name(plain["protocol"])
    return RunConfig(plain, _base_of(plain))


def named_by_value(record: Record) -> Record:
    """Return a record whose backbone, protocol and variant say what its configuration says.

    A record made by hand, or of a suite, task or method that is not known here, stays as it is.
    """
    config = _config_of(record)
    if config is None:
        return record
    return replace(
        record,
        backbone=config["backbone"]["name"],
        protocol=config["protocol"]["name"],
        variant=_variant_of(json.dumps(settings.compared_part(config)), record.weights),
    )


def rerun_words(record: Record, seeds: Sequence[int] = ()) -> list[str]:
    """Return the overrides with which train.py repeats a run, without the user's own files.

    record: as `named_by_value` returns it. seeds: others than its own, of a sweep.
    """
    words = [f"method={record.method}", f"data={record.suite}/{record.task}"]
    words.append(f"seed={','.join(map(str, seeds or [record.seed]))}")
    if record.backbone != load_suite(record.suite).backbone:
        words += backbone_words(record.backbone)
    words += _protocol_words(record.protocol) or [
        f"protocol.name={settings.override_value(record.protocol)}"
    ]
    words.append(f"precision={record.config.get('precision', 'auto')}")
    config = _config_of(record)
    if config is None:
        typed = settings.split_variant(record.variant)
        words += current_words(typed, [record.method], warn=False)
        if settings.RESTORED in words:
            adapter = settings.override_value(record.config.get("restore"))
            words[words.index(settings.RESTORED)] = f"adapter_checkpoint={adapter}"
    else:
        words += settings.departures(config, _base_of(config)).values()
    if record.data.forced:
        words.append("allow_unverified_data=true")
    return words


def compose_config(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a run without running it; interpolations stay."""
    return _compose_file("train", current_words(overrides))


def _compose_file(name: str, words: Sequence[str] = ()) -> DictConfig:
    """Compose a file of `configs/` with overrides."""
    outer = GlobalHydra.instance().hydra  # of train.py, or of a caller of the library
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose(name, overrides=list(words))
    finally:
        GlobalHydra.instance().hydra = outer


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
    return dict(plain)


def _base_of(config: Mapping[str, Any]) -> Base:
    """Return the default composition of a run, with the recipe and augmentation nearest to it.

    The default is that of its suite, method, backbone and protocol by their names, and of its task
    where that has a recipe of its own.
    """
    method = config["method"]["name"]
    words = _cell_words(config)
    base = Base(_composed(method, words))
    changed = settings.departures(config, base)
    for group in ("augment", "recipe", "schedule"):
        # One departure cannot be said in fewer words.
        if len(settings.of_group(changed, group)) < 2:
            continue
        chosen = dict(base.overrides)
        for choice in _choices(group):
            overrides = {**chosen, group: f"{group}={choice}"}
            other = Base(_composed(method, (*words, *overrides.values())), overrides)
            count = len(settings.departures(config, other))
            if count < len(changed):
                base = other
                changed = settings.departures(config, base)
    return base


def _cell_words(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the overrides that choose suite, task, backbone and protocol of a run.

    The task is the first of its suite with the same default composition.
    """
    data = config["data"]
    words = ["data=folder", "data.root=."]
    if data["suite"] in suite_names():
        suite = load_suite(data["suite"])
        words = [f"data={suite.name}/{_representative(suite, suite.task(data['task']))}"]
    words += backbone_words(config["backbone"]["name"])
    words += _protocol_words(config["protocol"]["name"])
    return tuple(words)


@cache
def _choices(group: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))


@cache
def _composed(method: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Return the resolved composition of a method with overrides of anything else."""
    config = _composed_node(words).copy()
    config.method = _method_node(method)
    return _to_plain(config)


@cache
def _composed_node(words: tuple[str, ...]) -> DictConfig:
    register_tasks()
    return compose_config(words)


@cache
def _method_node(method: str) -> DictConfig:
    """Return the default configuration of a method."""
    node: DictConfig = _compose_file(f"method/{method}").method
    return node


def _representative(suite: Suite, task: Task) -> str:
    """Return the first task of the suite whose default composition is that of `task`."""
    return next(each.name for each in suite.tasks.values() if each.recipe == task.recipe)


@cache
def _variant_of(config: str, weights: str) -> str:
    """Return the variant of a configuration (as JSON): many records of a table share it."""
    plain = json.loads(config)
    return settings.join_overrides(settings.departures(plain, _base_of(plain)), weights)


def _config_of(record: Record) -> dict[str, Any] | None:
    """Return a recorded configuration in current words and names, None if it is not a whole one."""
    config = current_config(record.config, warn=False)
    if not settings.names_a_cell(config) or not _is_known(config["data"], config["method"]["name"]):
        return None
    config["backbone"]["name"] = _backbone_name(config["backbone"])
    config["protocol"]["name"] = _protocol_name(config["protocol"])
    return config


def _is_known(data: Mapping[str, Any], method: str) -> bool:
    """Return whether suite, task and method of a record are still there."""
    if method not in _choices("method") or data["suite"] not in suite_names():
        return False
    return data["task"] in load_suite(data["suite"]).tasks


def backbone_words(name: str) -> list[str]:
    """Return the overrides that choose a backbone by the name that `_backbone_name` gives it."""
    if name in _choices("backbone"):
        return [f"backbone={name}"]
    return [f"backbone={_ANY_MODEL}", f"backbone.name={settings.override_value(name)}"]


def _protocol_words(name: str) -> list[str]:
    """Return the override that chooses a protocol; none if it is not a shipped one."""
    return [f"protocol={name}"] if name in _choices("protocol") else []


def _backbone_name(backbone: Mapping[str, Any]) -> str:
    """Return what a backbone is called: a shipped configuration's name, or else timm's.

    It has the shipped name if it is called so and is that architecture, whatever its other settings
    are; or if it is that configuration, whatever it is called.
    """
    timm_name = str(backbone["timm_name"])
    same_model = []
    for choice in _choices("backbone"):
        if choice != _ANY_MODEL and _shipped("backbone", choice)["timm_name"] == timm_name:
            same_model.append(choice)
    if backbone.get("name") in same_model:
        return str(backbone["name"])
    for choice in same_model:
        shipped = _shipped("backbone", choice)
        if all(shipped[key] == backbone[key] for key in ("kwargs", "weights")):
            return choice
    return timm_name


def _protocol_name(protocol: Mapping[str, Any]) -> str:
    """Return the shipped protocol with the same values, or else the protocol's own name."""
    for choice in _choices("protocol"):
        if _shipped("protocol", choice) == {**protocol, "name": choice}:
            return choice
    return str(protocol["name"])


@cache
def _shipped(group: str, choice: str) -> dict[str, Any]:
    """Return a file of `configs/` as it is, without composing it."""
    plain: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{choice}.yaml"))
    return dict(plain)
