"""What the trials of a search found: read off their records, by method and task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from san import settings
from san.record import Status
from san.runtime.formatting import count_of
from san.runtime.paths import folder_key
from san.score import Score
from san.search.selection import Choice, Trial, choose_trial
from san.search.space import Search
from san.search.trials import tried_values
from san.search.tuned_file import TunedCell
from san.sweep.plan import RunState, RunStatus

# Method, its options, other settings that all trials were given, task.
_Cell = tuple[str, tuple[str, ...], tuple[str, ...], str]


@dataclass(frozen=True)
class Found:
    """What a search found.

    incomplete: what has trials left, and hopeless: what has no trial with a score, as `san on
    count`.
    """

    cells: Sequence[TunedCell]
    incomplete: Sequence[str]
    hopeless: Sequence[str]

    def describe(self, search: Search, path: Path) -> Iterator[str]:
        """Yield what was chosen, how sure that is, and where it is written."""
        if self.cells:
            yield tabulate([_table_line(cell) for cell in self.cells], headers="keys")
            tied = sum(cell.choice.ties > 0 for cell in self.cells)
            cells = count_of(len(self.cells), "cell")
            yield (
                f"Chosen on the val split: {search.budget}. Of {cells} {tied} had tied trials: of "
                "these the smallest learning rate was taken, then the smallest weight decay."
            )
            at_edge = [cell for cell in self.cells if cell.choice.at_edge]
            if at_edge:
                names = ", ".join(_cell_name(cell) for cell in at_edge)
                yield f"At the edge of what was tried, so a better value may lie beyond: {names}."
            yield f"Written: {path}. Use it with recipe=tuned recipe.search={search.name}."
        if self.hopeless:
            yield f"No trial has a score: {', '.join(self.hopeless)}."
        if self.incomplete:
            yield f"Trials are left, so nothing is written of: {', '.join(self.incomplete)}."


def collect(statuses: Sequence[RunStatus], search: Search) -> Found:
    """Choose among the trials of each method, with its options, on each task."""
    by_cell: dict[_Cell, list[RunStatus]] = {}
    for status in statuses:
        by_cell.setdefault(_cell_of(status, search), []).append(status)
    cells = []
    incomplete = []
    hopeless = []
    for cell, of_cell in by_cell.items():
        method, options, _, task = cell
        name = f"{' '.join([method, *options])} on {task}"
        if not all(_has_ended(status) for status in of_cell):
            incomplete.append(name)
            continue
        choice = choose_trial(_trials(of_cell, search))
        if choice is None:
            hopeless.append(name)
        else:
            cells.append(_tuned_cell(cell, of_cell, choice))
    return Found(cells, incomplete, hopeless)


def _cell_of(status: RunStatus, search: Search) -> _Cell:
    """Return the cell of a trial, with that in which it departs from its default unsearched."""
    run = status.run
    searched = {*search.space, *search.additions.get(run.method, {})}
    options = []
    given = []
    for key, word in settings.departures(*run.run_config).items():
        if key in searched:
            continue
        if key.startswith("method."):
            options.append(word.removeprefix("method."))
        else:
            given.append(word)
    return (run.method, tuple(options), tuple(given), run.task.name)


def _has_ended(status: RunStatus) -> bool:
    """Return whether a trial has a score, or failed by itself: memory may yet be found."""
    return status.state in (RunState.DONE, RunState.FAILED)


def _trials(statuses: Sequence[RunStatus], search: Search) -> list[Trial]:
    """Return the trials of one cell, in the order of the plan, each with all of its seeds."""
    scores: dict[str, list[Score | None]] = {}
    values = {}
    for status in statuses:
        tried = tried_values(status.run.run_config.config, search)
        key = repr(tried)
        values[key] = tried
        record = status.record
        is_done = record is not None and record.status is Status.DONE
        scores.setdefault(key, []).append(record.score if is_done and record else None)
    return [Trial(values[key], scores[key]) for key in scores]


def _tuned_cell(cell: _Cell, statuses: Sequence[RunStatus], choice: Choice) -> TunedCell:
    method, options, given, task = cell
    records = [status.record for status in statuses if status.record is not None]
    run = statuses[0].run
    totals = {r.score.total for r in records if r.score is not None}
    return TunedCell(
        suite=run.task.suite,
        backbone=run.backbone.name,
        method=method,
        options=options,
        given=given,
        task=task if run.task.root is None else folder_key(run.task.root, task),
        choice=choice,
        images=max(totals),
        seeds=list(dict.fromkeys(status.run.seed for status in statuses)),
        records=[r.id for r in records],
    )


def _cell_name(cell: TunedCell) -> str:
    return f"{' '.join([cell.method, *cell.options])} on {cell.task}"


def _table_line(cell: TunedCell) -> dict[str, object]:
    choice = cell.choice
    accuracy = choice.trial.accuracy
    assert accuracy is not None
    return {
        "method": " ".join([cell.method, *cell.options]),
        "task": cell.task,
        **choice.trial.values,
        "val": f"{float(100 * accuracy):.1f}",
        "runner-up": "" if choice.runner_up is None else f"{float(100 * choice.runner_up):.1f}",
        "tied": choice.ties,
        "failed": choice.failed,
    }
