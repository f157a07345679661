"""Pictures that tell their label, and files of them."""

import io
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RNG = np.random.default_rng(0)
Pixels = NDArray[np.uint8]


def picture(label: int, height: int, width: int, channels: int = 3, task: int = 0) -> Pixels:
    """A 4 x 4 pattern fixed by the label, enlarged, plus noise."""
    rng = np.random.default_rng([task, int(label)])
    pattern = rng.integers(40, 216, (4, 4, channels))
    noise = RNG.integers(-25, 26, (8, 8, channels))
    noisy = enlarged(pattern, height, width) + enlarged(noise, height, width)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def enlarged(grid: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """Repeat the cells of a grid `(cells, cells, C)`."""
    cells = len(grid)
    rows = np.arange(height) * cells // height
    columns = np.arange(width) * cells // width
    return grid[rows][:, columns]


def jpeg(array: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze()).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def png(array: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def put_lines(path: Path, lines: list[str]) -> None:
    put(path, "".join(f"{line}\n" for line in lines))


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
