"""Whether a result can be told from that of a model that gives one answer to every image."""

from collections.abc import Sequence

import scipy  # imports its parts when they are first used: scipy.stats takes half a second

from san.score import ClassScore

_LEVEL = 0.05


def near_chance(classes: Sequence[ClassScore] | None) -> str | None:
    """Return in words that a result is no better than always answering the most frequent class.

    classes: all classes of the scored images. The test is the exact binomial one of right answers
    among all images, one-sided, at 5 %, against the share of the most frequent class among them.
    Returns None where the result is better than that, and where its classes are not known.
    """
    scored = [each for each in classes or [] if each.total]
    if not scored:
        return None
    correct = sum(each.correct for each in scored)
    total = sum(each.total for each in scored)
    share = max(each.total for each in scored) / total
    # The probability of so many right answers or more, with each one right by this share.
    p = float(scipy.special.bdtrc(correct - 1, total, share))
    if p < _LEVEL:
        return None
    return (
        f"{100 * correct / total:.2f} % is not shown to be better than always answering the most "
        f"frequent class ({100 * share:.2f} %)"
    )
