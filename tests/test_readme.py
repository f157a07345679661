"""What the README shows works: its commands compose, its example method attaches."""

import copy
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
import yaml
from conftest import composed, tiny_convnext, tiny_swin, tiny_vit
from statements import NOT_MERGED, states

import san
from san import methods
from san.data.prepare import demo_images

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_commands_compose() -> None:
    commands = [c for c in re.findall(r"`(python train\.py[^`]*)`", README) if " -" not in c]
    assert len(commands) >= 5
    for command in commands:
        assert composed(*shlex.split(command)[2:])["method"]["name"] in methods.method_names()


def test_the_table_of_the_demo_is_that_of_the_reference_runs() -> None:
    shown = README.split("<!-- table: make demo -->\n")[1].split("<!-- end of table -->")[0]
    assert shown == (ROOT / "results/reference/tables/demo.md").read_text("utf-8")


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"demo", "test", "check", "tables", "help"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target


def added(section: str) -> dict[str, str]:
    """The files that a section's diff adds, by name."""
    diff = README.split(f"## {section}\n")[1].split("```diff\n")[1].split("```")[0]
    files = {}
    for part in diff.split("+++ ")[1:]:
        name, *lines = part.splitlines()
        files[name] = "".join(
            line.removeprefix("+") + "\n" for line in lines if line.startswith("+")
        )
    return files


def test_the_example_method_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = added("Add a method")
    assert sum(text.count("\n") for text in files.values()) <= 40
    (tmp_path / "embedding.py").write_text(files["san/methods/embedding.py"])
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert files["configs/method/embedding.yaml"] == "name: embedding\n"
    for make, name in (
        (tiny_vit, "patch_embed.proj"),
        (tiny_swin, "patch_embed.proj"),
        (tiny_convnext, "stem.0"),
    ):
        model = make()
        adapter = san.attach(model, "embedding")
        model(torch.randn(2, 3, *([16, 16] if make is tiny_vit else [32, 32]))).sum().backward()
        assert {n for n, p in model.named_parameters() if p.grad is not None} == set(
            adapter.trainable
        )
        assert {n for n in adapter.trainable if not n.startswith("head.")} == {
            f"{name}.weight",
            f"{name}.bias",
        }


def test_the_example_task_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    files = added("Add a task")
    row = yaml.safe_load(files["benchmarks/demo.yaml"])["size"]
    code, _, entry = files["san/data/prepare/demo_images.py"].rpartition('    "size"')
    exec(code, demo_images.__dict__)
    monkeypatch.setitem(
        demo_images.DRAW,
        "size",
        eval(entry.strip().removeprefix(":").rstrip(","), demo_images.__dict__),
    )
    images, labels = demo_images.draw("size", len(row["classes"]), 6, seed=0)
    assert images.shape == (6, 32, 32, 3)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_the_example_backbone_is_one_that_timm_has() -> None:
    (text,) = added("Add a backbone").values()
    assert yaml.safe_load(text)["timm_name"] in timm.list_pretrained()
    assert yaml.safe_load(text).keys() == composed()["backbone"].keys()


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, but for the weights, which cannot be fetched here: random ones by seed."""
    create = timm.create_model

    def seeded(name: str, pretrained: bool, **options: int) -> torch.nn.Module:
        torch.manual_seed(0)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", seeded)
    monkeypatch.chdir(tmp_path)
    code = README.split("## As a library\n")[1].split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code, names)
    assert names["adapter"].counts.trainable == 122_112 + 76_900
    images = torch.randn(1, 3, 224, 224)
    assert torch.allclose(names["model"].eval()(images), names["fresh"].eval()(images), atol=1e-4)


def test_the_table_of_methods_is_true() -> None:
    table = README.split("## Methods\n\n")[1].split("\n\n")[0]
    rows = [row.split("|")[1:-1] for row in table.splitlines()[2:]]
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    assert len(listed) == len(set(listed)) >= 18
    assert set(listed) <= set(methods.method_names())
    for names_cell, _, counts_cell, merges, _ in rows:
        names = re.findall(r"`(\w+)`", names_cell)
        counts = re.findall(r"[\d,]+", counts_cell)
        if len(counts) == 1:
            counts *= len(names)
        for name, count in zip(names, counts, strict=True):
            adapter = san.attach(copy.deepcopy(vit_b16()), name)
            trained = adapter.counts.trainable - adapter.counts.head
            assert trained == int(count.replace(",", "")), name
            expected = "no" if states(name, NOT_MERGED) else "yes" if adapter.added else ""
            assert merges.strip() == expected, name


@cache
def vit_b16() -> torch.nn.Module:
    return timm.create_model("vit_base_patch16_224", num_classes=10)
