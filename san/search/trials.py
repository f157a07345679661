"""The runs of a search: each run of a sweep once for every point of the space."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from san import config_files
from san.config_keys import RECIPE_KEYS
from san.errors import InvalidValueError, choose
from san.search.space import Search, Values
from san.settings import RunConfig

FOLDER = "search"  # of the records of trials, below the directory of results


def trial_runs(configs: Sequence[RunConfig], search: Search) -> list[RunConfig]:
    """Return a run for each configuration and point, whose records lie in a folder of their own.

    configs: of the protocol that does not read the test split. Raises UnknownNameError on a setting
    that is none of a recipe or method, InvalidValueError on one that all runs were given.
    """
    runs = []
    for run in configs:
        for point in search.points(run.config["method"]["name"]):
            runs.append(RunConfig(_with_values(run, point), run.base))
    return runs


def _with_values(run: RunConfig, point: Values) -> dict[str, Any]:
    """Return a configuration with the values of a point."""
    method = dict(run.config["method"])
    results_dir = Path(run.config["results_dir"]) / FOLDER
    config = {**run.config, "method": method, "results_dir": str(results_dir)}
    for key, value in point.items():
        group, _, option = key.rpartition(".")
        if group == "method":
            choose(key, [f"method.{name}" for name in method], "searched setting")
            _check_is_read(method["name"], option)
            method[option] = value
        else:
            choose(key, RECIPE_KEYS, "searched setting")
            config[key] = value
    return config


def _check_is_read(method: str, option: str) -> None:
    """Raise InvalidValueError for an option whose best value no recipe could give to a run."""
    if not config_files.reads_recipe(method, option):
        raise InvalidValueError(
            f"method.{option} of {method} came as a searched setting, but recipe=tuned would not "
            f"give it what is found. Write `{option}: ${{recipe:method.{option},DEFAULT}}` in "
            f"configs/method/{method}.yaml."
        )


def refuse_searched(methods: Sequence[str], overrides: Sequence[str], search: Search) -> None:
    """Raise InvalidValueError where an override sets what is searched: it would be swallowed.

    methods: with their options, as `lora:rank=4`.
    """
    for method in methods:
        name, *options = method.split(":")
        words = [f"method.{option}" for option in options]
        _refuse({*search.additions.get(name, {})}, words)
    searched = {*search.space}
    for added in search.additions.values():
        searched |= {*added}
    _refuse(searched, overrides)


def _refuse(searched: Set[str], overrides: Sequence[str]) -> None:
    for word in overrides:
        key = word.lstrip("+~").partition("=")[0]
        if key in searched or key == "protocol" or word == "recipe=tuned":
            raise InvalidValueError(
                f"{word} came beside a search, which tries values of {', '.join(sorted(searched))} "
                "under protocol=tune. Leave it out."
            )


def tried_values(config: Mapping[str, Any], search: Search) -> dict[str, Any]:
    """Return the values of a trial, by the settings that are searched for its method."""
    method = config["method"]
    values = {}
    for key in (*search.space, *search.additions.get(method["name"], {})):
        group, _, option = key.rpartition(".")
        values[key] = method[option] if group == "method" else config[key]
    return values
