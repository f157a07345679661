"""Which keys a configuration has: one that nothing reads would be swallowed, so it is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from san.errors import choose
from san.methods import discover_methods
from san.schema import check_value
from san.training.recipe import Recipe

RECIPE_KEYS = tuple(field.name for field in fields(Recipe))
_GROUPS = ("augment", "backbone", "data", "logger", "method", "protocol", "recipe")
# Keys of the groups that no dataclass checks.
_KNOWN_OF_GROUP: Mapping[str, Sequence[str]] = {
    "data": ("suite", "task", "root", "resize", "normalize"),
    "logger": ("name", "log_adapter"),
    "recipe": ("name", "source", *RECIPE_KEYS),
}
_KNOWN = (
    *RECIPE_KEYS,
    *_GROUPS,
    "adapter_checkpoint",
    "allow_unverified_data",
    "data_root",
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

    The keys of the groups that are not looked at here are checked where their values are.
    """
    for key in config:
        choose(key, _KNOWN, "setting")
    for group, known in _KNOWN_OF_GROUP.items():
        dotted = [f"{group}.{key}" for key in known]
        for key in config[group]:
            choose(f"{group}.{key}", dotted, "setting")
    check_value(config["recipe"]["lr"], dict[str, Any], "recipe.lr")
    rates = [f"recipe.lr.{name}" for name in (*discover_methods(), "default")]
    for method in config["recipe"]["lr"]:
        choose(f"recipe.lr.{method}", rates, "setting")
