"""What has to be said of the figure of accuracy against parameters, in sentences."""

from collections.abc import Sequence

from san.report.figures.count_axis import UNKNOWN, ZERO
from san.report.figures.points import Kind, MethodPoint


def of_accuracy_parameters(
    points: Sequence[MethodPoint],
    accuracy_label: str,
    unnamed: int,
    nameless: Sequence[str],
) -> str:
    """Return the caption.

    unnamed: how many rows are light grey points without a name. nameless: names that were to be
    written, and for which there was no room.
    """
    sentences = [
        _what_is_drawn(points, accuracy_label),
        _front(points),
        *_names(unnamed, nameless),
        *_heads(points),
        *_strip(points),
    ]
    return " ".join(sentences)


def _what_is_drawn(points: Sequence[MethodPoint], accuracy_label: str) -> str:
    ours = sum(point.kind is Kind.OURS for point in points)
    kinds = []
    if ours:
        kinds.append(f"{ours} run here (diamonds)")
    if ours < len(points):
        kinds.append(f"{len(points) - ours} published (circles)")
    what = accuracy_label[:1].upper() + accuracy_label[1:]
    rows = "row" if len(points) == 1 else "rows"
    return (
        f"{what}, against trained parameters without the head: "
        f"{len(points)} {rows}, {' and '.join(kinds)}."
    )


def _front(points: Sequence[MethodPoint]) -> str:
    ranked = sum(point.ranked for point in points)
    if ranked == 0:
        return "There is no Pareto front, as no two rows are compared."
    if ranked == len(points):
        return "Dashed: the Pareto front of all rows."
    return (
        f"Dashed: the Pareto front of the {ranked} rows that are compared with each other; "
        f"{len(points) - ranked} take no part."
    )


def _names(unnamed: int, nameless: Sequence[str]) -> list[str]:
    sentences = []
    if unnamed:
        sentences.append(
            "Named are the rows run here, those of the front and those compared with ours; "
            f"the other {unnamed} are light grey points."
        )
    if nameless:
        sentences.append(f"There is no room for the name of {', '.join(nameless)}.")
    return sentences


def _heads(points: Sequence[MethodPoint]) -> list[str]:
    estimated = [point.label for point in points if point.is_estimated]
    if not estimated:
        return []
    return [f"Of {', '.join(estimated)} the printed count, less the mean head of the tasks."]


def _strip(points: Sequence[MethodPoint]) -> list[str]:
    counts = {point.parameters for point in points}
    kinds = []
    if 0 in counts:
        kinds.append(f"{ZERO}, nothing but the head trains")
    if None in counts:
        kinds.append(f"{UNKNOWN}, the count is not stated")
    return [f"Left of the broken axis: {'; '.join(kinds)}."] if kinds else []
