"""The programs: what is called how, in a checkout and from a wheel."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import san
from san import commands, installation
from san.recipe_files import read_rows

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
# What a text that is right in a checkout alone would say.
OF_A_CHECKOUT = re.compile(r"python (?:scripts/|train\.py)|scripts/\w+\.py|pip install|parents\[")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The situation of a wheel, in an empty working directory."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(installation, "IS_CHECKOUT", False)
    monkeypatch.setattr(installation, "WRITE_ROOT", Path())
    return work


def placed(folder: Path, name: str) -> ModuleType:
    """san/installation.py as if the package were in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "installation.py"
    path.write_text((ROOT / "san/installation.py").read_text("utf-8"))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_data_files_are_beside_the_package_or_in_it(tmp_path: Path) -> None:
    checkout = placed(tmp_path / "checkout" / "san", "in_checkout")
    assert checkout.IS_CHECKOUT
    assert tmp_path / "checkout" / "benchmarks" == checkout.BENCHMARKS
    assert tmp_path / "checkout" == checkout.WRITE_ROOT
    (tmp_path / "site" / "san" / "configs").mkdir(parents=True)
    wheel = placed(tmp_path / "site" / "san", "in_wheel")
    assert not wheel.IS_CHECKOUT
    found = (wheel.CONFIGS, wheel.BENCHMARKS, wheel.CLUSTERS)
    folders = ("configs", "benchmarks", "clusters")
    assert found == tuple(tmp_path / "site" / "san" / name for name in folders)
    assert Path() == wheel.WRITE_ROOT


def test_the_wheel_has_what_is_looked_for_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    targets = project["tool"]["hatch"]["build"]["targets"]
    folders = {
        path.name for path in (installation.CONFIGS, installation.BENCHMARKS, installation.CLUSTERS)
    }
    assert folders == {"configs", "benchmarks", "clusters"}
    assert targets["wheel"]["sources"] == {name: f"san/{name}" for name in folders}
    assert set(targets["wheel"]["only-include"]) == {"san", *folders}
    assert set(targets["sdist"]["only-include"]) > {"san", *folders}
    assert project["project"]["scripts"] == {"san-peft": "san.commands:main"}
    assert (ROOT / "san/py.typed").is_file()


def test_every_script_is_a_program_and_every_program_has_a_script() -> None:
    assert len(SCRIPTS) >= 6
    assert commands.program_names() == sorted([*SCRIPTS, "train"])
    for name in commands.program_names():
        script = ROOT / ("train.py" if name == "train" else f"scripts/{name}.py")
        assert f'    run("{name}")\n' in script.read_text("utf-8")
        assert callable(importlib.import_module(f"san.commands.{name}").main)


def test_a_program_is_called_as_it_is_here(installed: Path) -> None:
    assert installation.command("prepare") == "san-peft prepare"
    assert installation.command_words("train") == ["san-peft", "train"]
    assert installation.install_command("ray") == "pip install 'san-peft[ray]'"


def test_in_a_checkout_a_program_is_a_script() -> None:
    assert installation.command("prepare") == "python scripts/prepare.py"
    assert installation.command("train") == "python train.py"
    assert installation.install_command("ray") == "pip install -e '.[ray]'"
    called = []
    for name in commands.program_names():
        words = installation.command_words(name)
        assert (ROOT / words[1]).is_file()
        called.append(words[1])
    assert len(set(called)) == len(called)


@pytest.mark.parametrize("program", commands.program_names())
def test_a_help_text_calls_programs_as_they_are_called_here(program: str, installed: Path) -> None:
    text = importlib.import_module(f"san.commands.{program}").__doc__
    assert text is not None
    calls = len(re.findall(r"python (?:scripts/\w+|train)\.py", text))
    assert calls >= 3
    here = installation.localize_commands(text)
    assert len(re.findall(r"^san-peft \w+", here, re.MULTILINE)) == calls
    assert "python" not in here
    for line, line_here in zip(text.splitlines(), here.splitlines(), strict=True):
        assert line.find("  # ") == line_here.find("  # ")


def advice() -> Iterator[tuple[Path, str]]:
    """What the package may say: its strings, but for docstrings."""
    for path in sorted((ROOT / "san").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        skipped = set()
        for node in ast.walk(tree):
            if isinstance(node, documented) and ast.get_docstring(node) is not None:
                skipped.add(node.body[0].value)
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and node not in skipped:
                yield path, node.value


def test_no_advice_is_for_a_checkout_alone() -> None:
    texts = list(advice())
    assert len(texts) > 3000
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert "status" in targets
    makes = re.compile(rf"\bmake (?:(?:{'|'.join(targets)})\b|prepare-|reproduce-)")
    found = []
    for path, text in texts:
        if OF_A_CHECKOUT.search(text) or makes.search(text):
            found.append(str(path.relative_to(ROOT / "san")))
    # The first asks where it is.
    assert set(found) == {"data/task_data.py", "installation.py"}
    assert found.count("data/task_data.py") == 1


def test_one_module_looks_beside_the_package() -> None:
    paths = sorted((ROOT / "san").rglob("*.py"))
    assert len(paths) > 150
    for path in paths:
        text = path.read_text("utf-8")
        looks = re.search(r"__file__\)(?:\.resolve\(\))?\.parent", text)
        assert not looks or path.name == "installation.py", path


def run_main(*words: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from san.commands import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'numpy', 'hydra'} & {*sys.modules}"
    )
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_programs_and_imports_nothing_large(words: list[str]) -> None:
    shown = run_main(*words)
    assert shown.returncode == 0, shown.stderr
    listed = re.findall(r"^  (\w+) +(\w.*\.)$", shown.stdout, re.MULTILINE)
    assert [name for name, _ in listed] == commands.program_names()
    for name, summary in listed:
        assert importlib.import_module(f"san.commands.{name}").__doc__.startswith(summary)


def test_an_unknown_program_is_named_with_the_nearest() -> None:
    shown = run_main("tabels", "demo")
    assert shown.returncode == 1
    assert shown.stderr.startswith("Error: Unknown program 'tabels'. Did you mean tables")
    for name in commands.program_names():
        assert name in shown.stderr.partition("Allowed: ")[2]


def test_the_version_is_said() -> None:
    assert run_main("--version").stdout == f"san-peft {san.__version__}\n"


def test_a_program_is_given_the_rest_of_the_line() -> None:
    words = [*installation.process_words("tables"), "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("usage: san-peft tables [-h]")


def test_what_a_search_found_here_comes_before_what_is_shipped(installed: Path) -> None:
    tuned = "benchmarks/tuned/demo_vit_nano_lr.csv"
    published = "benchmarks/recipes/vpt.csv"
    for name, is_own in ((tuned, True), (published, False)):
        assert installation.find_rows(name, is_own=is_own) == ROOT / name
        path = installed / name
        path.parent.mkdir(parents=True)
        path.write_text("another checkout's")
    assert installation.find_rows(tuned, is_own=True) == Path(tuned)
    # Facts of papers are never those of the folder that one happens to be in.
    assert len(read_rows(installation.find_rows(published, is_own=False))) > 1
    (installed / "mine.csv").touch()
    for name in ("mine.csv", "none.csv"):
        assert installation.find_rows(name, is_own=False) == Path(name)
