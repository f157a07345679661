"""Pictures of a task for a person to look at: a grid of images with their classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from san.data.resize import resize
from san.data.split import Split
from san.runtime.files import atomic_write
from san.tasks import Task

COLUMNS = 8
ROWS = 4
# In pixels.
TILE = 128
TEXT = 16
GAP = 4
COLUMN_WIDTH = TILE + GAP
ROW_HEIGHT = TILE + TEXT
FONT_SIZE = 12
NAME_LENGTH = 19  # characters that fit below a tile


def draw_sheet(task: Task, names: Sequence[str], split: Split, path: Path) -> None:
    """Write a PNG of 32 images of a split, each over the name of its class.

    Small images are enlarged pixel by pixel, others resized, so that all of an image is seen.
    """
    width = COLUMNS * COLUMN_WIDTH
    height = TEXT + ROWS * ROW_HEIGHT
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    title = f"{task.suite}/{task.name}: {len(split)} images, {len(names)} classes, {split.source}"
    pen.text((2, 1), title, "black", font)

    chosen = _choose_images(split.labels, COLUMNS * ROWS)
    for place, i in enumerate(chosen):
        row, column = divmod(place, COLUMNS)
        left = column * COLUMN_WIDTH
        top = TEXT + row * ROW_HEIGHT
        tile = _make_tile(split.image(i))
        sheet.paste(tile, (left, top))
        name = names[split.labels[i]]
        pen.text(
            (left + 2, top + TILE),
            _shorten(name),
            "black",
            font,
        )

    with atomic_write(path) as unfinished:
        sheet.save(unfinished, "PNG")


def _choose_images(labels: NDArray[np.int64], count: int) -> list[int]:
    """Return the numbers of at most `count` images, spread over the classes, in label order.

    The first image of each class, of evenly spaced classes if there are more; then, if there is
    room, the images that come first.
    """
    firsts: dict[int, int] = {}
    for i, label in enumerate(labels):
        firsts.setdefault(int(label), i)
    chosen = [firsts[label] for label in sorted(firsts)]
    if len(chosen) > count:
        last = len(chosen) - 1
        spaced = np.linspace(0, last, count).astype(int)
        chosen = [chosen[i] for i in spaced]
    others = sorted(set(range(len(labels))) - set(chosen))
    missing = count - len(chosen)
    chosen += others[:missing]
    return sorted(
        chosen,
        key=lambda i: (labels[i], i),
    )


def _shorten(name: str) -> str:
    if len(name) <= NAME_LENGTH:
        return name
    return name[: NAME_LENGTH - 1] + "…"


def _make_tile(image: NDArray[np.uint8]) -> Image.Image:
    """Return an image as a square: a small one by repeating its pixels, another one squashed."""
    longer = max(image.shape[:2])
    if longer > TILE // 2:
        (squashed,) = resize([image], "bicubic", TILE)
        return Image.fromarray(squashed)
    times = TILE // longer
    taller = image.repeat(times, axis=0)
    enlarged = taller.repeat(times, axis=1)
    square = (0, 0, TILE, TILE)
    return Image.fromarray(enlarged).crop(square)
