"""Right or wrong for every image of a split: kept as packed bits, and counted by class."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from san.score import ClassScore, Score

Answers = NDArray[np.bool_]


def pack_answers(answers: Answers) -> bytes:
    """Return answers `(N,)` as bits, eight a byte, the first one highest, zeros at the end."""
    return np.packbits(answers).tobytes()


def unpack_answers(packed: bytes, score: Score) -> Answers:
    """Return the answers behind a score, bool `(score.total,)`.

    Raises ValueError where the bits are not as many as its images, or not as many are set as it
    has right answers.
    """
    size = -(-score.total // 8)
    if len(packed) != size:
        raise ValueError(f"it has {len(packed)} bytes; {score.total} answers take {size}")
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    answers = bits[: score.total]
    filling = bits[score.total :]
    correct = int(answers.sum())
    if correct != score.correct:
        raise ValueError(f"it has {correct} right answers; {score.correct} are recorded")
    if filling.any():
        raise ValueError(f"it has more than {score.total} answers")
    return answers.astype(np.bool_)


def count_by_class(
    names: Sequence[str], labels: NDArray[np.int64], answers: Answers
) -> list[ClassScore]:
    """Return the right answers of every class, in label order.

    names: of the classes. labels, answers: of each image of the split, `(N,)`.
    """
    right_labels = labels[answers]
    correct = np.bincount(right_labels, minlength=len(names))
    total = np.bincount(labels, minlength=len(names))
    rows = zip(names, correct.tolist(), total.tolist(), strict=True)
    return [ClassScore(*row) for row in rows]
