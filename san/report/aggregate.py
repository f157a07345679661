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
ON_TEST, CONFLICT, MIXED, FORCED, FEWER, WEIGHTS, STATED, UNKNOWN = (
    "†",
    "‡",
    "§",
    "¶",
    "‖",
    "◦",
    "*",
    "?",
)
LEGEND = {
    ON_TEST: "the epoch was chosen on the test split",
    MIXED: "runs of this row differ in pre-trained weights, preprocessing, precision or the kind of data source",
    FORCED: "the data failed its check against the benchmark, and was forced (force_data=true)",
    CONFLICT: "a cell has records of different settings or results for one seed; the newest is shown",
    FEWER: "fewer seeds than other rows, or seeds that failed",
    WEIGHTS: "from other pre-trained weights than this table's",
    STATED: "from means as stated; not all values of its tasks are public",
    UNKNOWN: "its weights, or where its epoch was chosen, are not known",
}
Column = tuple[str, str]


@dataclass(frozen=True)
class CellStats:
    """Our side of a cell: mean and sample standard deviation over n seeds in percent, NaN where there is none.

    status: `done`, `missing`, or how its seeds failed. marks: of LEGEND. params: means of what trains, (without, with)
    the head.
    """

    mean: float
    std: float
    n: int
    status: str
    marks: str = ""
    params: tuple[float, float] = (math.nan, math.nan)

    @property
    def text(self) -> str:
        """What is printed: mean ± standard deviation (seeds), marks, and what failed."""
        if not self.n:
            return MISSING if self.status == "missing" else self.status
        spread = f" ± {self.std:.2f} ({self.n})" if self.n > 1 else ""
        return f"{self.mean:.2f}{spread}{self.marks}" + (
            f" ({self.status})" if self.status != "done" else ""
        )


def table_columns(suite: Suite) -> list[Column]:
    """Return the columns: tasks under their groups, then the summary."""
    tasks = [
        (group, t.label) for group in suite.groups for t in suite.tasks.values() if t.group == group
    ]
    groups = [("mean of", group) for group in suite.groups if len(suite.groups) > 1]
    return [*tasks, *groups, *(("mean", MEANS[name]) for name in suite.means), *SUMMARY]


def aggregate_cell(runs: Sequence[Record]) -> CellStats:
    """Return our side of a cell from its runs, without copies; of several for one seed the newest that is done."""
    newest = {r.seed: r for r in sorted(runs, key=lambda r: (r.status == "done", r.created))}
    done = [r for r in newest.values() if r.status == "done"]
    lost = sorted(
        {"OOM" if r.status == "oom" else r.status for r in newest.values() if r.status != "done"}
    )
    marks = ON_TEST if any(r.selected_on != "last" for r in newest.values()) else ""
    marks += FORCED if any(r.data.get("forced") for r in done) else ""
    marks += CONFLICT if len(runs) > len(newest) else ""
    scores = [r.accuracy for r in done]
    spread = statistics.stdev(scores) if len(scores) > 1 else math.nan
    status = ", ".join(lost) if lost else "done" if done else "missing"
    params = (
        mean([r.params["trainable"] - r.params["head"] for r in done]),
        mean([r.params["trainable"] for r in done]),
    )
    return CellStats(mean(scores), spread, len(done), status, marks, params)


def mean(values: Sequence[float]) -> float:
    """Return the plain mean; NaN if anything is missing or there is nothing."""
    return sum(values) / len(values) if values else math.nan


def format_number(value: float, form: str, mark: str = "") -> str:
    """Return a number in a format, or that it is missing."""
    return MISSING if math.isnan(value) else f"{value:{form}}{mark}"


def table_means(
    suite: Suite, tasks: Mapping[str, float], stated: Mapping[str, float]
) -> dict[Column, float]:
    """Return group means and their mean, and the mean of all tasks; NaN where a value is missing and none is stated.

    The mean corruption error (Hendrycks and Dietterich 2019) is 100 for AlexNet.
    """
    by_group = {
        g: mean([v for t, v in tasks.items() if suite.tasks[t].group == g]) for g in suite.groups
    }
    by_group = {
        g: stated.get(g, value) if math.isnan(value) else value for g, value in by_group.items()
    }
    everything = (
        mean(list(tasks.values())) if len(suite.groups) > 1 else mean(list(by_group.values()))
    )
    errors = {t: error for t in tasks if (error := suite.tasks[t].alexnet_error) is not None}
    overall = {
        "all": everything,
        "groups": mean(list(by_group.values())),
        "mCE": mean([(100 - tasks[t]) / alexnet for t, alexnet in errors.items()]),
    }
    found = {key: by_group[key[1]] for key in table_columns(suite) if key[0] == "mean of"}
    return found | {("mean", MEANS[name]): overall[MEANS[name]] for name in suite.means}
