"""A recipe with rows: what a run gets of its line, what wins over it, and what it is called."""

import csv
from pathlib import Path
from typing import Any

import pytest
from conftest import a_record, composed, resolved
from omegaconf import OmegaConf

from san import compose, config_files, record_names, settings
from san.config_keys import RECIPE_KEYS
from san.errors import SanError
from san.installation import BENCHMARKS
from san.methods import default_options, method_names
from san.record import Record
from san.settings import RunConfig

HEADER = "suite,backbone,method,settings,task,lr,epochs,method.rank,method.targets,source,trials\n"
LINES = (
    'demo,vit_nano,lora,,digits,0.25,3,2,"[q, k, v]",a search,5\n'
    "demo,vit_nano,lora,,*,0.5,,,,a search,5\n"
    "demo,vit_nano,lora,dropout=0.1,digits,0.75,,,,a search,5\n"
    "demo,vit_nano,san,,*,0.125,,,,a search,5\n"
    "demo,vit_nano,san,propagation=off,count,0.0625,,,,a search,5\n"
)
SUITES_LR = {"lora": 5e-3, "san": 1e-2}  # of configs/recipe/demo.yaml
LACKING = {("adapter", "method.init")}  # what ours does not have
MAI = ["recipe=mai", "method=lora", "data=vtab/cifar", "backbone=vit_b16_orig_in21k"]


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """The word that gives a file of rows."""
    (tmp_path / "rows.csv").write_text(HEADER + LINES)
    return f"recipe.rows={tmp_path / 'rows.csv'}"


def tuned(rows: str, *words: str) -> dict[str, Any]:
    return composed("recipe=tuned", rows, *words)


def record_of(run: RunConfig) -> Record:
    data = run.config["data"]
    return a_record(
        suite=data["suite"],
        task=data["task"],
        method=run.config["method"]["name"],
        config=run.config,
    )


def test_a_run_has_the_values_of_its_line_and_the_rest_of_its_suite(rows: str) -> None:
    config = tuned(rows, "method=lora")
    assert (config["lr"], config["epochs"]) == (0.25, 3)
    assert config["method"]["rank"] == 2
    assert config["method"]["targets"] == ["q", "k", "v"]
    assert config["recipe"]["trials"] == 5
    assert config["recipe"]["row"]["source"] == "a search"
    default = composed("method=lora")
    for key in set(RECIPE_KEYS) - {"lr", "epochs"}:
        assert config[key] == default[key]
    for key in set(default["method"]) - {"rank", "targets"}:
        assert config["method"][key] == default["method"][key]


def test_a_task_without_a_line_has_that_of_all_tasks(rows: str) -> None:
    config = tuned(rows, "method=lora", "data=demo/count")
    assert (config["lr"], config["method"]["rank"]) == (0.5, 8)


def test_the_command_line_wins(rows: str) -> None:
    config = tuned(rows, "method=lora", "lr=3", "method.rank=16", "method.targets=[fc1]")
    assert (config["lr"], config["epochs"]) == (3, 3)
    assert config["method"]["rank"] == 16
    assert config["method"]["targets"] == ["fc1"]
    assert config["recipe"]["row"]["lr"] == 0.25  # the line is still its own


def test_an_arm_has_its_own_line_and_never_that_of_the_default_arm(rows: str) -> None:
    arm = ["method=san", "method.propagation=off"]
    assert tuned(rows, *arm, "data=demo/count")["lr"] == 0.0625
    for other in (["data=demo/digits"], ["data=demo/count", "method.train_norms=false"]):
        config = tuned(rows, *arm, *other)
        assert config["lr"] == SUITES_LR["san"]
        assert config["recipe"]["row"] is None
    # A default that is typed is the default arm.
    assert tuned(rows, "method=san", "method.propagation=tied", "data=demo/count")["lr"] == 0.125
    assert tuned(rows, "method=lora", "method.dropout=0.1")["lr"] == 0.75
    assert tuned(rows, "method=lora", "method.dropout=0.1")["method"]["rank"] == 8


@pytest.mark.parametrize(
    "words",
    [
        ["method=ssf"],
        ["method=lora", "data=vtab/cifar"],
        ["method=lora", "backbone=vit_b16_augreg_in21k"],
    ],
)
def test_without_a_line_the_recipe_is_that_of_the_suite(words: list[str], rows: str) -> None:
    config = tuned(rows, *words)
    assert config["recipe"]["row"] is None
    assert config["recipe"]["trials"] is None
    default = composed(*words)
    for key in RECIPE_KEYS:
        assert config[key] == default[key]
    assert config["method"] == default["method"]


def test_nothing_was_tuned_where_there_is_no_file(tmp_path: Path) -> None:
    config = tuned(f"recipe.rows={tmp_path / 'none.csv'}", "method=lora")
    assert (config["lr"], config["recipe"]["row"]) == (SUITES_LR["lora"], None)
    with pytest.raises(SanError, match=r"none\.csv does not exist"):
        composed("recipe=mai", f"recipe.rows={tmp_path / 'none.csv'}")


def test_a_file_that_is_no_recipe_is_refused_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n")
    with pytest.raises(SanError, match=r"bad\.csv has the columns a, b; it needs suite"):
        tuned(f"recipe.rows={tmp_path / 'bad.csv'}")


def test_a_search_names_the_file() -> None:
    config = composed("recipe=tuned", "recipe.search=lr_wd", "data=demo/count")
    assert config["recipe"]["rows"] == "benchmarks/tuned/demo_vit_nano_lr_wd.csv"


def test_mai_et_als_lora_on_cifar() -> None:
    run = resolved(*MAI)
    assert run.config["lr"] == 0.01
    assert run.config["method"]["rank"] == 1
    assert run.config["method"]["targets"] == ["qkv"]
    assert settings.departures(*run) == {"recipe": "recipe=mai"}


def test_a_recorded_run_keeps_its_name_and_is_repeated() -> None:
    """Dotted names of a row stay whole in a record."""
    for words, variant in [([], "recipe=mai"), (["lr=0.5", "method.rank=3"], None)]:
        run = resolved(*MAI, *words)
        made = record_names.named_by_value(record_of(run))
        assert made.variant == (variant or "lr=0.5 method.rank=3 recipe=mai")
        assert record_names.config_of(made) == run.config
        repeated = resolved(*record_names.rerun_words(made))
        assert settings.compared_part(repeated.config) == settings.compared_part(run.config)
        assert repeated.base == run.base


def test_a_run_is_repeated_though_its_file_is_gone(rows: str, tmp_path: Path) -> None:
    run = resolved("recipe=tuned", rows, "method=lora")
    made = record_names.named_by_value(record_of(run))
    (tmp_path / "rows.csv").write_text(HEADER)
    assert record_names.named_by_value(made).variant == "recipe=tuned recipe.rows=rows.csv"
    repeated = composed(*record_names.rerun_words(made))
    assert repeated["recipe"]["row"] is None
    for key in (*RECIPE_KEYS, "method"):
        assert repeated[key] == run.config[key]


def test_a_file_of_ones_own_is_part_of_the_name(rows: str) -> None:
    """Two files that say different things are two rows of a table."""
    run = resolved("recipe=tuned", rows, "method=lora")
    assert record_names.variant_of(run.config, "") == "recipe=tuned recipe.rows=rows.csv"
    shipped_one = resolved("recipe=tuned", "method=lora")
    assert record_names.variant_of(shipped_one.config, "") == "recipe=tuned"


def test_every_setting_of_a_recipe_is_read_from_it() -> None:
    written: Any = OmegaConf.to_container(compose.compose_config(), resolve=False)
    assert len(RECIPE_KEYS) > 7
    # Of how a run is carried out.
    others = {"precision", "weight_decay_on", "drop_last", "eval_batch_size", "head_init"}
    assert others < set(RECIPE_KEYS)
    for key in RECIPE_KEYS:
        is_read = str(written[key]).startswith((f"${{recipe:{key}}}", f"${{recipe:{key},"))
        assert is_read == (key not in others), key


def test_every_option_that_a_published_recipe_gives_reaches_its_method() -> None:
    given = set()
    for path in (BENCHMARKS / "recipes").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                options = {key for key, text in line.items() if text and key.startswith("method.")}
                given |= {(line["method"], key) for key in options}
    ours = {(method, key) for method, key in given if method in method_names()}
    reached = set()
    for method, key in sorted(ours):
        option = key.removeprefix("method.")
        if option not in default_options(method):
            continue
        assert config_files.reads_recipe(method, option), (method, key)
        reached.add((method, key))
    assert len(reached) >= 18
    assert ours - reached <= LACKING


def test_every_line_of_a_published_recipe_composes() -> None:
    """For a method that is here, on the backbone that it names."""
    composed_lines = 0
    for recipe in config_files.choices("recipe"):
        rows = config_files.read_choice("recipe", recipe).get("rows", "")
        if not rows.startswith("benchmarks/recipes/"):
            continue
        with (BENCHMARKS.parent / rows).open(encoding="utf-8", newline="") as file:
            lines = [line for line in csv.DictReader(file) if line["method"] in method_names()]
        for line in lines[::19]:
            task = "cifar" if line["task"] == "*" else line["task"]
            words = [f"recipe={recipe}", f"data={line['suite']}/{task}"]
            words.append(f"method={line['method']}")
            words += [f"method.{option}" for option in line["settings"].split()]
            if line["backbone"] != "*":
                words.append(f"backbone={line['backbone']}")
            config = composed(*words)
            assert config["recipe"]["row"]["source"] == line["source"], words
            if line.get("lr"):
                assert config["lr"] == float(line["lr"]), words
            composed_lines += 1
    assert composed_lines >= 30
