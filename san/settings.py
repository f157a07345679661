"""Settings by value: in what a run departs from the default composition of its suite.

A row of a table is named by these values, never by the characters that somebody typed.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# What names a row, beside method, protocol and backbone. Left out are task and seed (a row has all
# of them), precision (a mark says where runs of a row differ in it), and what says how a value came
# about (`recipe`) or how a run is carried out (`results_dir`).
_COMPARED = (
    "adapter_checkpoint",
    "batch_size",
    "betas",
    "clip_grad",
    "drop_last",
    "drop_path",
    "ema_decay",
    "epochs",
    "eval_batch_size",
    "head_init",
    "head_lr",
    "label_smoothing",
    "layer_decay",
    "lr",
    "momentum",
    "optimizer",
    "warmup_epochs",
    "weight_decay",
    "weight_decay_on",
)
_COMPARED_OF_GROUP: Mapping[str, Sequence[str] | None] = {  # None: all but the name
    "augment": None,
    "backbone": ("kwargs", "sha256", "timm_name", "weights"),
    "data": ("normalize", "resize"),
    "method": None,
    "protocol": None,
    "schedule": None,
}
# What a recorded configuration must have to name its cell of a table.
_CELL_KEYS: Mapping[str, Mapping[str, type]] = {
    "backbone": {"name": str, "timm_name": str, "weights": str, "kwargs": Mapping},
    "data": {"suite": str, "task": str},
    "method": {"name": str},
    "protocol": {"name": str},
}
_KWARGS = "backbone.kwargs."
_NOT_FILES = ("timm", "random")  # values of backbone.weights
_HASH_DIGITS = 6  # of the weights in the name of a row
_WEIGHTS = ("backbone.weights", "backbone.sha256")
RESTORED = "restored"  # stands for `adapter_checkpoint=FILE`: which file, the identity knows
_EXACT_AS_FLOAT = 2**53  # the largest integer up to which a float has all of them
_PLAIN_TEXT = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:@%+-]*")
_RESERVED = ("null", "true", "false", "nan", "inf")


class Base(NamedTuple):
    """What the configuration of a run is compared with.

    config: the resolved default composition of its suite, method, backbone and protocol, after
    `overrides`, by key: choices of whole groups, such as `augment=ssf`.
    """

    config: Mapping[str, Any]
    overrides: Mapping[str, str] = {}


class RunConfig(NamedTuple):
    """The resolved configuration of a run, and what it is compared with."""

    config: dict[str, Any]
    base: Base


def departures(config: Mapping[str, Any], base: Base) -> dict[str, str]:
    """Return the overrides, by key, that make the default composition into `config`.

    config: resolved, in current words. Equal values give equal texts (1 and 1.0 too, but for keys
    that the default lacks, whose type is not known). A key that it lacks has its
    default, as it was recorded before that key was introduced; only the free-form keys of
    `backbone.kwargs` can be removed.
    """
    settings = dict(_leaves(config))
    usual = dict(_leaves(base.config))
    changed = dict(base.overrides)
    for key, value in settings.items():
        if key not in usual:
            changed[key] = f"+{key}={override_value(value)}"
        elif usual[key] != value:
            changed[key] = f"{key}={override_value(_as_typed(value, usual[key]))}"
    for key in usual.keys() - settings.keys():
        if key.startswith(_KWARGS):
            changed[key] = f"~{key}"
    if _have_same_weights(settings, usual):
        for key in _WEIGHTS:
            changed.pop(key, None)
    # The pre-training's own normalization; a shipped configuration spells it out.
    if settings.get("data.normalize") == "timm":
        changed.pop("data.normalize", None)
    return dict(sorted(changed.items()))


def of_group(overrides: Mapping[str, Any], group: str) -> list[str]:
    """Return the keys of `departures` that a choice of `augment` or `recipe` may take back."""
    if group == "recipe":
        return [key for key in overrides if key in _COMPARED and key != "adapter_checkpoint"]
    return [key for key in overrides if key.startswith(f"{group}.")]


def names_a_cell(config: Mapping[str, Any]) -> bool:
    """Return whether a recorded configuration has what names a cell; one made by hand may not."""
    for group, keys in _CELL_KEYS.items():
        part = config.get(group)
        if not isinstance(part, Mapping):
            return False
        if not all(isinstance(part.get(key), kind) for key, kind in keys.items()):
            return False
    return True


def compared_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration decides on its row, with the names of its groups."""
    groups = {group: config[group] for group in _COMPARED_OF_GROUP if group in config}
    recipe = config.get("recipe")
    if isinstance(recipe, Mapping) and recipe.get("rows") is not None:
        groups["recipe"] = recipe
    return groups | {key: config[key] for key in _COMPARED if key in config}


def join_overrides(overrides: Mapping[str, str], weights: str = "") -> str:
    """Return what `departures` returned as one text, as a shell takes it.

    Paths are left out, as a file has another one elsewhere: an adapter that was restored is called
    so, and which file it is, the identity knows. Weights go by the name of their file and,
    where it is known, by the hash of what was loaded (weights: as in a record), as two files may
    have one name: `backbone.weights=tiny.safetensors@1a2b3c`.
    """
    words = dict(overrides)
    if "adapter_checkpoint" in words:
        words["adapter_checkpoint"] = RESTORED
    if "recipe.rows" in words:
        words["recipe.rows"] = f"recipe.rows={override_value(_file_name(words['recipe.rows']))}"
    if "backbone.weights" in words:
        key = words["backbone.weights"].partition("=")[0]
        name = _file_name(words["backbone.weights"])
        if weights and name not in _NOT_FILES:
            name += f"@{weights[:_HASH_DIGITS]}"
        words["backbone.weights"] = f"{key}={override_value(name)}"
    return shlex.join(words.values())


def _file_name(word: str) -> str:
    """Return the last part of the path that an override gives."""
    return word.partition("=")[2].strip("'").split("/")[-1]


def shorten_variant(variant: str) -> str:
    """Return what `join_overrides` returned as a row shows it: `rank=16` for `method.rank=16`.

    A recipe stands for itself: `tuned` for `recipe=tuned`.
    """
    words = []
    for word in split_variant(variant):
        words.append(word.lstrip("+").removeprefix("method.").removeprefix("recipe="))
    return " ".join(words)


def split_variant(variant: str) -> list[str]:
    """Return the overrides that `join_overrides` joined."""
    try:
        return shlex.split(variant)
    except ValueError:  # made by hand, with one quote
        return [variant]


def override_value(value: Any) -> str:
    """Return a value as Hydra's command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        items = [override_value(item) for item in value]
        return f"[{','.join(items)}]"
    if isinstance(value, Mapping):
        pairs = [f"{override_value(key)}:{override_value(item)}" for key, item in value.items()]
        return f"{{{','.join(pairs)}}}"
    text = str(value)
    is_plain = _PLAIN_TEXT.fullmatch(text) and text.lower() not in _RESERVED
    if not isinstance(value, str) or is_plain:
        return text
    # Hydra takes a backslash as it is, unless a quote comes after it.
    escaped = re.sub(r"(\\*)('|$)", _escape, text)
    return f"'{escaped}'"


def _escape(found: re.Match[str]) -> str:
    backslashes, quote = found.groups()
    return 2 * backslashes + (f"\\{quote}" if quote else "")


def _as_typed(value: Any, usual: Any) -> Any:
    """Return a number as a float or whole, as its default is: 1 and 1.0 are one value."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and isinstance(usual, float):
        return float(value) if abs(value) <= _EXACT_AS_FLOAT else value
    if isinstance(value, float) and value.is_integer() and not isinstance(usual, float):
        return int(value)
    return value


def _leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of all settings that may change the number."""
    for key in _COMPARED:
        if key in config:
            yield key, config[key]
    for group, keys in _COMPARED_OF_GROUP.items():
        settings = config.get(group)
        if not isinstance(settings, Mapping):
            continue
        for key, value in settings.items():
            is_known = key != "name" if keys is None else key in keys
            if is_known:
                yield from _flatten(f"{group}.{key}", value)


def _flatten(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, inner in value.items():
        yield from _flatten(f"{key}.{name}", inner)


def _have_same_weights(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> bool:
    """Return whether both start from the same tensors, wherever the file lies."""
    files = [each.get("backbone.weights") for each in (settings, usual)]
    if files[0] == files[1]:
        return True
    if any(name in files for name in _NOT_FILES):
        return False
    hashes = [each.get("backbone.sha256") for each in (settings, usual)]
    return hashes[0] is not None and hashes[0] == hashes[1]
