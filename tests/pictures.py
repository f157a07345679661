"""Small images in the layouts that users have."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image


def picture(label: int, i: int, height: int = 12, width: int = 16) -> Image.Image:
    """A colour that tells the class, and noise that tells the image."""
    rng = np.random.default_rng([label, i])
    colour = np.random.default_rng(label).integers(0, 200, 3)
    return Image.fromarray((colour + rng.integers(0, 50, (height, width, 3))).astype(np.uint8))


def save(path: Path, label: int, i: int, **size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(label, i, **size).save(path)


def png(label: int, i: int) -> bytes:
    file = io.BytesIO()
    picture(label, i).save(file, "PNG")
    return file.getvalue()


def vtab_lists(folder: Path, sizes: dict[str, int], classes: int, **size: int) -> Path:
    """The vtab-1k folder of one task, of which no two images are equal; sizes by list."""
    for number, (name, count) in enumerate(sizes.items()):
        lines = []
        for i in range(count):
            path = f"images/{name}/{i:06d}.jpg"
            save(folder / path, i % classes, 10_000 * number + i, **size)
            lines.append(f"{path} {i % classes}\n")
        (folder / f"{name}.txt").write_text("".join(lines))
    return folder


def vpt_json(folder: Path, splits: dict[str, dict[str, object]], place: str = "images") -> Path:
    """VPT's json files, and the images below `place`, of which no two are equal."""
    for number, (name, entries) in enumerate(splits.items()):
        for i, path in enumerate(entries):
            save(folder / place / path, i, 10_000 * number + i)
        (folder / f"{name}.json").write_text(json.dumps(entries))
    return folder
