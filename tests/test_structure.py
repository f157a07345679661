"""Imports run one way, and limits of size and density hold."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = [ROOT / "san", ROOT / "scripts", ROOT / "benchmarks"]
# The way of the data: a module imports from its own package and from what stands before it.
LAYERS = (
    "version",
    "installation",
    "errors",
    "schema",
    "renamed_keys",
    "settings",
    "run_options",
    "tasks",
    "score",
    "chance",
    "answers",
    "counts",
    "runtime",
    "recipe_files",
    "data",
    "backbones",
    "layers",
    "methods",
    "adapter",
    "training",
    "config_keys",
    "record",
    "record_file",
    "config_files",
    "config_names",
    "recipe_resolvers",
    "compose",
    "record_names",
    "experiment",
    "trainer",
    "run_outputs",
    "run",
    "report",
    "predict",
    "search",
    "sweep",
    "cli",
    "commands",
)
# Which part of `san` may import a library that nobody else does.
ALONE = {
    "timm": ("san.backbones", "san.data.augment"),
    "torchvision": ("san.data.augment",),
    "tensorflow_datasets": ("san.data.prepare.sources.tfds",),
    "huggingface_hub": ("san.backbones.weights",),
    "hydra": ("san.cli", "san.compose", "san.config_files", "san.commands.train"),
    "omegaconf": (
        "san.cli",
        "san.compose",
        "san.recipe_resolvers",
        "san.config_files",
        "san.commands.train",
    ),
    "wandb": ("san.runtime.wandb_logger",),
    "peft": ("san.methods.peft",),
    "submitit": ("san.sweep.slurm",),
    "ray": ("san.sweep.ray_pool",),
    "sklearn": ("san.data.prepare.demo",),
    "pandas": ("san.report",),
    "scipy": (
        "san.chance",
        "san.report.compare",
        "san.report.within_task",
        "san.search.space",
    ),
    "matplotlib": ("san.report.figures",),
    "textalloc": ("san.report.figures",),
}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def trees() -> dict[str, ast.Module]:
    """The modules of `san` by dotted name."""
    found = {}
    for path in sorted((ROOT / "san").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imported_names(tree: ast.Module) -> set[str]:
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


def programs() -> list[Path]:
    found = [path for folder in PROGRAMS for path in sorted(folder.rglob("*.py"))]
    assert len(found) > 70
    return [*found, ROOT / "train.py"]


def test_imports_run_one_way() -> None:
    arrows = 0
    modules = {name: tree for name, tree in trees().items() if name != "san"}
    for name, tree in modules.items():
        for imported in imported_names(tree):
            if imported.partition(".")[0] != "san":
                continue
            assert "." in imported, f"{name} imports {imported}, which stands above all"
            order = LAYERS.index(layer(imported)), LAYERS.index(layer(name))
            assert order[0] <= order[1], f"{name} imports {imported}"
            arrows += order[0] != order[1]
    assert {layer(name) for name in modules} == set(LAYERS)
    assert arrows > 50


def test_a_method_knows_no_other_method() -> None:
    modules = trees()
    methods = {name for name in modules if name.startswith("san.methods.")}
    assert len(methods) > 10
    for name in methods:
        imported = {i.rpartition(".")[0] for i in imported_names(modules[name])}
        assert not imported & methods, name


def test_some_libraries_are_known_to_one_part() -> None:
    users = {library: set() for library in ALONE}
    for name, tree in trees().items():
        for library in {i.split(".")[0] for i in imported_names(tree)} & set(ALONE):
            users[library].add(name)
    for library, allowed in ALONE.items():
        assert users[library], library
        strangers = {name for name in users[library] if not name.startswith(allowed)}
        assert not strangers, library


def test_the_documentation_states_the_order_of_imports() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    (order,) = re.findall(r"```text\n(version .*?)\n```", text, re.DOTALL)
    assert tuple(order.split()) == LAYERS


def test_files_and_functions_are_small() -> None:
    for path in programs():
        text = path.read_text()
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 50, f"{path}:{node.lineno} {node.name}"


def test_one_thought_a_line() -> None:
    """Syntax nodes a line (all that ast.walk yields, over non-blank lines), and comprehensions."""
    nodes, lines = Counter(), Counter()
    for path in sorted((ROOT / "san").rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text)
        nodes[path] = sum(1 for _ in ast.walk(tree))
        lines[path] = sum(1 for line in text.splitlines() if line.strip())
        comprehensions = Counter(
            node.lineno for node in ast.walk(tree) if isinstance(node, COMPREHENSIONS)
        )
        crowded = [line for line, count in comprehensions.items() if count > 1]
        assert not crowded, f"{path}: {crowded}"
        assert nodes[path] <= 9 * lines[path], f"{path}: {nodes[path] / lines[path]:.1f}"
    assert nodes.total() <= 8 * lines.total()


def test_no_two_assignments_in_one() -> None:
    """`a, b = x, y` is two statements, but for a swap."""
    for path in programs():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                assert not isinstance(node.value, ast.Tuple), f"{path}:{node.lineno}"


def test_modules_show_their_face() -> None:
    """A function that only its own module uses is private."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    files = [*programs(), *(ROOT / "tests").rglob("*.py"), *pages]
    words = {path: Counter(re.findall(r"\w+", path.read_text())) for path in files}
    everywhere = sum(words.values(), Counter())
    public = 0
    for path in sorted((ROOT / "san").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                public += 1
                here = words[path][node.name]
                is_contract = path.parent.name == "methods"
                used = everywhere[node.name] > here or is_contract
                assert used, f"{path}: {node.name} is used here alone"
    assert public > 100


def calls() -> list[tuple[str, ast.Call]]:
    """Every call in a program, with where it is."""
    found = []
    for path in programs():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                found.append((f"{path}:{node.lineno}", node))
    assert len(found) > 3000
    return found


def keywords(call: ast.Call) -> dict[str | None, object]:
    """The keywords of a call, with the values of constants."""
    return {word.arg: getattr(word.value, "value", word.value) for word in call.keywords}


def opens_text(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes text by a method of a path, or runs a program."""
    if keywords(call).get("text") is True:
        return True
    if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func.value) == "files":
        return False
    if call.func.attr in ("read_text", "write_text"):
        return True
    mode = getattr(call.args[0], "value", None) if call.args else "r"
    return call.func.attr == "open" and isinstance(mode, str) and "b" not in mode


def test_text_is_utf_8_whatever_the_locale() -> None:
    texts = [(where, call) for where, call in calls() if opens_text(call)]
    assert len(texts) > 10
    for where, call in texts:
        encodings = [getattr(argument, "value", None) for argument in call.args]
        assert "utf-8" in (*encodings, keywords(call).get("encoding")), where


def test_nothing_is_read_that_could_run_code() -> None:
    found = Counter()
    for where, call in calls():
        name = ast.unparse(call.func)
        root = name.partition(".")[0]
        assert root not in ("pickle", "marshal", "shelve", "joblib", "eval", "exec"), where
        assert name not in ("torch.load", "yaml.load", "np.fromfile"), where
        if name == "np.load":
            assert keywords(call)["allow_pickle"] is False, where
        if name == "Image.open":
            assert "formats" in keywords(call), where
        found[name] += 1
    assert found["np.load"] >= 2
    assert found["Image.open"] > 0


def test_tests_are_laid_out_like_the_package() -> None:
    packages = {path.parent.name for path in (ROOT / "san").rglob("__init__.py")} - {"san"}
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")} - {"tests"}
    assert folders - {"data_tier"} <= packages
    assert packages - {"sources"} <= folders


def test_nothing_private_is_committed() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if not listed.stdout:
        pytest.skip("not a git checkout")
    kinds = (".py", ".md", ".yaml", ".toml", ".cff", "Makefile")
    texts = [file for file in listed.stdout.split() if file.endswith(kinds)]
    assert len(texts) > 40
    private = re.compile(r"/(home|Users|root|work)/\w|api[_-]?key\s*=\s*['\"]\w{20}", re.IGNORECASE)
    for file in texts:
        if "test_structure" not in file and (ROOT / file).exists():
            assert not private.search((ROOT / file).read_text()), file
