"""The recipes of papers (benchmarks/recipes): complete, in our names, and the sources' numbers."""

import csv
import dataclasses
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from san.installation import BENCHMARKS
from san.methods import check_options, method_names
from san.schema import check_value
from san.tasks import load_suite
from san.training.recipe import Recipe

FOLDER = BENCHMARKS / "recipes"
BACKBONES = Path(__file__).parents[1] / "configs" / "backbone"
KEY = ["suite", "backbone", "method", "settings", "task"]
NOT_IN_A_RECIPE_YET = {"drop_path", "ema_decay", "clip_grad", "head_lr"}

# Lines of each suite by method: VTAB has 19 tasks, FGVC 5, and general classification 2.
LINES: dict[str, dict[str, dict[str, int]]] = {
    "mai": {  # 16 methods, two of which are our `adapter`
        "vtab": {"full": 19, "linear": 19, "bitfit": 19, "norm": 19, "difffit": 19}
        | {"vpt_shallow": 19, "vpt_deep": 19, "adapter": 2 * 19, "adaptformer": 19, "lora": 19}
        | {"fact_tk": 19, "fact_tt": 19, "repadapter": 19, "convpass": 19, "ssf": 19}
    },
    "ssf": {  # general classification on three backbones
        "vtab": {"ssf": 19},
        "fgvc": {"ssf": 5},
        "gic": {"full": 3 * 2, "linear": 3 * 2, "ssf": 3 * 2},
    },
    "noah": {"vtab": {"adapter": 1, "lora": 1, "vpt_deep": 1}},
    "convpass": {"vtab": {"convpass": 19, "convpass_attn": 19}},
    "fact": {"vtab": {"fact_tk": 19, "fact_tt": 19}},
    "repadapter": {"vtab": {"repadapter": 19, "repadapter_attn": 19}},
    "sct": {"vtab": {"lora": 19, "adapter": 19, "adaptformer": 19, "sct": 19}},
    "vpetl": {
        "vtab": {"full": 19, "linear": 19, "bitfit": 19, "vpt_shallow": 19}
        | {"adapter": 19, "adaptformer": 19, "lora": 19},
        "fgvc": {"linear": 5, "bitfit": 5, "vpt_shallow": 5}
        | {"adapter": 5, "adaptformer": 5, "lora": 5},
    },
    "gps": {"vtab": {"gps": 19}, "fgvc": {"gps": 5}},
    "dtl": {"vtab": {"dtl": 2 * 19, "dtl_plus": 2 * 19}},  # two backbones
    "snell": {
        "vtab": {"snell_32": 19, "snella_32": 9},
        "fgvc": {"snell_8": 5, "snell_16": 5, "snell_32": 5, "snella_32": 5},
    },
    "cvpt": {"vtab": {"cvpt": 19}, "fgvc": {"cvpt": 5}},
    "adapter_plus": {
        "vtab": {"full": 1, "linear": 1, "lora": 1, "vpt_deep": 19, "adapter_plus": 19},
        "fgvc": {"full": 1, "linear": 1, "vpt_deep": 5, "adapter_plus": 5},
    },
    "adapter_plus_dim4": {"vtab": {"adapter_plus": 19}},
    "adapter_plus_dim8": {"vtab": {"adapter_plus": 19}},
    "vpt": {"vtab": {"vpt_deep": 3}},
    "spt": {"vtab": {"spt_adapter": 1, "spt_lora": 1}},
    "da_vpt": {"vtab": {"da_vpt": 16}, "fgvc": {"da_vpt": 5}},
    "e2vpt": {"vtab": {"e2vpt": 19}, "fgvc": {"e2vpt": 5}},
    "rlrr": {"vtab": {"rlrr": 19}, "fgvc": {"rlrr": 5}},
    "cara": {"vtab": {"cara": 19}},
    "san": {"vtab": {"san": 1, "san_neurons": 1, "san_recalibrated": 1}},
}
# Methods of these files that are not in san/methods. A name goes from here when its method comes.
NOT_A_METHOD_YET = (
    {"difffit"}
    | {"gps", "sct", "dtl", "dtl_plus", "snell_8", "snell_16", "snell_32", "snella_32", "cvpt"}
    | {"da_vpt", "e2vpt", "cara", "spt_adapter", "spt_lora"}
)


@cache
def lines(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def value(text: str) -> Any:
    """Return a field as a number, truth value, list or text; YAML does not know 5e-3."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return yaml.safe_load(text)


def options(line: dict[str, str]) -> dict[str, Any]:
    """Return the options of a line's method: those of its variant, and its values."""
    given = dict(word.split("=") for word in line["settings"].split())
    for column, text in line.items():
        if column.startswith("method.") and text:
            given[column.removeprefix("method.")] = value(text)
    return given


def test_the_files_are_those_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.csv")} == set(LINES)
    total = sum(len(lines(name)) for name in LINES)
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert f"{total} lines in {len(LINES)} files" in readme
    for name in LINES:
        assert re.search(rf"^\|(.*,)? {name}[ ,]", readme, re.MULTILINE), name


@pytest.mark.parametrize("name", LINES)
def test_no_line_is_missing_and_none_is_there_twice(name: str) -> None:
    expected = {
        (suite, method): n for suite, row in LINES[name].items() for method, n in row.items()
    }
    assert Counter((line["suite"], line["method"]) for line in lines(name)) == expected
    keys = Counter(tuple(line[column] for column in KEY) for line in lines(name))
    assert set(keys.values()) == {1}


@pytest.mark.parametrize("name", LINES)
def test_lines_are_in_our_names_and_order_and_have_a_source(name: str) -> None:
    previous: dict[tuple[str, ...], int] = {}
    for line in lines(name):
        assert line["suite"] in ("vtab", "fgvc", "gic")
        assert line["backbone"] == "*" or (BACKBONES / f"{line['backbone']}.yaml").exists()
        tasks = ["*", *load_suite(line["suite"]).tasks]
        group = tuple(line[column] for column in KEY[:-1])
        assert tasks.index(line["task"]) > previous.get(group, -1), line
        previous[group] = tasks.index(line["task"])
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{7}:\S+", line["source"]), line


@pytest.mark.parametrize("name", LINES)
def test_columns_are_settings_or_options_and_each_has_a_value(name: str) -> None:
    columns = list(lines(name)[0])
    assert columns[:5] == KEY
    assert columns[-1] == "source"
    settings = {field.name for field in dataclasses.fields(Recipe)} - {"precision"}
    for column in columns[5:-1]:
        known = column in settings | NOT_IN_A_RECIPE_YET or column.startswith("method.")
        assert known, column
        assert any(line[column] for line in lines(name)), column
        assert all(line[column] == line[column].strip() for line in lines(name)), column


def test_a_recipe_takes_every_value() -> None:
    rules = get_type_hints(Recipe, include_extras=True)
    checked = 0
    for name in LINES:
        for line in lines(name):
            given = {key: value(text) for key, text in line.items() if key in rules and text}
            for key, number in given.items():
                check_value(number, rules[key], f"{name}: {key}")
            checked += len(given)
    assert checked > 1061 * 3  # most have five; V-PETL Bench two


def test_methods_that_we_have_take_every_option() -> None:
    ours = set(method_names())
    unknown = set()
    checked = 0
    for name in LINES:
        for line in lines(name):
            if line["method"] not in ours:
                unknown.add(line["method"])
                continue
            given = options(line)
            known = check_options(line["method"], given)
            assert set(given) <= set(known)
            checked += len(given) > 0
    assert unknown == NOT_A_METHOD_YET
    # mai 10 methods; sct 3; vpetl 4; adapter_plus with 24 tasks twice, twice 19, and lora
    of_their_own = 3 * 2 * 19 + 24  # convpass, fact, repadapter; rlrr
    assert checked == 3 + 10 * 19 + 3 * 19 + 4 * 24 + (2 * 24 + 2 * 19 + 1) + 3 + of_their_own


# Typed from the sources: file, words that only its line has, column, number.
TYPED = """
    ssf           vtab ssf cifar                            lr                      5e-3
    ssf           vtab ssf cifar                            weight_decay            5e-5
    ssf           fgvc ssf stanford_cars                    lr                      2e-2
    ssf           gic ssf imagenet swin_b_in22k             lr                      5e-3
    ssf           gic ssf imagenet vit_b16_augreg_in21k     batch_size              256
    ssf           gic ssf imagenet convnext_b_in22k         ema_decay               0.99992
    noah          vtab lora *                               method.rank             8
    fact          vtab fact_tk dtd                          method.rank             16
    fact          vtab fact_tk dtd                          method.scale            0.01
    fact          vtab fact_tt clevr_dist                   method.rank             4
    fact          vtab fact_tt clevr_dist                   method.scale            10
    convpass      vtab convpass kitti                       method.scale            10
    convpass      vtab convpass_attn smallnorb_azi          method.scale            100
    repadapter    vtab repadapter svhn                      method.scale            10
    repadapter    vtab repadapter_attn dsprites_ori         method.scale            5
    vpt           vtab vpt_deep sun397                      lr                      12.5
    vpt           vtab vpt_deep sun397                      method.num_prompts      5
    vpt           vtab vpt_deep dmlab                       lr                      0.25
    adapter_plus  fgvc vpt_deep stanford_cars               method.num_prompts      200
    adapter_plus  vtab vpt_deep cifar                       method.num_prompts      10
    adapter_plus  vtab full *                               lr                      1e-4
    mai           vtab lora cifar                           method.rank             1
    mai           vtab lora cifar                           lr                      0.01
    mai           vtab adaptformer caltech101               method.bottleneck_dim   32
    mai           vtab adaptformer caltech101               method.scale            0.05
    mai           vtab adapter cifar placement=houlsby      method.bottleneck_dim   8
    mai           vtab adapter cifar placement=houlsby      method.scale            0.01
    mai           vtab adapter svhn placement=houlsby       method.scale            10
    mai           vtab vpt_deep cifar                       method.num_prompts      5
    sct           vtab sct cifar                            lr                      0.013
    sct           vtab sct cifar                            weight_decay            1
    vpetl         vtab full cifar                           lr                      5e-4
    gps           fgvc gps stanford_cars                    method.times_para       15
    dtl           vtab dtl cifar vit_b16_orig_in21k         lr                      3e-4
    snell         vtab snella_32 cifar                      method.target_ratio     0.8
    cvpt          vtab cvpt cifar                           lr                      1e-3
    da_vpt        vtab da_vpt cifar                         method.wd_head          20
    rlrr          vtab rlrr clevr_dist                      lr                      1e-2
    rlrr          vtab rlrr clevr_dist                      method.dropout          0.2
    cara          vtab cara cifar                           method.init_mean        1.5
    san           vtab san *                                weight_decay            0
    san           vtab san *                                batch_size              64
"""


def test_numbers_are_those_of_the_sources() -> None:
    typed = [row.split() for row in TYPED.strip().splitlines()]
    assert len(typed) == 42
    for name, *words, column, number in typed:
        key = set(words)
        found = [line for line in lines(name) if key <= {line[each] for each in KEY}]
        assert len(found) == 1, (name, words)
        assert float(found[0][column]) == float(number), (name, words)


def test_each_adapter_of_mai_has_its_scale() -> None:
    """How often each value of their grid was chosen, counted in their final runs."""
    found: dict[str, Counter[str]] = {"": Counter(), "placement=houlsby": Counter()}
    for line in lines("mai"):
        if line["method"] == "adapter":
            found[line["settings"]][line["method.scale"]] += 1
    assert found[""] == {"0.01": 3, "0.1": 3, "1": 11, "10": 2}
    assert found["placement=houlsby"] == {"0.01": 6, "0.1": 6, "1": 4, "10": 3}
    svhn = [line for line in lines("mai") if (line["method"], line["task"]) == ("adapter", "svhn")]
    assert [line["method.scale"] for line in svhn] == ["10", "10"]


# The suites' own recipes: learning rates by method, and the file that has them.
RATES = """
    vtab          vtab *         noah          adapter lora vpt_deep
    vtab          vtab *         adapter_plus  full linear
    vtab          vtab cifar     adapter_plus  adapter_plus
    fgvc          fgvc *         adapter_plus  full linear
    fgvc          fgvc cub       adapter_plus  adapter_plus vpt_deep
    fgvc          fgvc cub       ssf           ssf
    gic_cifar100  gic cifar100   ssf           full linear ssf
    gic_imagenet  gic imagenet   ssf           full linear ssf
"""
VIT_B16 = ("vit_b16_orig_in21k", "vit_b16_augreg_in21k")


def test_rates_of_the_suites_are_those_of_their_sources() -> None:
    found: dict[str, dict[str, float]] = {}
    for row in RATES.strip().splitlines():
        recipe, suite, task, name, *methods = row.split()
        for line in lines(name):
            if (line["suite"], line["task"]) != (suite, task) or line["backbone"] not in VIT_B16:
                continue
            if line["method"] in methods:
                found.setdefault(recipe, {})[line["method"]] = float(line["lr"])
    assert found.keys() == {"vtab", "fgvc", "gic_cifar100", "gic_imagenet"}
    for recipe, rates in found.items():
        path = BACKBONES.parent / "recipe" / f"{recipe}.yaml"
        stated = yaml.safe_load(path.read_text("utf-8"))
        by_method = {method: float(rate) for method, rate in stated["lr"].items()}
        assert by_method.pop("default") == 1e-3
        assert by_method == rates, recipe
        assert stated["trials"] == {"default": 1}, recipe


def test_what_no_source_says_is_empty() -> None:
    assert "lr" not in lines("san")[0]
    assert "lr" not in lines("e2vpt")[0]
    full = [line for line in lines("vpetl") if line["method"] == "full"]
    assert [line["task"] for line in full if not line["lr"]] == ["dtd"]
    cvpt = [line for line in lines("cvpt") if not line["weight_decay"]]
    assert [line["task"] for line in cvpt] == ["cifar"]
