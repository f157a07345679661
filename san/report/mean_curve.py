"""Learning curves of a row: the mean of its runs, epoch by epoch."""

from collections.abc import Sequence

import numpy as np

from san.record import Record
from san.report.figures.learning_curves import Curve


def mean_curve(label: str, runs: Sequence[Record]) -> Curve | None:
    """Return the mean loss of the runs by epoch; None where losses were not kept by all.

    runs: of all tasks and seeds of a row. Accuracies are on it where all runs were scored after the
    same epochs, and more than once.
    """
    losses = [_losses(r) for r in runs]
    lengths = {len(of_run) for of_run in losses}
    lengths |= {len(r.history) for r in runs}
    if len(lengths) != 1 or lengths == {0}:
        return None
    means = np.mean(losses, axis=0).tolist()
    epochs = range(1, len(means) + 1)
    evaluated = {tuple(_evaluated_epochs(r)) for r in runs}
    # One point at the end is in the table already.
    if len(evaluated) != 1 or len(next(iter(evaluated))) < 2:
        return Curve(label, epochs, means)
    accuracies = np.mean([_accuracies(r) for r in runs], axis=0)
    return Curve(
        label=label,
        epochs=epochs,
        losses=means,
        evaluated_epochs=evaluated.pop(),
        accuracies=accuracies.tolist(),
    )


def _losses(r: Record) -> list[float]:
    """Return the training losses that were kept."""
    return [entry.train_loss for entry in r.history if entry.train_loss is not None]


def _evaluated_epochs(r: Record) -> list[int]:
    """Return the epochs after which the test split was scored."""
    return [score.epoch for score in r.curve]


def _accuracies(r: Record) -> list[float]:
    """Return the accuracies after these epochs, in percent."""
    return [score.accuracy for score in r.curve]
