"""What a recorded run is called by its values, and the words that repeat it."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from msgspec.structs import replace

from san import compose, config_files, config_names, settings
from san.record import Record
from san.renamed_keys import current_config, current_words
from san.tasks import OWN_IMAGES, load_suite, suite_names


def named_by_value(record: Record) -> Record:
    """Return a record whose backbone, protocol and variant say what its configuration says.

    A record made by hand, or of a suite, task or method that is not known here, stays as it is.
    """
    config = config_of(record)
    if config is None:
        return record
    return replace(
        record,
        backbone=config["backbone"]["name"],
        protocol=config["protocol"]["name"],
        variant=variant_of(config, record.weights),
    )


def rerun_words(record: Record, seeds: Sequence[int] = ()) -> list[str]:
    """Return the overrides with which train.py repeats a run, without the user's own files.

    record: as `named_by_value` returns it. seeds: others than its own, of a sweep.
    """
    words = [f"method={record.method}", *_task_words(record)]
    chosen = ",".join(map(str, seeds or [record.seed]))
    words.append(f"seed={chosen}")
    if record.backbone != load_suite(record.suite).backbone:
        words += config_names.backbone_words(record.backbone)
    words += config_names.protocol_words(record.protocol) or [
        f"protocol.name={settings.override_value(record.protocol)}"
    ]
    words.append(f"precision={record.config.get('precision', 'auto')}")
    config = config_of(record)
    if config is None:
        typed = settings.split_variant(record.variant)
        words += current_words(typed, [record.method], warn=False)
        # A path stands in no variant.
        if settings.RESTORED in words:
            adapter = settings.override_value(record.config.get("restore"))
            words[words.index(settings.RESTORED)] = f"adapter_checkpoint={adapter}"
    else:
        departures = settings.departures(config, compose.base_of(config))
        words += {**_row_words(config), **departures}.values()
    if record.data.forced:
        words.append("allow_unverified_data=true")
    return words


def _task_words(record: Record) -> list[str]:
    """Return the overrides that choose the task of a run; of own images, by their folder."""
    data = record.config.get("data") or {}
    name: str | None = record.task
    if record.suite == OWN_IMAGES:
        name = data.get("task")  # None in older records: it was called like the folder
    return config_names.task_words(record.suite, name, data.get("root"))


def _row_words(config: Mapping[str, Any]) -> dict[str, str]:
    """Return overrides, by key, with what the recipe had for the run: its file may change.

    What is no setting of a run has had no effect.
    """
    row: Mapping[str, Any] = config["recipe"].get("row") or {}
    keys = settings.of_group(row, "recipe")
    for option in config["method"]:
        key = f"method.{option}"
        if key in row:
            keys.append(key)
    words = {}
    for key in keys:
        value = settings.override_value(row[key])
        words[key] = f"{key}={value}"
    return words


def variant_of(config: Mapping[str, Any], weights: str) -> str:
    """Return the variant of a run: what sets its row apart from the default one."""
    return _variant_of(json.dumps(settings.compared_part(config)), weights)


@cache
def _variant_of(config: str, weights: str) -> str:
    """Return the variant of a configuration (as JSON): many records of a table share it."""
    plain = json.loads(config)
    departures = settings.departures(plain, compose.base_of(plain))
    return settings.join_overrides(departures, weights)


def config_of(record: Record) -> dict[str, Any] | None:
    """Return a recorded configuration in current words and names, None if it is not a whole one."""
    config = current_config(record.config, warn=False)
    if not settings.names_a_cell(config):
        return None
    if not _is_known(config["data"], config["method"]["name"]):
        return None
    config["backbone"]["name"] = config_names.backbone_name(config["backbone"])
    config["protocol"]["name"] = config_names.protocol_name(config["protocol"])
    return config


def _is_known(data: Mapping[str, Any], method: str) -> bool:
    """Return whether suite, task and method of a record are still there."""
    if method not in config_files.choices("method") or data["suite"] not in suite_names():
        return False
    suite = load_suite(data["suite"])
    return suite.is_own_images or data["task"] in suite.tasks
