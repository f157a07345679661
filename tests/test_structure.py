"""Configurations compose, imports run one way, limits of size hold."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from conftest import composed

from san import methods
from san.experiment import from_config
from san.tasks import load_suite, suite_names

ROOT = Path(__file__).parents[1]
# The way of the data: a module imports from its own package and from what stands before it.
LAYERS = [
    "version",
    "errors",
    "tasks",
    "score",
    "runtime",
    "data",
    "backbones",
    "layers",
    "methods",
    "adapter_file",
    "adapter",
    "training",
    "record",
    "experiment",
    "run",
    "report",
    "compose",
    "sweep",
    "cli",
]
ALONE = {  # who may import what nobody else does
    "timm": {
        "san.backbones.families",
        "san.backbones.load",
        "san.backbones.sites",
        "san.data.augment",
    },
    "torchvision": {"san.data.augment"},
    "tensorflow_datasets": {"san.data.prepare.sources.tfds"},
    "huggingface_hub": {"san.backbones.load"},
    "hydra": {"san.cli", "san.compose"},
    "omegaconf": {"san.cli", "san.compose"},
    "wandb": {"san.runtime.wandb_logger"},
    "submitit": {"san.sweep.slurm"},
    "ray": {"san.sweep.ray_pool"},
    "sklearn": {"san.data.prepare.demo"},
    "pandas": {"san.report.table", "san.report.render"},
    "matplotlib": {"san.report.figure"},
}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted((ROOT / "san").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> set[str]:
    """Dotted names of what a module imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(module: str) -> str:
    return module.split(".")[1]


def test_imports_run_one_way() -> None:
    trees = modules()
    arrows = 0
    for name, tree in trees.items():
        if name == "san":
            continue  # offers `san.attach`, and stands above all
        for imported in imports(tree):
            if imported.partition(".")[0] == "san":
                assert imported.count("."), f"{name} imports {imported}, which stands above it"
                assert LAYERS.index(layer(imported)) <= LAYERS.index(layer(name)), (
                    f"{name} imports {imported}"
                )
                arrows += layer(imported) != layer(name)
    there = {
        path.stem
        for path in (ROOT / "san").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - {"__init__"} == set(LAYERS) == {layer(name) for name in trees if name != "san"}
    assert arrows > 50


def test_some_libraries_are_known_to_one_module() -> None:
    users: dict[str, set[str]] = {library: set() for library in ALONE}
    for name, tree in modules().items():
        for library in {i.split(".")[0] for i in imports(tree)} & set(ALONE):
            users[library].add(name)
    assert users == ALONE


def test_files_and_functions_are_small() -> None:
    paths = [p for folder in ("san", "scripts") for p in (ROOT / folder).rglob("*.py")] + [
        ROOT / "train.py"
    ]
    assert len(paths) > 25
    for path in paths:
        text = path.read_text()
        assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{path}:{node.lineno} {node.name}"


def test_every_cell_composes(data_root: Path) -> None:
    cells = [
        (f"data={suite}/{task}", f"method={method}")
        for suite in suite_names()
        for task in load_suite(suite).tasks
        for method in methods.method_names()
    ]
    assert len(cells) == (6 + 19 + 5 + 2 + 21) * 18
    for cell in cells[::7] + cells[-18:]:  # every task, every method, with the suite's own backbone
        assert composed(*cell)["method"]["name"] == cell[1].removeprefix("method=")
    demo = [cell for cell in cells if cell[0].startswith("data=demo/")]
    keys = {from_config(composed(*cell, f"data_root={data_root}"), []).identity for cell in demo}
    assert len(keys) == len(demo) == 6 * 18


def test_every_task_composes_and_says_how_to_get_its_data(tmp_path: Path) -> None:
    tasks = [
        f"{suite}/{task}"
        for suite in suite_names()
        if suite != "demo"
        for task in load_suite(suite).tasks
    ]
    assert len(tasks) == 19 + 5 + 2 + 21
    (tmp_path / "adapter").touch()
    for task in tasks:
        settings = [f"data={task}", "backbone=vit_nano", f"data_root={tmp_path}"]
        if task.startswith("robustness/"):
            with pytest.raises(
                ValueError, match="no training images: give restore=FILE, .* a run of gic/imagenet"
            ):
                from_config(composed(*settings), [])
            settings.append(f"restore={tmp_path / 'adapter'}")
        with pytest.raises(
            FileNotFoundError, match=r"is not prepared below(.|\n)*scripts/prepare.py .* --from"
        ):
            from_config(composed(*settings), [])


@pytest.mark.parametrize("group", ["augment", "backbone", "method", "protocol", "logger", "recipe"])
def test_every_choice_composes_and_is_named_like_its_file(group: str) -> None:
    files = sorted((ROOT / "configs" / group).glob("*.yaml"))
    assert files
    for path in files:
        if path.stem != "timm":  # which takes its name from the command line
            assert composed(f"{group}={path.stem}")[group]["name"] == path.stem


def test_a_demo_task_brings_its_backbone_and_the_command_line_wins() -> None:
    assert composed("data=demo/count")["backbone"]["name"] == "vit_nano"
    assert (
        composed("data=demo/count", "backbone=vit_b16_orig_in21k")["backbone"]["name"]
        == "vit_b16_orig_in21k"
    )


def test_every_method_states_its_options_in_its_configuration() -> None:
    assert {path.stem for path in (ROOT / "configs/method").glob("*.yaml")} == set(
        methods.method_names()
    )
    for name in methods.method_names():
        options = composed(f"method={name}")["method"]
        assert options.pop("name") == name
        assert (
            methods.check_options(name, options)
            == methods.default_options(name)
            == methods.check_options(name, {})
        )
        assert options.keys() == methods.default_options(name).keys()


def test_nothing_private_is_committed() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    private = re.compile(r"/(home|Users|root|work)/\w|api[_-]?key\s*=\s*['\"]\w{20}", re.IGNORECASE)
    texts = [
        f
        for f in files
        if f.endswith((".py", ".md", ".yaml", ".toml", ".cff", "Makefile"))
        and "test_structure" not in f
    ]
    assert len(texts) > 40
    for file in texts:
        assert not private.search((ROOT / file).read_text()), file
