"""Which settings a kind of HF peft's takes here: fields of its configuration that are plain values.

What peft would ignore, or would take in the place of what it was told, is refused.
"""

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from san.errors import InvalidValueError, choose
from san.schema import check_value

Setting = bool | int | float | str | None
INITS_OF_THE_BASE = ("olora", "pissa")  # which begin by taking something out of the weight
_INITS = (True, False, "gaussian", "orthogonal", *INITS_OF_THE_BASE)
# What a setting of these would say is said by options of ours, or has no meaning here.
_NOT_SETTINGS = frozenset(
    (
        "task_type",
        "peft_type",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "target_modules",
        "exclude_modules",
        "layers_pattern",
        "bias",
        "fan_in_fan_out",
        "save_projection",
        "megatron_core",
        "use_effective_conv2d",
        "use_qalora",
        "qalora_group_size",
        "ensure_weight_tying",
    )
)
_BETWEEN_STEPS = ("target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight")
# Fields that a kind inherits from another and does not read.
_UNREAD: Mapping[str, tuple[str, ...]] = {
    "adalora": ("r", "lora_bias", "use_rslora", "use_dora", "init_lora_weights"),
}
_DEFAULTS: Mapping[str, Mapping[str, Setting]] = {
    "fourierft": {"init_weights": True},
    "shira": {"random_seed": 0},  # a restored adapter finds its entries again
}
_FIXED: Mapping[str, Mapping[str, Any]] = {
    "adalora": {"total_step": 1},  # peft asks for it, and only what we refuse reads it
    "ia3": {"feedforward_modules": r".*fc2"},
    "pissa": {"init_lora_weights": "pissa"},
}


def check_settings(
    kind: str, settings: Mapping[str, Setting], config_class: type
) -> dict[str, Any]:
    """Return the fields of peft's configuration that settings mean, with ours.

    Raises UnknownNameError on a field that it does not have or that is not a plain value,
    InvalidValueError on a value that the field does not take.
    """
    hints = get_type_hints(config_class)
    fields = {field.name: field.default for field in dataclasses.fields(config_class)}
    checked = {}
    for name, value in settings.items():
        where = f"method.settings.{name}"
        if kind == "adalora" and name in _BETWEEN_STEPS:
            raise InvalidValueError(
                f"{where} came as {value!r}; leave it out: it is read by calls of peft's between "
                "the steps, which are not made here. The rank stays at init_r."
            )
        choose(name, _allowed(kind, hints, fields), f"setting of {kind}")
        checked[name] = check_value(value, hints[name], where)
        _check_range(where, value, fields[name])
    init = checked.get("init_lora_weights", True)
    if init not in _INITS:
        raise InvalidValueError(
            f"method.settings.init_lora_weights came as {init!r}; allowed: "
            f"{', '.join(map(str, _INITS))} (others take data, or draw what is not saved)."
        )
    return {**_DEFAULTS.get(kind, {}), **checked, **_FIXED.get(kind, {})}


def _allowed(kind: str, hints: Mapping[str, Any], fields: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that a kind takes."""
    refused = {*_NOT_SETTINGS, *_FIXED.get(kind, ()), *_UNREAD.get(kind, ())}
    if kind == "adalora":
        refused.update(_BETWEEN_STEPS)
    return sorted(name for name in fields.keys() - refused if _is_plain(hints[name]))


def _check_range(where: str, value: Setting, default: Any) -> None:
    """Raise InvalidValueError on a value that makes no sense, which peft would take."""
    if value is None and where.endswith("seed"):
        raise InvalidValueError(
            f"{where} came as None; give a number: a restored adapter draws the same again."
        )
    if isinstance(value, str) or value is None or value == default:
        return
    if value < 0:
        raise InvalidValueError(f"{where} came as {value}; allowed: 0 or more, or {default}.")
    if where.endswith("dropout") and value >= 1:
        raise InvalidValueError(f"{where} came as {value}; allowed: from 0, below 1.")


def _is_plain(hint: Any) -> bool:
    """Tell whether an annotation is of numbers, truth values and texts alone."""
    if get_origin(hint) in (Union, UnionType):
        return all(map(_is_plain, get_args(hint)))
    return get_origin(hint) is Literal or hint in (bool, int, float, str, NoneType)
