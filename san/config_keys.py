"""Which keys a configuration has.

One that nothing reads would be swallowed, so it is refused; so is one that is missing.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from san.errors import InvalidValueError, choose
from san.installation import command
from san.methods import discover_methods
from san.tasks import load_suite
from san.training.recipe import Recipe

RECIPE_KEYS = tuple(field.name for field in fields(Recipe) if field.name != "schedule")
# What the groups cannot be without; the rest has defaults, or is checked where its values are.
_REQUIRED_OF_GROUP: Mapping[str, Sequence[str]] = {
    "augment": ("name",),
    "backbone": ("timm_name", "kwargs", "weights", "normalize"),
    "data": ("suite", "resize", "normalize"),
    "logger": ("name", "log_adapter"),
    "method": ("name",),
    "protocol": ("name",),
    "recipe": ("name",),
    "schedule": (),
}
# Keys of the groups that no dataclass checks.
_KNOWN_OF_GROUP: Mapping[str, Sequence[str]] = {
    "data": ("suite", "task", "root", "resize", "normalize"),
    "logger": ("name", "log_adapter", "project"),
    "recipe": ("name", "source", "trials", "search", "folder", "rows", "row", "base", *RECIPE_KEYS),
}
_KNOWN = (
    *RECIPE_KEYS,
    *_REQUIRED_OF_GROUP,
    "adapter_checkpoint",
    "allow_unverified_data",
    "compile",
    "data_root",
    "deterministic",
    "device",
    "force",
    "max_hours",
    "num_workers",
    "results_dir",
    "save_adapter",
    "seed",
)


def check_keys(config: Mapping[str, Any]) -> None:
    """Raise UnknownNameError, with the nearest names, on a key that nothing reads.

    The keys of the groups that are not looked at here are checked where their values are. Raises
    InvalidValueError as `check_required` does.
    """
    check_required(config)
    for key in config:
        choose(key, _KNOWN, "setting")
    for group, known in _KNOWN_OF_GROUP.items():
        dotted = [f"{group}.{key}" for key in known]
        for key in config[group]:
            choose(f"{group}.{key}", dotted, "setting")
    for by_method in ("lr", "trials"):
        values = config["recipe"].get(by_method)
        if isinstance(values, Mapping):
            known = [f"recipe.{by_method}.{name}" for name in (*discover_methods(), "default")]
            for method in values:
                choose(f"recipe.{by_method}.{method}", known, "setting")


def check_required(config: Mapping[str, Any]) -> None:
    """Raise InvalidValueError on a key that is missing, before anything looks for it.

    config: also one with interpolations.
    """
    for key in _KNOWN:
        if key not in config:
            raise _missing("The configuration", key, key)
    for group, keys in _REQUIRED_OF_GROUP.items():
        part = config[group]
        if not isinstance(part, Mapping):
            raise InvalidValueError(f"{group} came as {part!r}; allowed: {group}=NAME, a choice.")
        for key in keys:
            if part.get(key) is None:
                raise _missing(group, key, f"{group}.{key}")
    if "task" not in config["data"]:  # null is the first one
        raise _missing("data", "task", "data.task")


def _missing(where: str, key: str, dotted: str) -> InvalidValueError:
    return InvalidValueError(
        f"{where} has no `{key}`; it is required. Leave out ~{dotted} or {dotted}=null; "
        f"in a file of your own give `{key}` a value."
    )


def check_recipe(config: Mapping[str, Any]) -> None:
    """Raise InvalidValueError where nothing was tuned for the cell of a run.

    Its values would be the default ones under another name.
    """
    recipe = config["recipe"]
    if recipe.get("search") is None or recipe.get("row") is not None:
        return
    data = config["data"]
    method = config["method"]["name"]
    words = ["--methods", method, "--search", recipe["search"]]
    words += ["--backbone", config["backbone"]["name"]]
    if load_suite(data["suite"]).is_own_images:
        words += [f"data.root={data['root']}", f"data.task={data['task']}"]
    else:
        words += ["--tasks", data["task"]]
    raise InvalidValueError(
        f"{recipe['rows']} has no values of {method}, with its options, for {data['suite']}/"
        f"{data['task']}. Search them: {command('search')} {data['suite']} {shlex.join(words)}"
    )


def recipe_gap(config: Mapping[str, Any]) -> str | None:
    """Return, in words, that a paper's recipe has nothing to say of the cell of a run, or None."""
    recipe = config["recipe"]
    if recipe.get("rows") is None or recipe.get("row") is not None:
        return None
    data = config["data"]
    base = (recipe.get("base") or {}).get("name", recipe["name"])
    return (
        f"{recipe['rows']} has no row of {config['method']['name']} for {data['suite']}/"
        f"{data['task']} and {config['backbone']['name']}; the values are those of recipe {base}."
    )
