"""Accuracy against trainable parameters, ours and published. Only this module knows matplotlib."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from san.report.aggregate import SUMMARY
from san.report.table import Section, Table

COLUMN = ("mean", "all")
Point = tuple[float, float]
PLACES = [
    (5, 3),
    (5, -8),
    (-5, 3),
    (-5, -8),
    (5, 11),
    (5, -16),
    (-5, 11),
    (-5, -16),
]  # of a label beside its point


def points(block: Section) -> dict[str, Point]:
    """Return (trained parameters without the head, mean accuracy over all tasks) of each row that has both.

    A row that trains nothing but the head is drawn at 1000, as a logarithmic axis has no zero.
    """
    if COLUMN not in block.numbers:
        return {}
    both = block.numbers[[SUMMARY[0], COLUMN]].dropna()
    return {
        str(name): (float(p) or 1e3, float(a))
        for name, (p, a) in zip(both.index, both.to_numpy(), strict=True)
    }


def draw_figure(table: Table, folder: Path, name: str) -> list[Path]:
    """Write `<name>.pdf` and `.png`; return their paths: none where no row is complete or there is no matplotlib."""
    cited, ours = points(table.cited), points(table.ours)
    if not ours and not cited:
        return []
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError:
        return []
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", title=f"{table.title}: mean accuracy of all tasks, percent")
    axes.set_xlabel("trainable parameters without the head (none: drawn at 1000)")
    for label, found, color, marker in (
        ("published", cited, "0.55", "o"),
        ("run again", ours, "C3", "D"),
    ):
        if found:
            params, accuracies = zip(*found.values(), strict=True)
            axes.scatter(params, accuracies, s=16, label=label, color=color, marker=marker)
    axes.margins(0.1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    annotate(axes, ours | cited, ours)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    for path in paths:
        new = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            figure.savefig(
                new, dpi=200, metadata={"CreationDate": None} if path.suffix == ".pdf" else None
            )
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    return paths


def annotate(axes: Any, places: Mapping[str, Point], ours: Mapping[str, Point]) -> None:
    """Write a name beside each point where there is room; ours come first."""
    axes.figure.draw_without_rendering()
    taken: list[Any] = []
    for name, place in places.items():
        for x, y in PLACES:
            style = {
                "fontsize": 7,
                "color": "C3" if name in ours else "0.3",
                "ha": "left" if x > 0 else "right",
            }
            text = axes.annotate(
                name, place, xytext=(x, y), textcoords="offset points", parse_math=False, **style
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
