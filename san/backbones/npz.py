"""What an original `.npz` of the Vision Transformer authors must have to be of a model.

timm, which converts it, copies with broadcasting and flattens heads: it would take other ones.
"""

import contextlib
import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from san.runtime.files import open_regular
from san.runtime.formatting import format_bytes

_MOST_COMPRESSED = 10  # times; random numbers, which weights resemble, cannot be compressed
_NPZ_EMBEDDING = "embedding/kernel"


def check_npz(model: Any, path: Path) -> None:
    """Raise ValueError if it is of another patch size, depth or heads; timm checks the width."""
    with _opened_npz(path) as arrays:
        unpacked = sum(member.file_size for member in arrays.zip.infolist())
        if unpacked > _MOST_COMPRESSED * path.stat().st_size:
            raise ValueError(f"it would take {format_bytes(unpacked)} unpacked, as no weights do")
        kernels = [name for name in arrays.files if name.endswith(_NPZ_EMBEDDING)]
        if not kernels:
            raise ValueError(f"it has no {_NPZ_EMBEDDING}")
        prefix = kernels[0].removesuffix(_NPZ_EMBEDDING)
        patch = arrays[kernels[0]].shape[:2]
        depth = _depth(arrays, prefix)
        heads = _heads(arrays, prefix)
    wanted = tuple(model.patch_embed.proj.weight.shape[-2:])
    if patch != wanted:
        raise ValueError(f"its patches are {patch} pixels, those of the model {wanted}")
    if depth != len(model.blocks):
        raise ValueError(f"it has {depth} blocks, the model {len(model.blocks)}")
    model_heads = {block.attn.num_heads for block in model.blocks}
    if heads != model_heads:
        raise ValueError(
            f"its blocks have {_listed(heads)} heads, the model's {_listed(model_heads)}"
        )


def check_npz_blocks(path: Path, filled: int) -> None:
    """Raise ValueError if a file has more or fewer numbers for the blocks than were filled.

    timm copies arrays with broadcasting, and leaves out those that it does not look for.
    """
    stored = 0
    with _opened_npz(path) as arrays:
        for name in arrays.files:
            if "Transformer/encoderblock" in name:
                stored += math.prod(_array_shape(arrays, name))
    if stored != filled:
        raise ValueError(f"its blocks have {stored:,} numbers, those of the model {filled:,}")


@contextlib.contextmanager
def _opened_npz(path: Path) -> Iterator[Any]:
    """Open a file of arrays; it is closed also where numpy finds no archive in it."""
    with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


def _depth(arrays: Any, prefix: str) -> int:
    """Return the number of blocks, which are arrays of their own or stacked in one."""
    stacked = f"{prefix}Transformer/encoderblock/LayerNorm_0/scale"
    if stacked in arrays.files:
        return len(arrays[stacked])
    pattern = re.compile(re.escape(prefix) + r"Transformer/encoderblock_(\d+)/")
    numbered = set()
    for name in arrays.files:
        found = pattern.match(name)
        if found is not None:
            numbered.add(found.group(1))
    return len(numbered)


def _heads(arrays: Any, prefix: str) -> set[int]:
    """Return the numbers of heads that blocks have: one, in a file that is whole.

    The kernel of the queries is (width, heads, width of a head), behind the blocks if stacked.
    """
    blocks = f"{prefix}Transformer/encoderblock"
    heads = set()
    for name in arrays.files:
        if name.startswith(blocks) and name.endswith("/query/kernel"):
            heads.add(_array_shape(arrays, name)[-2])
    return heads


def _listed(numbers: Collection[int]) -> str:
    return " and ".join(map(str, sorted(numbers))) or "no"


def _array_shape(arrays: Any, name: str) -> tuple[int, ...]:
    """Return the shape of an array of an `.npz`, without reading its numbers."""
    with arrays.zip.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read_header = np.lib.format.read_array_header_2_0
        shape, _, _ = read_header(file)
    return tuple(shape)
