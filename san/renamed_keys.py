"""Old words for configuration keys, options and values, and their current ones.

Command lines, configuration files and saved adapters with the old words still work. Identities and
records keep the old words (record schema 1), so that every experiment that was ever run is found
again. For the same reason identities leave out an option that a method got since, at its default.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

# Old dotted key: current dotted key. A renamed key stays in its dictionary.
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
}
# Current dotted key: old value to current value.
VALUES: Mapping[str, Mapping[str, str]] = {
    "data.normalize": {"half": "inception", "unit": "none"},
    "backbone.normalize": {"half": "inception", "unit": "none"},
}
_ADAPTER = {"width": "bottleneck_dim", "std": "init_std"}
_PROMPTS = {"length": "num_prompts", "place": "position"}
_SAN = {"norms": "train_norms", "neurons": "train_output_scale"}
# Method: old option to current option. Other methods may use these words for options of their own.
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "adapter": _ADAPTER,
    "adapter_plus": _ADAPTER,
    "adaptformer": {"width": "bottleneck_dim"},
    "ssf": {"std": "init_std"},
    "vpt_deep": _PROMPTS,
    "vpt_shallow": _PROMPTS,
    "san": _SAN,
    "san_neurons": _SAN,
    "san_recalibrated": _SAN,
    "san_lora": {"norms": "train_norms"},
    "san_dora": {"norms": "train_norms"},
}
# Current option: old value to current value.
OPTION_VALUES: Mapping[str, Mapping[str, str]] = {
    "position": {"front": "prepend", "end": "append"},
}
# Method: option that record schema 1 lacks, with the value, its default, that runs had before it.
_SAN_ADDED = {"init_std": 0.0}
ADDED_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "adapter": {"scale": 1.0},
    "san": _SAN_ADDED,
    "san_neurons": _SAN_ADDED,
    "san_recalibrated": _SAN_ADDED,
}
DEFAULT_METHOD = "san"  # of configs/train.yaml
_warned: set[str] = set()


def current_config(config: Mapping[str, Any], warn: bool = True) -> dict[str, Any]:
    """Return a configuration (nested dictionaries) in current words.

    Warn of each old one unless told not to.
    """
    names = _Names.current(_methods_of(config))
    return names.rename(config, "", warn)


def current_options(method: str, options: Mapping[str, Any], warn: bool = True) -> dict[str, Any]:
    """Return the options of a method in current words; warn of each old one unless told not to."""
    return _Names.current([method]).rename(options, "method.", warn)


def current_words(
    words: Sequence[str], methods: Sequence[str] = (), warn: bool = True
) -> list[str]:
    """Return overrides as typed on a command line, `key=value`, in current words.

    methods: those that the overrides are for, where `method=` is not among them.
    """
    typed = [word.removeprefix("method=") for word in words if word.startswith("method=")]
    named = [name for text in typed for name in text.split(",")] or methods or [DEFAULT_METHOD]
    names = _Names.current(named)
    return [names.rename_word(word, warn) for word in words]


def schema_1_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration in the words of record schema 1.

    prefix: where in the configuration it stands, such as `augment.`.
    """
    return _Names.schema_1(_methods_of(config)).rename(config, prefix, warn=False)


def schema_1_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method in the words of record schema 1.

    An option that was added since is left out where it has its default.
    """
    absent = ADDED_OPTIONS.get(method, {}).items()
    known = {name: value for name, value in options.items() if (name, value) not in absent}
    return _Names.schema_1([method]).rename(known, "method.", warn=False)


@dataclass(frozen=True)
class _Names:
    """One direction of translation: keys, and values by the key before it is renamed."""

    keys: Mapping[str, str]
    values: Mapping[str, Mapping[str, str]]

    @classmethod
    def current(cls, methods: Sequence[str]) -> "_Names":
        """Translate old words to current ones."""
        keys, values = _all_names(methods)
        by_either_key = dict(values)  # a current key may come with an old value
        for old, new in keys.items():
            if new in values:
                by_either_key[old] = values[new]
        return cls(keys, by_either_key)

    @classmethod
    def schema_1(cls, methods: Sequence[str]) -> "_Names":
        """Translate current words to old ones."""
        keys, values = _all_names(methods)
        old_values = {key: _inverted(renamed) for key, renamed in values.items()}
        return cls(_inverted(keys), old_values)

    def rename(self, config: Mapping[str, Any], prefix: str, warn: bool) -> dict[str, Any]:
        """Return nested dictionaries with other keys and values; interpolations follow."""
        renamed: dict[str, Any] = {}
        for key, value in config.items():
            full_key = f"{prefix}{key}"
            new_key = self.keys.get(full_key, full_key)
            if new_key != full_key and warn:
                _warn(full_key, new_key)
            # A row of a recipe has dotted names of its own, which stay whole.
            leaf = key if new_key == full_key else new_key.rpartition(".")[2]
            if isinstance(value, Mapping):
                renamed[leaf] = self.rename(value, f"{full_key}.", warn)
            elif isinstance(value, str):
                renamed[leaf] = self._rename_value(full_key, value)
            else:
                renamed[leaf] = value
        return renamed

    def rename_word(self, word: str, warn: bool) -> str:
        """Rename key and values of an override, with Hydra's sign (`+`, `++`, `~` or nothing)."""
        left, equals, value = word.partition("=")
        key = left.lstrip("+~")
        sign = left[: len(left) - len(key)]
        new_key = self._rename_path(key)
        if new_key != key and warn:
            _warn(key, new_key)
        if key in self.values:
            choices = [choice.strip("'\"") for choice in value.split(",")]
            value = ",".join(self._rename_value(key, choice) for choice in choices)
        return sign + new_key + equals + self._rename_interpolations(value)

    def _rename_path(self, path: str) -> str:
        """Rename a dotted key, or the dictionary it stands in: `backbone.arguments.drop_rate`."""
        head = path
        rest = ""
        while head:
            if head in self.keys:
                return self.keys[head] + rest
            head, dot, last = head.rpartition(".")
            rest = dot + last + rest
        return path

    def _rename_value(self, key: str, value: str) -> str:
        value = self._rename_interpolations(value)
        return self.values.get(key, {}).get(value, value)

    def _rename_interpolations(self, text: str) -> str:
        for old, new in self.keys.items():
            text = text.replace(f"${{{old}}}", f"${{{new}}}")
        return text


def _all_names(
    methods: Sequence[str],
) -> tuple[dict[str, str], dict[str, Mapping[str, str]]]:
    """Return KEYS and VALUES with the options of methods among them, old to current."""
    keys = dict(KEYS)
    values = dict(VALUES)
    for method in methods:
        for old, new in OPTIONS.get(method, {}).items():
            keys[f"method.{old}"] = f"method.{new}"
            if new in OPTION_VALUES:
                values[f"method.{new}"] = OPTION_VALUES[new]
    return keys, values


def _methods_of(config: Mapping[str, Any]) -> list[str]:
    method = config.get("method")
    return [method["name"]] if isinstance(method, Mapping) and "name" in method else []


def _inverted(names: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}


def _warn(old: str, new: str) -> None:
    """Name the current word, once in a process."""
    if old not in _warned:
        _warned.add(old)
        log.warning("`%s` is now called `%s`; the old name still works, for now.", old, new)
