"""What a person is shown of a task."""

from pathlib import Path

import pictures
from small_tasks import DTD, LISTS, VTAB, packed

from san.data import verify
from san.data.prepare.card import class_names, task_card
from san.data.prepare.contact_sheet import draw_sheet


def test_cards_and_sheets(tmp_path: Path) -> None:
    home = packed(*DTD, pictures.vtab_lists(tmp_path / "dtd", LISTS, 47), tmp_path / "data")
    text = task_card(DTD[1], home)
    assert "train: 8 of 47 classes, 0 to 1 images a class; absent: crosshatched" in text
    assert "train+val: 8 of 47 classes" in text
    assert "| 0 | banded | 1 | 2 | 1 |" in text
    assert "first of the ten official folds" in text
    assert "Not packed here" in task_card(VTAB.task("sun397"), None)
    draw_sheet(
        DTD[1],
        class_names(DTD[1], home),
        verify.load_part(DTD[1], home, "train"),
        tmp_path / "sheet.png",
    )
    assert (tmp_path / "sheet.png").stat().st_size > 2000
