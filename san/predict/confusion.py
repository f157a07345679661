"""Right and wrong answers, by class."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from san.chance import near_chance
from san.runtime.formatting import quote_formula
from san.score import ClassScore


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often which class was answered for images of which.

    counts: int64 `(classes, classes)`, a row for each label, a column for each answer.
    """

    classes: tuple[str, ...]
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, classes: tuple[str, ...]) -> "Confusion":
        """Return that of no images."""
        shape = (len(classes), len(classes))
        return cls(classes, np.zeros(shape, np.int64))

    def note(self, label: int | None, answer: int) -> None:
        """Count an answer, if it is known what is right."""
        if label is not None:
            self.counts[label, answer] += 1

    @property
    def scores(self) -> list[ClassScore]:
        """The right answers of each class."""
        totals = self.counts.sum(1).tolist()
        correct = self.counts.diagonal().tolist()
        rows = zip(
            self.classes,
            correct,
            totals,
            strict=True,
        )
        return [ClassScore(*row) for row in rows]

    def describe(self) -> Iterator[str]:
        """Yield lines: the accuracy of each class that has images, and of all."""
        scores = [score for score in self.scores if score.total]
        width = max(len(score.name) for score in scores)
        for score in scores:
            yield f"{score.name:{width}}  {_share(score.correct, score.total)}"
        correct = sum(score.correct for score in scores)
        total = sum(score.total for score in scores)
        yield f"{'all':{width}}  {_share(correct, total)}"
        alarm = near_chance(scores)
        if alarm is not None:
            yield alarm

    def classes_csv(self) -> str:
        """Return a CSV with a line for each class: right answers, images, accuracy in percent."""
        rows: list[Sequence[object]] = [("class", "correct", "total", "accuracy")]
        for score in self.scores:
            accuracy = ""
            if score.total:
                accuracy = f"{_percent(score.correct, score.total):.4f}"
            rows.append((score.name, score.correct, score.total, accuracy))
        return to_csv(rows)

    def matrix_csv(self) -> str:
        """Return a CSV of the counts: a line for each label, a column for each answer."""
        rows: list[Sequence[object]] = [("class", *self.classes)]
        for name, counts in zip(self.classes, self.counts.tolist(), strict=True):
            rows.append((name, *counts))
        return to_csv(rows)


def to_csv(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as CSV that no spreadsheet takes for formulas."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([quote_formula(cell) for cell in row])
    return text.getvalue()


def _share(correct: int, total: int) -> str:
    percent = _percent(correct, total)
    return f"{correct:>6} of {total:>6}  {percent:6.2f} %"


def _percent(correct: int, total: int) -> float:
    return 100 * correct / total
