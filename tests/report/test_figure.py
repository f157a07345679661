"""The figure: which points there are, and its files."""

from pathlib import Path

import pytest
from samples import DEMO, VTAB, vtab_records

from san.report.figure import draw_figure, points
from san.report.table import make_table


def test_a_figure_has_ours_and_the_published(tmp_path: Path) -> None:
    table = make_table(VTAB, vtab_records())
    ours = points(table.ours)
    assert set(ours) == {"ssf", "lora‖"}
    assert ours["ssf"] == (100.0, pytest.approx(74.6))
    published = points(table.published)
    assert published["LoRA†◦"] == (pytest.approx(0.29e6), pytest.approx(72.25, abs=0.005))
    assert "SSF†" not in published  # its printed parameters count the head
    paths = draw_figure(table, tmp_path, "vtab")
    assert [path.name for path in paths] == ["vtab.pdf", "vtab.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vtab.pdf", "vtab.png"]
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_without_a_complete_row_there_is_no_figure(tmp_path: Path) -> None:
    assert draw_figure(make_table(DEMO, []), tmp_path, "demo") == []
    assert list(tmp_path.iterdir()) == []
