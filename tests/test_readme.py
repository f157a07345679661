"""README is short, and what it shows works; its commands are those of tests/test_docs.py."""

import re
from pathlib import Path

import pytest
import timm
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TABLE_END = "<!-- end of table -->"


def shown_table() -> str:
    return README.split("<!-- table: make demo -->\n")[1].split(TABLE_END)[0]


def test_it_is_a_five_minute_read() -> None:
    without_table = README.replace(shown_table(), "")
    assert without_table.count("\n") <= 180
    assert README.count(TABLE_END) == 1


def test_the_table_of_the_demo_is_that_of_the_reference_runs() -> None:
    assert shown_table() == (ROOT / "results/reference/tables/demo.md").read_text("utf-8")


def test_it_leads_to_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    # The front page is README, and these are files of the root or of benchmarks/.
    elsewhere = {"index.md", "changelog.md", "contributing.md"}
    behind_others = {"published.md", "published_recipes.md"}
    linked = set(re.findall(r"\]\(docs/(\w+\.md)[#)]", README))
    assert linked == pages - elsewhere - behind_others
    assert len(linked) >= 13


def test_the_library_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, but for the weights, which cannot be fetched here: random ones by seed."""
    create = timm.create_model

    def seeded(name: str, pretrained: bool, **options: int) -> torch.nn.Module:
        torch.manual_seed(0)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", seeded)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    exec(blocks[0], names)
    assert names["adapter"].counts.trainable == 122_112 + 76_900
    images = torch.randn(1, 3, 224, 224)
    assert torch.allclose(names["model"].eval()(images), names["fresh"].eval()(images), atol=1e-4)
    exec(blocks[1], names)
    with torch.no_grad():
        assert names["model"](images).shape == (1, 100)  # cifar's head again, after pets' of 37
    assert names["cifar"].method == "san"
    assert names["pets"].method == "lora"
