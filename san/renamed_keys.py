"""Old words for configuration keys, options and values, and their current ones.

Command lines, configuration files and saved adapters with the old words still work. Identities and
records keep the old words (record schema 1), so that every experiment that was ever run is found
again.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

# Old dotted key: current dotted key. A key of one dictionary stays in that dictionary, but for
# those of the top level.
KEYS = {
    "results": "results_dir",
    "force_data": "allow_unverified_data",
    "restore": "adapter_checkpoint",
    "workers": "num_workers",
    "smoothing": "label_smoothing",
    "recipe.smoothing": "recipe.label_smoothing",
    "recipe.lr.other": "recipe.lr.default",
    "protocol.every": "protocol.eval_every",
    "logger.artifact": "logger.log_adapter",
    "data.normalise": "data.normalize",
    "backbone.normalise": "backbone.normalize",
    "backbone.timm": "backbone.timm_name",
    "backbone.arguments": "backbone.kwargs",
    "augment.jitter": "augment.color_jitter",
    "augment.policy": "augment.auto_augment",
    "augment.erasing": "augment.random_erasing",
    "method.width": "method.bottleneck_dim",
    "method.std": "method.init_std",
    "method.length": "method.num_prompts",
    "method.place": "method.position",
    "method.norms": "method.train_norms",
    "method.neurons": "method.train_output_scale",
}
# Current dotted key: old value to current value.
VALUES: Mapping[str, Mapping[str, str]] = {
    "data.normalize": {"half": "inception", "unit": "none"},
    "backbone.normalize": {"half": "inception", "unit": "none"},
    "method.position": {"front": "prepend", "end": "append"},
}
_OLD_KEYS = {new: old for old, new in KEYS.items()}
_OLD_VALUES: dict[str, dict[str, str]] = {}
for _key, _values in VALUES.items():
    _OLD_VALUES[_key] = {new: old for old, new in _values.items()}
_warned: set[str] = set()


def current_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration (nested dictionaries) in current words; warn of each old one."""
    return _rename_keys(config, "", warn=True)


def current_options(options: Mapping[str, Any], warn: bool = True) -> dict[str, Any]:
    """Return the options of a method in current words; warn of each old one unless told not to."""
    return _rename_keys(options, "method.", warn)


def current_words(words: Sequence[str], warn: bool = True) -> list[str]:
    """Return overrides as typed on a command line, `key=value`, in current words."""
    return [_current_word(word, warn) for word in words]


def schema_1_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration in the words of record schema 1.

    prefix: where in the configuration it stands, such as `method.`.
    """
    renamed: dict[str, Any] = {}
    for key, value in config.items():
        full_key = prefix + key
        old_key = _leaf(_OLD_KEYS.get(full_key, full_key))
        if isinstance(value, Mapping):
            renamed[old_key] = schema_1_config(value, f"{full_key}.")
        else:
            renamed[old_key] = _rename_value(value, _OLD_VALUES.get(full_key, {}))
    return renamed


def schema_1_words(words: Sequence[str]) -> list[str]:
    """Return overrides, `key=value`, in the words of record schema 1."""
    renamed = []
    for word in words:
        sign, key, value = _split_word(word)
        old_value = _OLD_VALUES.get(key, {}).get(value, value)
        old_key = _rename_path(key, _OLD_KEYS)
        renamed.append(f"{sign}{old_key}={old_value}" if "=" in word else word)
    return renamed


def _rename_keys(config: Mapping[str, Any], prefix: str, warn: bool) -> dict[str, Any]:
    """Return nested dictionaries with current keys and values; interpolations follow."""
    renamed: dict[str, Any] = {}
    for key, value in config.items():
        full_key = f"{prefix}{key}"
        new_key = KEYS.get(full_key, full_key)
        if new_key != full_key and warn:
            _warn(full_key, new_key)
        if isinstance(value, Mapping):
            renamed[_leaf(new_key)] = _rename_keys(value, f"{full_key}.", warn)
        else:
            renamed[_leaf(new_key)] = _rename_value(value, VALUES.get(new_key, {}))
    return renamed


def _current_word(word: str, warn: bool) -> str:
    sign, key, value = _split_word(word)
    new_key = _rename_path(key, KEYS)
    if new_key != key and warn:
        _warn(key, new_key)
    if "=" not in word:
        return sign + new_key
    choices = VALUES.get(new_key, {})
    new_value = ",".join(choices.get(choice, choice) for choice in value.split(","))
    return f"{sign}{new_key}={new_value}"


def _split_word(word: str) -> tuple[str, str, str]:
    """Return Hydra's sign (`+`, `++`, `~` or nothing), the key and the value of an override."""
    left, _, value = word.partition("=")
    key = left.lstrip("+~")
    return left[: len(left) - len(key)], key, value


def _rename_value(value: Any, names: Mapping[str, str]) -> Any:
    """Return a value by its other name; an interpolation of a renamed key follows the key."""
    if not isinstance(value, str):
        return value
    for old, new in KEYS.items():
        value = value.replace(f"${{{old}}}", f"${{{new}}}")
    return names.get(value, value)


def _rename_path(path: str, keys: Mapping[str, str]) -> str:
    """Rename a dotted key, or the dictionary it stands in: `backbone.arguments.drop_rate`."""
    head = path
    rest = ""
    while head:
        if head in keys:
            return keys[head] + rest
        head, dot, last = head.rpartition(".")
        rest = dot + last + rest
    return path


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _warn(old: str, new: str) -> None:
    """Name the current word, once in a process."""
    if old not in _warned:
        _warned.add(old)
        log.warning("`%s` is now called `%s`; the old name still works, for now.", old, new)
