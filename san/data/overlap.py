"""Images that two splits of a task share: what one trains on, the other would test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from san.data.proof import Hashes

# Of the smaller split. Benchmarks have a few equal images by nature: dsprites stores a rotation of
# 0 and of 360 degrees, 2 of 40.
MOST_DUPLICATES = 0.02
EXAMPLES = 2


@dataclass(frozen=True)
class Duplicates:
    """Equal images of two splits, in words. many: more of them than a benchmark has by nature."""

    text: str
    many: bool


def describe_shared_names(
    names: Mapping[str, Sequence[str]], hashes: Mapping[str, Hashes] | None = None
) -> list[str]:
    """Say of which splits the images have a name in common, a text for each two.

    names: of the images of each split: their ids, or their files. hashes: of the images, where one
    name may stand for two of them.
    """
    texts = []
    for first, second in combinations(names, 2):
        shared = set(names[first]) & set(names[second])
        if shared and hashes is not None:
            one = dict(zip(names[first], hashes[first], strict=True))
            other = dict(zip(names[second], hashes[second], strict=True))
            shared = {name for name in shared if one[name] == other[name]}
        if shared:
            examples = ", ".join(sorted(shared)[:EXAMPLES])
            texts.append(f"{first} and {second} share {len(shared)} images: {examples}")
    return texts


def find_duplicates(
    ids: Mapping[str, Sequence[str]], hashes: Mapping[str, Hashes]
) -> list[Duplicates]:
    """Return which splits have equal images under different ids, one for each two splits."""
    found = []
    for first, second in combinations(ids, 2):
        smaller, larger = sorted((second, first), key=lambda part: len(ids[part]))
        pairs = _equal_images(hashes[smaller], hashes[larger])
        if not pairs:
            continue
        named_alike = set(ids[larger])
        names = [
            (ids[smaller][row], ids[larger][other])
            for row, other in pairs
            if ids[smaller][row] not in named_alike
        ]
        if names:
            found.append(_describe(names, smaller, larger, len(ids[smaller])))
    return found


def _equal_images(hashes: Hashes, others: Hashes) -> list[tuple[int, int]]:
    """Return the rows of images that are among others, with a row of an equal one."""
    order = np.argsort(others, kind="stable")
    places = np.searchsorted(others, hashes, sorter=order)
    last = len(others) - 1
    nearest = order[np.minimum(places, last)]
    rows = np.flatnonzero(others[nearest] == hashes)
    return list(
        zip(
            rows.tolist(),
            nearest[rows].tolist(),
            strict=True,
        )
    )


def _describe(
    names: Sequence[tuple[str, str]], smaller: str, larger: str, count: int
) -> Duplicates:
    """Say how many of the `count` images of a split are in another one."""
    examples = [f"{one} is {other}" for one, other in names[:EXAMPLES]]
    text = (
        f"{len(names)} of {count} images of {smaller} are in {larger} under other names: "
        f"{', '.join(examples)}"
    )
    return Duplicates(
        text,
        many=len(names) > MOST_DUPLICATES * count,
    )
