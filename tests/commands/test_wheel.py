"""The wheel: what is in it, and that it works in an empty folder, far from any checkout.

Building fetches the build back-end from the package index.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pictures
import pytest

from san import commands, config_files
from san.tasks import suite_names

ROOT = Path(__file__).parents[2]
DATA_FOLDERS = ("configs", "benchmarks", "clusters")
QUICK = ["epochs=1", "logger=none"]
pytestmark = pytest.mark.sweep


def pip(*words: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def build(source: Path, folder: Path) -> Path:
    """The wheel of a source tree."""
    pip("wheel", "--no-deps", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


class Installed:
    """The wheel in an environment of its own, beside the packages of this one."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.bin = folder / "bin"
        venv.create(folder, symlinks=True)
        paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
        # Of a folder that is named in a .pth file, .pth files are not read: no checkout is near.
        others = Path(paths["purelib"]) / "others.pth"
        others.write_text(sysconfig.get_paths()["purelib"] + "\n")
        pip("--python", self.bin / "python", "install", "--no-deps", "--no-index", wheel)
        self.work = folder / "work"
        self.work.mkdir()

    def __call__(self, program: str, *words: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(self.bin / program), *words],
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("environment"), wheel)


def test_the_wheel_has_the_package_and_its_data_and_no_more(wheel: Path) -> None:
    expected = set()
    for folder in ("san", *DATA_FOLDERS):
        for path in (ROOT / folder).rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            if path.is_dir() or "__pycache__" in name or name.startswith("benchmarks/speed/"):
                continue
            expected.add(name if folder == "san" else f"san/{name}")
    assert len(expected) > 300
    known = {".py", ".typed", ".json", ".safetensors", ".md", ".yaml", ".csv", ".txt"}
    assert {Path(name).suffix for name in expected} <= known
    found = names_in(wheel)
    assert {name for name in found if ".dist-info/" not in name} == expected
    assert "san/benchmarks/tuned/demo_vit_nano_lr.csv" in found
    for name in ("py.typed", "record.schema.json", "weights/vit_nano.safetensors"):
        assert f"san/{name}" in found


def test_the_source_distribution_has_what_the_wheel_is_built_from(
    wheel: Path, tmp_path: Path
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    source = tmp_path / "source"
    source.mkdir()
    # The back-end adds these by itself.
    for name in (*included, "pyproject.toml", project["project"]["readme"], "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    assert names_in(build(source, tmp_path / "built")) == names_in(wheel)


def test_nothing_comes_from_the_checkout(installed: Installed) -> None:
    code = "import san, san.installation; print(san.__file__, san.installation.CONFIGS)"
    for path in installed("python", "-c", code).split():
        assert Path(path).is_relative_to(installed.bin.parent)
        assert not Path(path).is_relative_to(ROOT)


def test_all_choices_and_suites_are_there(installed: Installed) -> None:
    groups = sorted(path.name for path in (ROOT / "configs").iterdir() if path.is_dir())
    groups.remove("hydra")
    assert len(groups) >= 8
    code = (
        "import json, sys; from san import config_files, tasks\n"
        "found = {group: config_files.choices(group) for group in sys.argv[1:]}\n"
        "print(json.dumps([found, tasks.suite_names()]))"
    )
    found, suites = json.loads(installed("python", "-c", code, *groups))
    assert found == {group: [*config_files.choices(group)] for group in groups}
    assert suites == suite_names()


def test_the_programs_work_in_an_empty_folder(installed: Installed) -> None:
    shown = installed("san-peft", "--help")
    for name in commands.program_names():
        assert f"\n  {name} " in shown
    installed("san-peft", "train", "method=linear", *QUICK)
    assert {path.name for path in installed.work.iterdir()} == {"data", "results"}
    (path,) = installed.work.glob("results/records/demo/linear/*.json")
    record = json.loads(path.read_text("utf-8"))
    assert record["code"] == {}
    assert "linear [epochs=1]" in installed("san-peft", "tables", "demo")
    assert "san-peft train method=linear" in installed(
        "san-peft", "tables", "--cell", "demo", "linear", "digits"
    )


def test_own_images_are_answered_for_in_an_empty_folder(installed: Installed) -> None:
    for name in ("ants", "bees"):
        for i in range(12):
            pictures.save(
                installed.work / "insects" / name / f"{i}.png", len(name) + ord(name[0]), i
            )
    chosen = ["data=folder", "data.root=insects", "data.task=insects", "backbone=vit_nano"]
    installed("san-peft", "train", *chosen, "method=linear", "save_adapter=true", *QUICK)
    (adapter,) = installed.work.glob("results/records/folder/linear/*.safetensors")
    words = [str(adapter), "insects", "--output", "answers.csv"]
    assert "24" in installed("san-peft", "predict", *words)
    lines = (installed.work / "answers.csv").read_text("utf-8").splitlines()
    assert len(lines) == 1 + 24
    assert "**Own images: insects, vit_nano**" in installed("san-peft", "tables", "folder")


def test_a_worker_that_a_launcher_starts_works_in_an_empty_folder(installed: Installed) -> None:
    """As SLURM and Ray start it: by this command, in that folder."""
    code = (
        "import json\n"
        "from san.commands import reproduce\n"
        "words = ['demo', '--methods=linear', '--tasks=digits', '--seeds=7', 'epochs=1']\n"
        "args = reproduce.parse_arguments([*words, 'logger=none'])\n"
        "request = reproduce.make_request(args)\n"
        "print(json.dumps(request.worker_command(submitted_ns=1)))"
    )
    program, *words = json.loads(installed("python", "-c", code))
    assert Path(program).name.startswith("python")
    installed(program, *words)
    assert list(installed.work.glob("results/records/demo/linear/digits-seed7-*.json"))


def test_a_sweep_and_a_search_work_in_an_empty_folder(installed: Installed) -> None:
    chosen = ["demo", "--methods", "linear", "--tasks", "count", *QUICK]
    shown = installed("san-peft", "reproduce", *chosen, "--seeds", "0", "--jobs", "2")
    assert "1 runs: 1 done" in shown
    assert "**Demo suite**" in shown
    written = "benchmarks/tuned/demo_vit_nano_lr.csv"
    assert f"Written: {written}." in installed("san-peft", "search", *chosen, "--trials", "2")
    assert (installed.work / written).is_file()
    words = ["method=linear", "data=demo/count", "recipe=tuned", "--cfg", "job", "--resolve"]
    assert "our search lr, 2 trials" in installed("san-peft", "train", *words)
