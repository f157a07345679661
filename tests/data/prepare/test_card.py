"""What a person is shown of a task."""

from pathlib import Path

import numpy as np
import pictures
from PIL import Image
from small_tasks import DTD, LISTS, VTAB

from san.data.prepare.card import class_names, task_card
from san.data.prepare.contact_sheet import draw_sheet


def test_the_card_counts_what_is_packed(tmp_path: Path) -> None:
    packed = DTD.pack(pictures.vtab_lists(tmp_path / "dtd", LISTS, 47), tmp_path / "data")
    lines = task_card(DTD.task, packed.folder).splitlines()
    assert f"Packed: {packed.folder}, made by vtab-1k folder." in lines
    (train,) = [line for line in lines if line.startswith("train:")]
    assert train.startswith("train: 8 of 47 classes, 0 to 1 images a class; absent: crosshatched")
    assert train.endswith(" ....")
    assert any(line.startswith("train+val: 8 of 47 classes, 0 to 2") for line in lines)
    table = lines.index("| label | class | train | train+val | test |")
    assert lines[table - 1] == ""  # or Markdown does not see a table
    assert lines[table + 1] == "|--:|:--|--:|--:|--:|"
    assert lines[table + 2] == "| 0 | banded | 1 | 2 | 1 |"
    assert len(lines) == table + 2 + 47


def test_the_card_of_a_task_that_is_not_packed() -> None:
    card = task_card(VTAB.task("dtd"), None)
    assert "first of the ten official folds" in card
    assert "Classes (47): banded, " in card
    assert "Not packed here" in card


def test_the_sheet_shows_images_as_they_are(tmp_path: Path) -> None:
    packed = DTD.pack(pictures.vtab_lists(tmp_path / "dtd", LISTS, 47), tmp_path / "data")
    split = packed.load_part("train")
    draw_sheet(DTD.task, class_names(packed), split, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (16 + 4 * 144, 8 * 132, 3)
    # Images of 8 pixels are enlarged 16 times; the first row of the sheet has all eight.
    tiles = [sheet[16 : 16 + 128, column * 132 : column * 132 + 128] for column in range(8)]
    for i, tile in enumerate(tiles):
        assert np.array_equal(tile[::16, ::16], split.image(i))
