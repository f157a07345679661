"""The files of `configs/`: the choices that each group offers, and what they say."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from san.errors import choose
from san.installation import CONFIGS


@cache
def choices(group: str) -> tuple[str, ...]:
    """Return the choices that a group of `configs/` offers, such as `method`, sorted."""
    return tuple(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))


@cache
def choices_without_rows(group: str) -> tuple[str, ...]:
    """Return the choices of a group, of recipes those whose values are the same for all tasks."""
    return tuple(name for name in choices(group) if "rows" not in read_choice(group, name))


@cache
def read_choice(group: str, choice: str) -> dict[str, Any]:
    """Return a file of `configs/`, with those of its group that it builds on, without Hydra."""
    node: Any = OmegaConf.load(CONFIGS / group / f"{choice}.yaml")
    for name in node.pop("defaults", []):
        if isinstance(name, str) and name != "_self_":
            node = OmegaConf.merge(read_choice(group, name), node)
    plain: Any = OmegaConf.to_container(node)
    return dict(plain)


@cache
def method_node(method: str) -> DictConfig:
    """Return the default configuration of a method; raise UnknownNameError where it has none."""
    choose(method, choices("method"), "method")
    return OmegaConf.create(read_choice("method", method))


def reads_recipe(method: str, option: str) -> bool:
    """Return whether an option of a method has the value that the recipe of a run gives it."""
    words: Any = OmegaConf.to_container(method_node(method), resolve=False)
    return f"${{recipe:method.{option}," in str(words[option])


def compose_file(name: str, words: Sequence[str] = ()) -> DictConfig:
    """Compose a file of `configs/` with overrides."""
    outer = GlobalHydra.instance().hydra  # of train.py, or of a caller of the library
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose(name, overrides=list(words))
    finally:
        GlobalHydra.instance().hydra = outer
