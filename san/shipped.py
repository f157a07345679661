"""What `configs/` ships: the choices of each group, and what backbones and protocols are called."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from san import settings
from san.recipes import ROOT

CONFIGS = ROOT / "configs"
_ANY_MODEL = "timm"  # the choice of `backbone` that takes a name of timm


@cache
def choices(group: str) -> tuple[str, ...]:
    """Return the choices that a group of `configs/` offers, such as `method`, sorted."""
    return tuple(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))


@cache
def choices_without_rows(group: str) -> tuple[str, ...]:
    """Return the choices of a group, of recipes those whose values are the same for all tasks."""
    return tuple(name for name in choices(group) if "rows" not in shipped(group, name))


@cache
def shipped(group: str, choice: str) -> dict[str, Any]:
    """Return a file of `configs/`, with those of its group that it builds on, without Hydra."""
    node: Any = OmegaConf.load(CONFIGS / group / f"{choice}.yaml")
    for name in node.pop("defaults", []):
        if isinstance(name, str) and name != "_self_":
            node = OmegaConf.merge(shipped(group, name), node)
    plain: Any = OmegaConf.to_container(node)
    return dict(plain)


@cache
def method_node(method: str) -> DictConfig:
    """Return the default configuration of a method."""
    node: DictConfig = compose_file(f"method/{method}").method
    return node


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


def backbone_name(backbone: Mapping[str, Any]) -> str:
    """Return what a backbone is called: a shipped configuration's name, or else timm's.

    It has the shipped name if it is called so and is that architecture, whatever its other settings
    are; or if it is that configuration, whatever it is called.
    """
    timm_name = str(backbone["timm_name"])
    same_model = []
    for choice in choices("backbone"):
        if choice != _ANY_MODEL and shipped("backbone", choice)["timm_name"] == timm_name:
            same_model.append(choice)
    if backbone.get("name") in same_model:
        return str(backbone["name"])
    for choice in same_model:
        own = shipped("backbone", choice)
        if all(own[key] == backbone[key] for key in ("kwargs", "weights")):
            return choice
    return timm_name


def backbone_words(name: str) -> list[str]:
    """Return the overrides that choose a backbone by the name that `backbone_name` gives it."""
    if name in choices("backbone"):
        return [f"backbone={name}"]
    return [f"backbone={_ANY_MODEL}", f"backbone.name={settings.override_value(name)}"]


def protocol_name(protocol: Mapping[str, Any]) -> str:
    """Return the shipped protocol with the same values, or else the protocol's own name.

    Of several, which differ in what a protocol says beside its own group, it is the one so called,
    or else the one that says nothing else.
    """
    own = str(protocol["name"])
    same = {}
    for choice in choices("protocol"):
        file = shipped("protocol", choice)
        if file.get("protocol", file) == {**protocol, "name": choice}:
            same[choice] = "protocol" not in file
    if own in same:
        return own
    return next((choice for choice, says_no_more in same.items() if says_no_more), own)


def protocol_words(name: str) -> list[str]:
    """Return the override that chooses a protocol; none if it is not a shipped one."""
    return [f"protocol={name}"] if name in choices("protocol") else []
