"""Rows are named by values: what a run departs in from its default, however it was typed."""

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from conftest import a_record, composed, resolved
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from msgspec.structs import replace

from san import compose, config_files, record_names, settings
from san.config_keys import RECIPE_KEYS
from san.errors import InvalidValueError, SanError
from san.experiment import Experiment, from_config
from san.record import Record
from san.report.explain import explain_cell
from san.settings import Base, RunConfig
from san.tasks import suite_names

# How a run is carried out: may differ between runs of a row, whatever the number.
CARRIED_OUT = {"precision", "seed"}
TEXTS = ["", "1e3", "null", "true", "a b,c=[d]", "${x}"]
VALUES = [3, 2.0, 1e-5, None, True, ["q", 1, None], [{"a": "b c"}]]
OTHER_VALUES = {
    "optimizer": "sgd",
    "betas": [0.8, 0.999],
    "clip_grad": 1.0,
    "drop_path": 0.1,
    "ema_decay": 0.5,
    "head_init": "zero",
    "head_lr": 0.5,
    "layer_decay": 0.5,
    "weight_decay_on": "all",
    "schedule.cosine_from": "start",
    "schedule.min_lr": 1e-6,
    "schedule.min_lr_ratio": 0.5,
    "schedule.update": "epoch",
    "schedule.warmup_start": 1e-6,
    "schedule.warmup_start_ratio": 0.5,
    "augment.crop": "resized",
    "backbone.weights": "random",
    "data.normalize": "clip",
    "data.resize": "bicubic",
    "method.propagation": "off",
    "method.proj_anterior": "v",
    "method.qkv_anterior": "preceding",
    "protocol.train": "train",
    "protocol.evaluate": "val",
    "precision": "bf16",
}


def leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a whole configuration."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def variant(run: RunConfig) -> str:
    return settings.join_overrides(settings.departures(*run))


def with_own_files(folder: Path, *overrides: str) -> RunConfig:
    """Compose with a folder of the user's own files, as `--config-dir` does."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_files.CONFIGS), version_base="1.3"):
        words = [f"hydra.searchpath=[file://{folder}]", *overrides]
        return compose.resolve(hydra.compose("train", overrides=words))


def experiment_of(run: RunConfig, data_root: Path) -> Experiment:
    return from_config({**run.config, "data_root": str(data_root)}, run.base)


@pytest.mark.parametrize(
    "value",
    ["~/w.safetensors", "/data/müller/w", "a\\b", "it's", "a\\'b", "end\\", *TEXTS, *VALUES],
)
def test_a_value_is_what_hydra_reads_of_it(value: object) -> None:
    word = f"key={settings.override_value(value)}"
    assert OverridesParser.create().parse_override(word).value() == value


@pytest.mark.parametrize("suite", [*suite_names(), "folder"])
@pytest.mark.parametrize("method", ["san", "lora"])
def test_a_restated_default_is_no_departure(suite: str, method: str) -> None:
    chosen = [f"method={method}"]
    if suite == "folder":
        chosen += ["data=folder", "data.root=images"]
    else:
        task = next(iter(compose.load_suite(suite).tasks))
        chosen.append(f"data={suite}/{task}")
    default = composed(*chosen)
    restated = [f"{key}={settings.override_value(value)}" for key, value in leaves(default)]
    assert len(restated) > 55
    again = resolved(*chosen, *restated)
    assert again.config == default
    assert variant(again) == ""


@pytest.mark.parametrize(
    ("typed", "row"),
    [
        (["lr=1e-1"], "lr=0.1"),
        (["lr=0.10"], "lr=0.1"),
        (["recipe.lr.san=0.1"], "lr=0.1"),
        (["lr=1.0"], "lr=1.0"),
        (["lr=1"], "lr=1.0"),
        (["data.normalise=half"], ""),
        (["data.normalize=timm"], ""),
        (["augment=ssf", "augment=none"], ""),
        (["method.train_norms=False"], "method.train_norms=false"),
        (["method.norms=false"], "method.train_norms=false"),
        (["method=lora", "method.targets=[v, q]"], "'method.targets=[v,q]'"),
        (["+backbone.kwargs.drop_rate=0.10"], "+backbone.kwargs.drop_rate=0.1"),
        (["+backbone.kwargs={drop_rate: 0.1}"], "+backbone.kwargs.drop_rate=0.1"),
        (
            ["backbone=swin_b_in22k", "~backbone.kwargs.drop_path_rate"],
            "'~backbone.kwargs.drop_path_rate'",
        ),
        (["method=lora", "method.alpha=16"], "method.alpha=16"),
        (["method=lora", "method.alpha=16.0"], "method.alpha=16"),
        (["augment=vpt", "augment.mixup=1"], "augment=vpt augment.mixup=1.0"),
        (["augment=ssf"], "augment=ssf"),
        (["recipe=vtab"], "recipe=vtab"),
        (["schedule=timm"], "schedule=timm"),
        (["schedule=timm_lagged", "schedule.min_lr=0"], "schedule=timm_lagged schedule.min_lr=0.0"),
        (["schedule.warmup_start=1e-6"], "schedule.warmup_start=1e-06"),
        (["betas=[0.9, 0.95]", "drop_path=0.10"], "'betas=[0.9,0.95]' drop_path=0.1"),
        (["clip_grad=1", "deterministic=true"], "clip_grad=1"),
        (["adapter_checkpoint='a b'"], "restored"),
        (["protocol.name=tune"], ""),
        (["protocol=best_test", "protocol.every=2"], "protocol.eval_every=2"),
        (["device=cpu", "precision=bf16", "results_dir=x", "num_workers=3", "logger=none"], ""),
    ],
)
def test_spellings_of_a_value_are_one_row(typed: list[str], row: str) -> None:
    assert variant(resolved(*typed)) == row


def test_what_changes_the_number_names_the_row_and_nothing_else_does(data_root: Path) -> None:
    """For every setting: another value makes another identity exactly if it makes another row."""
    run = resolved(f"data_root={data_root}", "device=cpu", "augment=ssf")
    default = experiment_of(run, data_root)
    compared = set()
    refused = set()
    for key, value in leaves(run.config):
        config = copy.deepcopy(run.config)
        *path, leaf = key.split(".")
        node = config
        for name in path:
            node = node[name]
        if key in OTHER_VALUES:
            node[leaf] = OTHER_VALUES[key]
        elif isinstance(value, bool):
            node[leaf] = not value
        elif isinstance(value, int):
            node[leaf] = value // 2 if value > 1 else value + 1
        elif isinstance(value, float):
            node[leaf] = value / 2 or 0.25
        else:
            continue
        try:
            changed = from_config(config, Base(run.config))
        except SanError:
            refused.add(key)
            continue
        compared.add(key)
        names_a_row = bool(changed.variant) or key in CARRIED_OUT
        assert (changed.identity != default.identity) == names_a_row, key
    assert len(compared) > 45, compared
    assert {key for key in OTHER_VALUES if "." not in key} <= compared
    assert {f"schedule.{key}" for key in run.config["schedule"]} <= compared
    assert not refused


def test_own_files_are_shown_by_their_values_and_repeated_without_them(
    tmp_path: Path, data_root: Path
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "lora16.yaml").write_text("defaults: [lora]\nrank: 16\n")
    (tmp_path / "protocol").mkdir()
    (tmp_path / "protocol" / "mine.yaml").write_text(
        "name: mine\ntrain: train\nevaluate: test\nselected_on: last\neval_every: 0\n"
    )
    run = with_own_files(tmp_path, "method=lora16", "protocol=mine")
    made = experiment_of(run, data_root)
    assert settings.shorten_variant(made.variant) == "rank=16 protocol.train=train"
    again = record_names.rerun_words(record_names.named_by_value(made.record("failed", "weights")))
    assert not {"method=lora16", "protocol=mine"} & set(again)
    repeated = experiment_of(resolved(*again), data_root)
    assert repeated.identity == made.identity
    assert repeated.variant == made.variant


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            ["backbone.name=vit_small_patch14_dinov2.lvd142m"],
            ["backbone=timm backbone.name=vit_small_patch14_dinov2.lvd142m", "backbone=vit_nano"],
        ),
        (["backbone.name=vit_b16_augreg_in21k"], ["backbone=vit_b16_augreg_in21k"]),
        (["backbone.name=mine/nano"], ["backbone=timm backbone.name=mine/nano"]),
        (["backbone.name='a [b]'"], ["backbone=timm " + shlex.quote("backbone.name='a [b]'")]),
        (
            ["backbone.timm_name=vit_small_patch16_224"],
            ["backbone=vit_nano", "backbone=timm backbone.name=vit_small_patch16_224"],
        ),
    ],
)
def test_a_backbone_has_no_other_name_than_what_is_built(
    words: list[str], advice: list[str]
) -> None:
    with pytest.raises(InvalidValueError, match="but what is built is ") as refused:
        resolved(*words)
    for each in advice:
        assert re.search(rf"(give|for \S+) {re.escape(each)}[.,]", str(refused.value)), each
        if "mine" not in each:
            resolved(*shlex.split(each))


def test_a_shipped_backbone_asked_for_by_its_timm_name_is_the_shipped_one(tmp_path: Path) -> None:
    run = resolved("backbone=timm", "backbone.name=vit_base_patch16_224.augreg_in21k")
    assert run.config["backbone"]["name"] == "vit_b16_augreg_in21k"
    assert variant(run) == ""
    (tmp_path / "backbone").mkdir()
    text = (config_files.CONFIGS / "backbone" / "vit_nano.yaml").read_text()
    own = text.replace("name: vit_nano\n", "name: ${.timm_name}\n").replace("depth: 6", "depth: 3")
    (tmp_path / "backbone" / "small.yaml").write_text(own)
    run = with_own_files(tmp_path, "backbone=small")
    assert run.config["backbone"]["name"] == "vit_tiny_patch16_224"
    assert "+backbone.kwargs.depth=3" in variant(run)


def test_every_hyper_parameter_names_a_row(data_root: Path) -> None:
    run = resolved()
    for key in {*RECIPE_KEYS} - CARRIED_OUT:
        assert variant(RunConfig({**run.config, key: "other"}, run.base)) == f"{key}=other"


def test_a_file_is_named_without_its_place(tmp_path: Path) -> None:
    rows = set()
    for path in ("w.safetensors", "./w.safetensors", str(tmp_path / "w.safetensors")):
        word = settings.override_value(path)
        rows.add(variant(resolved(f"backbone.weights={word}", "backbone.sha256=null")))
    assert rows == {"backbone.sha256=null backbone.weights=w.safetensors"}


def test_weights_of_one_name_and_other_content_are_two_rows(
    tmp_path: Path, data_root: Path
) -> None:
    def made(name: str, content: bytes) -> Experiment:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        words = [f"backbone.weights={settings.override_value(str(path))}", "backbone.sha256=null"]
        return experiment_of(resolved(*words), data_root)

    first = made("a/w.safetensors", b"one")
    other = made("b/w.safetensors", b"two")
    records = []
    for experiment, weights in [(first, "1a2b3c" + 10 * "0"), (other, "4d5e6f" + 10 * "0")]:
        made_record = experiment.record("failed", weights)
        records.append(record_names.named_by_value(made_record))
        words = record_names.rerun_words(records[-1])
        assert words == record_names.rerun_words(made_record)
        assert resolved(*words).config["backbone"] == experiment.config["backbone"]
        assert experiment_of(resolved(*words), data_root).identity == experiment.identity
    shown = [settings.shorten_variant(each.variant) for each in records]
    prefix = "backbone.sha256=null backbone.weights=w.safetensors"
    assert shown == [f"{prefix}@1a2b3c", f"{prefix}@4d5e6f"]
    for row, found, hidden in [(shown[0], "1a2b3c", "4d5e6f"), (shown[1], "4d5e6f", "1a2b3c")]:
        text = "\n".join(explain_cell("demo", f"san [{row}]", "digits", records, tmp_path))
        assert f"vit_nano, {found}" in text
        assert hidden not in text
    # The same file under another name is the same experiment, and its record is found.
    again = made("b/v.safetensors", b"one")
    assert again.record_path(tmp_path) == first.record_path(tmp_path)
    assert again.record_path(tmp_path) != other.record_path(tmp_path)


def test_weights_that_are_no_file_have_no_hash_in_their_name() -> None:
    for value in ("random", "timm"):
        words = {"backbone.weights": f"backbone.weights={value}"}
        assert settings.join_overrides(words, "1a2b3c4d") == f"backbone.weights={value}"


@pytest.mark.parametrize(
    "words", [["~backbone.timm_name"], ["~backbone.kwargs"], ["backbone.timm_name=null"]]
)
def test_a_file_of_ones_own_that_lacks_a_key_is_refused_in_words(words: list[str]) -> None:
    with pytest.raises(InvalidValueError, match="backbone has no `.*`; it is required"):
        resolved(*words)


def test_defaults_leave_a_composition_under_way_alone() -> None:
    compose._composed.cache_clear()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_files.CONFIGS), version_base="1.3"):
        compose.resolve(hydra.compose("train", overrides=[]))
        assert GlobalHydra.instance().is_initialized()
        hydra.compose("train", overrides=[])


def test_what_is_on_disk_gets_its_right_name(data_root: Path) -> None:
    def named(run: RunConfig, **typed: str) -> Record:
        made = experiment_of(run, data_root).record("failed", "weights")
        return record_names.named_by_value(replace(made, **typed))

    assert named(resolved(), variant="data.normalise=half").variant == ""
    assert named(resolved("lr=0.1"), variant="lr=1e-1").variant == "lr=0.1"
    misfiled = named(resolved(), backbone="vit_small_patch14_dinov2.lvd142m")
    assert misfiled.backbone == "vit_nano"
    older = named(resolved())
    assert older.config["method"].pop("init_std") == 0.0
    assert record_names.named_by_value(older).variant == ""  # as the option was not there yet
    by_hand = a_record(variant="lr=3")
    assert record_names.named_by_value(by_hand) == by_hand


def test_normalization_that_is_the_pretrainings_own_is_the_default(data_root: Path) -> None:
    words = ["backbone=timm", "backbone.name=vit_small_patch32_224.augreg_in21k"]
    words += ["backbone.weights=random"]
    for word in ("data.normalize=inception", "backbone.normalize=inception"):
        made = experiment_of(resolved(*words, word), data_root)
        assert made.variant == "backbone.weights=random"
    made = experiment_of(resolved(*words, "data.normalize=clip"), data_root)
    assert made.variant == "backbone.weights=random data.normalize=clip"
