"""What backbones and protocols are called by their values, and the overrides that choose them."""

from collections.abc import Mapping
from typing import Any

from san import settings
from san.config_files import choices, read_choice
from san.tasks import load_suite

_ANY_MODEL = "timm"  # the choice of `backbone` that takes a name of timm


def backbone_name(backbone: Mapping[str, Any]) -> str:
    """Return what a backbone is called: a shipped configuration's name, or else timm's.

    It has the shipped name if it is called so and is that architecture, whatever its other settings
    are; or if it is that configuration, whatever it is called.
    """
    timm_name = str(backbone["timm_name"])
    same_model = []
    for choice in choices("backbone"):
        if choice != _ANY_MODEL and read_choice("backbone", choice)["timm_name"] == timm_name:
            same_model.append(choice)
    if backbone.get("name") in same_model:
        return str(backbone["name"])
    for choice in same_model:
        own = read_choice("backbone", choice)
        if all(own[key] == backbone[key] for key in ("kwargs", "weights")):
            return choice
    return timm_name


def task_words(suite: str, task: str | None, root: str | None = None) -> list[str]:
    """Return the overrides that choose a task; root: the folder, where it is of own images."""
    if not load_suite(suite).is_own_images:
        return [f"data={suite}/{task}"]
    words = [f"data={suite}"]
    if root is not None:
        words.append(f"data.root={settings.override_value(root)}")
    if task is not None:
        words.append(f"data.task={settings.override_value(task)}")
    return words


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
        file = read_choice("protocol", choice)
        if file.get("protocol", file) == {**protocol, "name": choice}:
            same[choice] = "protocol" not in file
    if own in same:
        return own
    return next((choice for choice, says_no_more in same.items() if says_no_more), own)


def protocol_words(name: str) -> list[str]:
    """Return the override that chooses a protocol; none if it is not a shipped one."""
    return [f"protocol={name}"] if name in choices("protocol") else []
