"""The values of tables: a cell from its runs, means from cells, and the marks that say what is to be known of them."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from san.record import Record
from san.tasks import Suite

MISSING = "–"
MEANS = {"mean of all tasks": "all", "mean of groups": "groups", "mean corruption error": "mCE"}
LOWER = [("mean", "mCE")]  # where less is better
SUMMARY = [("trainable", "without head"), ("trainable", "with head"), ("runs", "seeds")]
ON_TEST, CONFLICT, MIXED, FORCED, FEWER, WEIGHTS, STATED = "†", "‡", "§", "¶", "‖", "◦", "*"
LEGEND = {
    ON_TEST: "the epoch was chosen on the test split",
    MIXED: "runs of this row differ in pre-trained weights, preprocessing, precision or the kind of data source",
    FORCED: "the data failed its check against the benchmark, and was forced (force_data=true)",
    CONFLICT: "a cell has records of different settings or results for one seed; the newest is shown",
    FEWER: "fewer seeds than other rows",
    WEIGHTS: "from other pre-trained weights than this table's",
    STATED: "from group means as stated; no values of its tasks are public",
}
Column = tuple[str, str]


@dataclass(frozen=True)
class Cell:
    """Our side of a cell: mean and sample standard deviation over n seeds in percent, NaN where there is none.

    status: `done`, `missing`, or how its seeds failed. marks: of LEGEND.
    """

    mean: float
    std: float
    n: int
    status: str
    marks: str = ""

    @property
    def text(self) -> str:
        """What is printed: the mean, its spread, marks, and what failed."""
        if not self.n:
            return MISSING if self.status == "missing" else self.status
        spread = f" ± {self.std:.2f}" if self.n > 1 else ""
        return f"{self.mean:.2f}{spread}{self.marks}" + (f" ({self.status})" if self.status != "done" else "")


def header(suite: Suite) -> list[Column]:
    """Return the columns: tasks under their groups, then the summary."""
    tasks = [(group, t.label) for group in suite.groups for t in suite.tasks.values() if t.group == group]
    groups = [("mean of", group) for group in suite.groups]
    return [*tasks, *groups, *(("mean", MEANS[name]) for name in suite.means), *SUMMARY]


def cell(runs: Sequence[Record]) -> Cell:
    """Return our side of a cell from its runs; of several for one seed the newest that is done."""
    newest = {r.seed: r for r in sorted(runs, key=lambda r: (r.status == "done", r.created))}
    done = [r.accuracy for r in newest.values() if r.status == "done"]
    lost = sorted({"OOM" if r.status == "oom" else r.status for r in newest.values() if r.status != "done"})
    finished = [r for r in runs if r.status == "done"]
    marks = ON_TEST if any(r.selected_on != "last" for r in newest.values()) else ""
    marks += FORCED if any(r.data.get("forced") for r in finished) else ""
    marks += CONFLICT if len(finished) > len({r.seed for r in finished}) else ""
    status = ", ".join(lost) if lost else "done" if done else "missing"
    return Cell(
        mean(done), statistics.stdev(done) if len(done) > 1 else math.nan, len(done), status, marks if done else ""
    )


def mean(values: Sequence[float]) -> float:
    """Return the plain mean; NaN if anything is missing or there is nothing."""
    return sum(values) / len(values) if values else math.nan


def shown(value: float, form: str, mark: str = "") -> str:
    """Return a number in a format, or that it is missing."""
    return MISSING if math.isnan(value) else f"{value:{form}}{mark}"


def means(suite: Suite, tasks: Mapping[str, float], stated: Mapping[str, float]) -> dict[Column, float]:
    """Return group means and their mean, and the mean of all tasks; NaN where a value is missing and none is stated.

    The mean corruption error (Hendrycks and Dietterich 2019) is 100 for AlexNet.
    """
    by_group = {g: mean([v for t, v in tasks.items() if suite.tasks[t].group == g]) for g in suite.groups}
    by_group |= dict(stated)
    overall = {"all": mean(list(tasks.values())), "groups": mean(list(by_group.values()))}
    errors = {t: suite.tasks[t].facts["alexnet"] for t in tasks if "alexnet" in suite.tasks[t].facts}
    overall["mCE"] = mean([(100 - tasks[t]) / alexnet for t, alexnet in errors.items()])
    found = {("mean of", group): value for group, value in by_group.items()}
    return found | {("mean", MEANS[name]): overall[MEANS[name]] for name in suite.means}
