"""What README and docs/ say is so: commands, tables of names and options, examples, links.

A command is executed as far as that is cheap: a run is composed, a script parses its arguments, a
target of Make is asked what it would do. What needs a cluster, data or the network is listed below
with its reason, and a command that is in neither fails.
"""

import argparse
import copy
import fnmatch
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from conftest import composed, tiny_convnext, tiny_eva, tiny_swin, tiny_vit
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from statements import merges
from test_makefile import dry_run

import san
from san import config_files, methods
from san.backbones import family
from san.data.prepare import demo_images
from san.errors import SanError
from san.report.value import Flag
from san.tasks import load_suite, suite_names

FAILED = pytest.fail.Exception
ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
PAGES += sorted((ROOT / "benchmarks").glob("*/README.md"))
PROGRAMS = "python|make|torchrun|pip|san-peft|eval|source|git|cd|wandb|sphinx-build|cffconvert"
FENCE = re.compile(r"^ *```(.*?)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
NOT_RUN = {
    "wandb sync": "an account",
    "san-peft --help": "an installed package; the tests of the programs make one",
    "git clone <this repository> san-peft": "the network",
    "cd san-peft": "it goes with the clone",
    "source .venv/bin/activate": "a shell; `make` makes the environment",
    "pip install hydra-optuna-sweeper": "the network",
    "python train.py -m hydra/sweeper=optuna hydra.sweeper.n_trials=20 "
    "hydra.sweeper.direction=maximize protocol=tune 'lr=tag(log,interval(1e-4,1e-1))'": (
        "needs hydra-optuna-sweeper"
    ),
}


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def spans(text: str) -> list[str]:
    """The code within lines."""
    prose = FENCE.sub("", text)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose)


def commands_of(text: str) -> Iterator[str]:
    """Yield every line of a block without a language, and every command within a line of text."""
    for language, block in FENCE.findall(text):
        for line in [] if language else block.splitlines():
            yield from re.sub(r" +# .*", "", line).strip().split(" && ")
    for span in spans(text):
        if re.match(rf"({PROGRAMS}) ", span):
            yield span


@cache
def all_commands() -> list[str]:
    found = {command: None for path in PAGES for command in commands_of(path.read_text("utf-8"))}
    return list(found)


TESTED = [c for c in all_commands() if c not in NOT_RUN]


def test_what_is_not_run_is_shown_and_most_is_run() -> None:
    assert {*NOT_RUN} <= set(all_commands())
    assert len(TESTED) > 60
    by_eye = {"make demo", "make reproduce-vtab LAUNCHER=slurm JOBS=8 CLUSTER=FILE"}
    by_eye |= {"python train.py", "python scripts/prepare.py vtab --plan", "make docs"}
    assert by_eye <= set(TESTED)


@pytest.mark.parametrize("command", TESTED)
def test_commands_do_what_can_be_tried_of_them(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = in_checkout(shlex.split(command))
    if words[0] == "make":
        check_make(words[1:], monkeypatch)
    elif words[:2] == ["pip", "install"]:
        check_extra(words[2:])
    elif words[:3] == ["python", "-m", "pytest"]:
        assert (ROOT / words[3]).exists()
    elif "train.py -" in command and " -m " not in command:
        assert shell(command)
    elif "san.commands" in words:
        name, *rest = words[words.index("san.commands") + 1 :]
        assert name == "train"
        check_runs(rest)
    elif "train.py" in words:
        check_runs(words[words.index("train.py") + 1 :])
    elif words[0] == "python":
        check_script(words[1], words[2:], monkeypatch)
    else:
        pytest.fail("neither tested, nor in NOT_RUN")


def in_checkout(words: list[str]) -> list[str]:
    """The words of `san-peft NAME ...` as its program is called in a checkout."""
    if words[0] != "san-peft":
        return words
    assert project()["scripts"].keys() == {"san-peft"}
    name = words[1] if len(words) > 1 else ""
    return ["python", "train.py" if name == "train" else f"scripts/{name}.py", *words[2:]]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def shell(command: str) -> str:
    """What a command prints, which does nothing else."""
    command = command.replace("python", sys.executable)
    if command.startswith("eval "):
        command = command.removeprefix('eval "$(').removesuffix(')"')
    done = subprocess.run(
        shlex.split(command), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def single_runs(words: Sequence[str]) -> list[list[str]]:
    """Of the runs that `-m` makes the first, and the one with the last choice of everything."""
    tasks = [f"{suite}/{task}" for suite in suite_names() for task in load_suite(suite).tasks]
    runs: list[list[str]] = [[], []]
    for override in OverridesParser.create().parse_overrides([w for w in words if w != "-m"]):
        choices = [str(override.input_line)]
        if override.is_sweep_override():
            value = override.value()
            if isinstance(value, Glob):
                choices = [f"{override.key_or_group}={name}" for name in value.filter(tasks)]
            else:
                choices = [
                    f"{override.key_or_group}={each}" for each in override.sweep_string_iterator()
                ]
        runs[0].append(choices[0])
        runs[1].append(choices[-1])
    return runs if "-m" in words else runs[:1]


def check_runs(words: Sequence[str]) -> None:
    for overrides in single_runs(words):
        assert composed(*overrides)["method"]["name"] in methods.method_names()


class Parsed(BaseException):
    """The arguments of a script, before it does anything with them."""


def check_script(script: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script until it has parsed its arguments, and look at those of a sweep."""
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, stopping(parse))
    monkeypatch.setattr(sys, "argv", [script, *words])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.syspath_prepend((ROOT / script).parent)
    with pytest.raises(Parsed) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    (arguments,) = stopped.value.args
    if not hasattr(arguments, "overrides"):
        return
    suite = load_suite(arguments.suite)
    task = next((f"{suite.name}/{name}" for name in suite.tasks), suite.name)  # of own images none
    for word in filter(None, arguments.methods.split(",")):
        methods.method_module(word.partition(":")[0])
    assert {*filter(None, arguments.tasks.split(","))} <= set(suite.tasks)
    others = [word for word in arguments.overrides if not word.startswith("data_root=")]
    if others and not others[0].startswith("recipe="):  # of a search that is not made yet
        composed(f"data={task}", *others)


def stopping(parse: Callable[..., Any]) -> Callable[..., Any]:
    def parse_and_stop(*args: Any, **keywords: Any) -> None:
        raise Parsed(parse(*args, **keywords))

    return parse_and_stop


def check_make(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make has the target and takes the variables, and what it would run has such arguments."""
    target = words[0]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
    shown = dry_run(*words)
    assert shown.returncode == 0, shown.stderr
    for line in shown.stdout.splitlines():
        script = re.search(r"python (scripts/\S+) (.*)", line)
        if script:
            with monkeypatch.context() as patch:
                check_script(script[1], shlex.split(script[2]), patch)


def check_extra(words: Sequence[str]) -> None:
    """`-e '.[slurm]'` of a checkout, or `'san-peft[slurm]'`."""
    *editable, extra = words
    name = r"\." if editable == ["-e"] else project()["name"]
    found = re.fullmatch(rf"{name}\[(\w+)\]", extra)
    assert found is not None
    assert found[1] in project()["optional-dependencies"]


def test_a_command_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (
        "python train.py metod=san",
        "python train.py -m method=linear,sann",
        "python scripts/tables.py --cells vtab san cifar",
        "make reproduce-vtab METHOD=lora",
        "make reproduce-vtab METHODS=lore",
        "make reproduce-vtab SET=epoch=1",
        "make plans",
        "pip install -e '.[doc]'",
        "python -m pytest tests/test_dogs.py",
        "apt-get install latex",
    ):
        with pytest.raises((SanError, HydraException, SystemExit, AssertionError, FAILED)):
            test_commands_do_what_can_be_tried_of_them(wrong, monkeypatch)


def test_files_that_are_named_are_there() -> None:
    folders = "san|configs|benchmarks|scripts|tests|clusters|docs|results/reference|results/tuned"
    named = 0
    for path in PAGES:
        text = path.read_text("utf-8")
        files = {span for span in spans(text) if re.fullmatch(rf"({folders})/[\w./-]*", span)}
        for file in files:
            assert (ROOT / file).exists() or file == "docs/_build/html", (path.name, file)
        named += len(files)
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", text)
        for link in links:
            assert (path.parent / link).exists(), (path.name, link)
        named += len(links)
    assert named > 80


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    table = re.search(r"^\|.*?\n\n", text.split(f"# {heading}\n")[1], re.DOTALL | re.MULTILINE)[0]
    lines = table.strip().splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([\w-]+)`", cell)


FAMILIES = ("ViT", "Eva", "Swin", "ConvNeXt")
METHODS = {names(row[0])[0]: row for row in rows(page("methods.md"), "What works where")}


def test_the_table_of_methods_has_all_that_ship() -> None:
    # Not all that there are: a method of one's own is a file and a configuration, and no more.
    assert set(METHODS) <= set(methods.method_names())
    assert len(METHODS) >= 18


@pytest.mark.parametrize("method", METHODS)
def test_the_table_of_methods_is_true(method: str) -> None:
    _, _, vit, eva, swin, convnext, trained, merged, official = METHODS[method]
    adapter = san.attach(copy.deepcopy(vit_b16()), method)
    assert adapter.counts.trainable - adapter.counts.head == int(trained.replace(",", ""))
    assert merged == (merges_on(method) if adapter.added else "")
    models = (tiny_vit(), tiny_eva(), tiny_swin(), tiny_convnext())
    for shown, model in zip((vit, eva, swin, convnext), models, strict=True):
        assert shown == works_on(method, family(model))
    assert bool(official) == (method in proven())


def works_on(method: str, on: str) -> str:
    """`yes`, `no`, or the targets that are its default there alone."""
    reason = getattr(methods.method_module(method), "incompatibility", lambda *_: None)
    if reason(on, methods.default_options(method, on)) is not None:
        return "no"
    return ", ".join(methods.family_defaults(method, on).get("targets", ["yes"]))


def merges_on(method: str) -> str:
    """`yes`, `no`, or the families that it works on and cannot be merged on."""
    families = [each for each in FAMILIES if works_on(method, each) != "no"]
    refused = [each for each in families if not merges(method, each)]
    if refused == families:
        return "no"
    return f"not {', '.join(refused)}" if refused else "yes"


@cache
def proven() -> set[str]:
    """Methods that are compared with what official code computed, or with HF peft itself."""
    folder = ROOT / "tests/oracles"
    ours = yaml.safe_load((folder / "ours.yaml").read_text("utf-8"))
    found = {"lora", "dora"}
    for path in folder.glob("*.npz"):
        entry = ours[path.stem]
        found.add(entry["method"])
        for mode in entry.get("modes", {}).values():
            options = methods.check_options(entry["method"], mode.get("options", {}))
            found |= {m for m in METHODS if methods.default_options(m) == options}
    assert len(found) >= 8
    return found


@cache
def vit_b16() -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model("vit_base_patch16_224", num_classes=10)


def test_the_options_and_their_defaults_are_those_of_the_code() -> None:
    shown: dict[str, dict[str, Any]] = {}
    for cell, options in rows(page("methods.md"), "Options and their defaults"):
        for method in names(cell):
            words = options.strip("`").split()
            shown[method] = {
                word.partition("=")[0]: yaml.safe_load(word.partition("=")[2]) for word in words
            }
    assert shown.keys() == METHODS.keys()
    for method, options in shown.items():
        defaults = methods.default_options(method)
        if "targets" in options:
            options["targets"] = tuple(options["targets"])
        if "propagation" in options and options["propagation"] is False:
            options["propagation"] = "off"  # which YAML takes for a truth value
        assert options == defaults, method


def test_lists_of_names_are_those_of_the_files() -> None:
    backbones = {names(row[0])[0] for row in rows(page("backbones.md"), "Backbones")}
    assert backbones == set(config_files.choices("backbone"))
    protocols = rows(page("recipes.md"), "As a paper did it")
    listed = [name for row in protocols for name in re.findall(r"\w+", row[0])]
    assert sorted(listed) == sorted(config_files.choices("protocol"))
    (experiments,) = re.findall(r"`experiment=`\*\* `([\w ]+)`", page("recipes.md"))
    assert sorted(experiments.split()) == sorted(config_files.choices("experiment"))
    suites = {names(row[0])[0] for row in rows(page("data.md"), "Data")}
    assert suites == set(suite_names()) - {"demo", "folder"}
    fgvc = next(row for row in rows(page("data.md"), "Data") if row[0] == "`fgvc`")
    assert fgvc[1].strip("`").split() == list(load_suite("fgvc").tasks)


def test_the_marks_of_tables_are_explained() -> None:
    marks = [row[0] for row in rows(page("tables.md"), "Marks")]
    assert sorted(marks) == sorted(flag.mark for flag in Flag)


def test_every_data_set_has_an_entry_to_cite() -> None:
    text = (DOCS / "datasets.bib").read_text("utf-8")
    assert text.count("{") == text.count("}")
    cited = []
    for entry in re.findall(r"keywords = \{(.*?)\}", text):
        cited += entry.split(", ")
    tasks = [f"{s}/{t}" for s in suite_names() if s != "demo" for t in load_suite(s).tasks]
    assert len(tasks) > 40
    for task in [*tasks, "demo/digits"]:
        assert sum(fnmatch.fnmatchcase(task, pattern) for pattern in cited) == 1, task
    for pattern in cited:
        assert fnmatch.filter([*tasks, "demo/digits"], pattern), pattern


def added(section: str) -> dict[str, str]:
    """The files that a section's diff adds, by name."""
    text = page("extending.md").split(f"## {section}\n")[1]
    diff = text.split("```diff\n")[1].split("```")[0]
    files = {}
    for part in diff.split("+++ ")[1:]:
        name, *lines = part.splitlines()
        new = [line.removeprefix("+") for line in lines if line.startswith("+")]
        files[name] = "".join(f"{line}\n" for line in new)
    return files


def test_the_example_method_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = added("Add a method")
    assert sum(text.count("\n") for text in files.values()) <= 40
    (tmp_path / "embedding.py").write_text(files["san/methods/embedding.py"])
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert files["configs/method/embedding.yaml"] == "name: embedding\n"
    for make, name, side in (
        (tiny_vit, "patch_embed.proj", 16),
        (tiny_swin, "patch_embed.proj", 32),
        (tiny_convnext, "stem.0", 32),
    ):
        model = make()
        adapter = san.attach(model, "embedding")
        model(torch.randn(2, 3, side, side)).sum().backward()
        received = {n for n, p in model.named_parameters() if p.grad is not None}
        assert received == set(adapter.trainable)
        beside_head = {n for n in adapter.trainable if not n.startswith("head.")}
        assert beside_head == {f"{name}.weight", f"{name}.bias"}


def test_the_example_task_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    files = added("Add a task")
    row = yaml.safe_load(files["benchmarks/demo.yaml"])["size"]
    code, _, entry = files["san/data/prepare/demo_images.py"].rpartition('    "size"')
    names_there = dict(vars(demo_images))
    exec(code, names_there)
    drawing = eval(entry.strip().removeprefix(":").rstrip(","), names_there)
    monkeypatch.setitem(demo_images.DRAW, "size", drawing)
    images, labels = demo_images.draw("size", len(row["classes"]), 6, seed=0)
    assert images.shape == (6, 32, 32, 3)
    assert np.array_equal(labels, [0, 1, 2, 0, 1, 2])


def test_the_example_backbone_is_one_that_timm_has() -> None:
    (text,) = added("Add a backbone").values()
    assert yaml.safe_load(text)["timm_name"] in timm.list_pretrained()
    assert yaml.safe_load(text).keys() == composed()["backbone"].keys()
