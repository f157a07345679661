"""Pictures of a task for a person to look at: a grid of images with their classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from san.data.resize import resize
from san.data.split import Split
from san.tasks import Task

COLUMNS, ROWS = 8, 4
TILE, TEXT, GAP = 128, 16, 4  # pixels


def chosen(labels: NDArray[np.int64], count: int) -> list[int]:
    """Return rows of images, spread over the classes in label order, as many as there is room for."""
    first = {int(label): int(row) for row, label in reversed(list(enumerate(labels)))}
    rows = [first[label] for label in sorted(first)]
    if len(rows) > count:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, count).astype(int)]
    others = [row for row in range(len(labels)) if row not in set(rows)]
    rows += others[: count - len(rows)]
    return sorted(rows, key=lambda row: (labels[row], row))


def draw_sheet(task: Task, names: Sequence[str], split: Split, path: Path) -> None:
    """Write a PNG: 32 images of a split, whole, each over the name of its class; enlarged pixel by pixel if small."""
    rows = chosen(split.labels, COLUMNS * ROWS)
    font = ImageFont.load_default(12)
    sheet = Image.new("RGB", (COLUMNS * (TILE + GAP), TEXT + ROWS * (TILE + TEXT)), "white")
    pen = ImageDraw.Draw(sheet)
    title = f"{task.suite}/{task.name}: {len(split)} images, {len(names)} classes, {split.made_by}"
    pen.text((2, 1), title, "black", font)
    for place, row in enumerate(rows):
        left, top = place % COLUMNS * (TILE + GAP), TEXT + place // COLUMNS * (TILE + TEXT)
        sheet.paste(tile(split.image(row)), (left, top))
        name = names[split.labels[row]]
        pen.text((left + 2, top + TILE), name if len(name) < 20 else name[:18] + "…", "black", font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def tile(image: NDArray[np.uint8]) -> Image.Image:
    """Return an image as a square: small ones by repeating pixels, others squashed."""
    side = max(image.shape[:2])
    if side <= TILE // 2:
        times = TILE // side
        large = Image.fromarray(image.repeat(times, 0).repeat(times, 1))
        return large.crop((0, 0, TILE, TILE))
    return Image.fromarray(resize([image], "bicubic", TILE)[0])
