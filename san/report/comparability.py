"""Which cells of a table can be compared: what should be equal between its rows, and is not."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from san.record import Record
from san.renamed_keys import current_config
from san.report.value import Flag
from san.training.recipe import Recipe
from san.training.schedule import COSINE

# Settings that all methods of a table share; learning rate, weight decay and a method's own
# options may differ, as they may be tuned for it.
_SHARED_SETTINGS = {
    "precision": "precision",
    "epochs": "epochs",
    "batch_size": "batch size",
    "optimizer": "optimizer",
    "warmup_epochs": "warm-up epochs",
    "label_smoothing": "label smoothing",
}
# What the seeds of one cell have to share, too.
_SETTINGS_OF_A_CELL = {
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "momentum": "momentum",
}
# As those above, but records that were made before them do not say: they have the defaults.
_LATER_SHARED_SETTINGS = {
    "drop_path": "drop path",
    "clip_grad": "gradient clipping",
    "ema_decay": "weight average",
    "drop_last": "last batch dropped",
    "head_init": "initial head",
}
_LATER_SETTINGS_OF_A_CELL = {
    "betas": "betas",
    "head_lr": "learning rate of the head",
    "layer_decay": "layer decay",
    "weight_decay_on": "weight decay on",
}
_PREPROCESSING = {"resize": "resize", "normalize": "normalization"}
_EPOCH_CHOSEN = "epoch chosen on"
_SEEDS = "seeds"
_CODE = "code"
_COMMITTED = "committed"
_WEIGHTS = "pre-trained weights"
_SOURCE = "data source"
_SHARED_BY_TASKS = (_WEIGHTS, "precision", _SOURCE, *_PREPROCESSING.values())
_MOST_TASKS_LISTED = 5
# A record that was made by hand, or by an earlier version, may not say.
_UNKNOWN = "not known"

Facts = Mapping[str, str]


@dataclass(frozen=True)
class RowKey:
    """What the runs of one of our rows share: method, settings by value, protocol."""

    method: str
    variant: str
    protocol: str

    @classmethod
    def of(cls, r: Record) -> "RowKey":
        """Return the row that a run belongs to."""
        return cls(r.method, r.variant, r.protocol)


@dataclass(frozen=True)
class Difference:
    """A fact in which a cell differs from most rows, or its own runs from each other.

    own: the values of its runs. usual: of most rows; nothing where its own runs differ.
    """

    fact: str
    own: tuple[str, ...]
    usual: str = ""

    @property
    def flag(self) -> Flag:
        """The flag that stands at the cell."""
        if not self.usual:
            return Flag.MIXED_SETTINGS
        if self.fact == _SEEDS:
            return Flag.OTHER_SEEDS
        # A cell of the last epoch, or of committed code, among others has no such mark.
        if self.fact == _EPOCH_CHOSEN and "test" in self.own:
            return Flag.CHOSEN_ON_TEST
        if self.fact == _CODE and _COMMITTED not in self.own:
            return Flag.UNCOMMITTED_CODE
        return Flag.OTHER_SETTINGS


@dataclass(frozen=True)
class ComparedCell:
    """The facts of the runs of a cell that are done, one run for each seed.

    A row without a variant has the suite's default settings.
    """

    row: RowKey
    runs: Sequence[Facts]

    @property
    def mixed(self) -> list[Difference]:
        """The facts in which its own runs differ."""
        values = _values_by_fact(self.runs)
        return [Difference(fact, own) for fact, own in values.items() if len(own) > 1]


def facts_of_run(r: Record) -> Facts:
    """Return what runs have to share to be compared or averaged, in words, but for the seeds."""
    config = current_config(r.config, warn=False)
    facts = {
        _WEIGHTS: r.weights or _UNKNOWN,
        "training data": r.data.train or _UNKNOWN,
        "test data": r.data.evaluate or _UNKNOWN,
        _SOURCE: r.data.kind or _UNKNOWN,
        _EPOCH_CHOSEN: r.selected_on,
    }
    if r.score is not None:
        facts["test images"] = str(r.score.total)
    for key, name in (_SHARED_SETTINGS | _SETTINGS_OF_A_CELL).items():
        facts[name] = _to_text(config.get(key))
    for key, name in (_LATER_SHARED_SETTINGS | _LATER_SETTINGS_OF_A_CELL).items():
        facts[name] = _to_text(config.get(key, getattr(Recipe, key)))
    facts["schedule"] = _describe_schedule(_group(config, "schedule"))
    for key, name in _PREPROCESSING.items():
        facts[name] = _to_text(_group(config, "data").get(key))
    facts["augmentation"] = _describe_augmentation(_group(config, "augment"))
    facts["method's options"] = _to_text(_group(config, "method"))
    facts[_CODE] = _describe_code(r)
    return facts


def differences(
    cells: Sequence[ComparedCell],
    deciding: Collection[RowKey],
) -> dict[RowKey, list[Difference]]:
    """Return, by row, in what its cell differs from most of the cells of one task.

    deciding: the rows whose settings are the usual ones, if they have this task; else all are
    asked. Of equally many rows those with more runs are usual, then those that come first.
    """
    usual = _usual_facts([cell for cell in cells if cell.row in deciding] or cells)
    found = {}
    for cell in cells:
        own = _values_by_fact(cell.runs)
        found[cell.row] = [
            Difference(fact, own[fact], value)
            for fact, value in usual.items()
            if fact in own and own[fact] != (value,)
        ]
    return found


def deciding_rows(complete: Sequence[RowKey]) -> list[RowKey]:
    """Return which rows say what is usual: those of default settings, if there are any.

    complete: rows that have a run for every task; one that was only begun decides nothing.
    """
    return [row for row in complete if not row.variant] or list(complete)


def mixed_between_tasks(runs: Iterable[Facts]) -> list[Difference]:
    """Return in what the runs of a row differ that all tasks should share."""
    values = _values_by_fact(list(runs))
    return [Difference(fact, values[fact]) for fact in _SHARED_BY_TASKS if _differ(values, fact)]


def _differ(values: Mapping[str, tuple[str, ...]], fact: str) -> bool:
    return len(values.get(fact, ())) > 1


def describe_difference(difference: Difference) -> str:
    """Return a difference in words: `epochs 10 (compared rows: 100)`."""
    own = " and ".join(difference.own)
    usual = f" (compared rows: {difference.usual})" if difference.usual else ""
    return f"{difference.fact} {own}{usual}"


def with_seeds(runs: Iterable[Facts], seeds: Iterable[int]) -> list[Facts]:
    """Return the facts of the runs of a cell, and which seeds there are."""
    text = ", ".join(map(str, sorted(seeds)))
    return [{**facts, _SEEDS: text} for facts in runs]


def _usual_facts(cells: Sequence[ComparedCell]) -> Facts:
    """Return the value of each shared fact in most of the cells whose runs agree."""
    rows: dict[str, Counter[str]] = {}
    runs: dict[str, Counter[str]] = {}
    for cell in cells:
        for fact, values in _values_by_fact(cell.runs).items():
            if len(values) == 1 and not _is_of_a_cell(fact):
                rows.setdefault(fact, Counter())[values[0]] += 1
                runs.setdefault(fact, Counter())[values[0]] += len(cell.runs)
    usual = {}
    for fact, counts in rows.items():
        # `max` takes the first of several.
        usual[fact] = max(counts, key=lambda value: (counts[value], runs[fact][value]))
    return usual


def _is_of_a_cell(fact: str) -> bool:
    of_a_cell = _SETTINGS_OF_A_CELL | _LATER_SETTINGS_OF_A_CELL
    return fact == "method's options" or fact in of_a_cell.values()


def _values_by_fact(runs: Sequence[Facts]) -> dict[str, tuple[str, ...]]:
    """Return the different values of each fact, in the order of the runs."""
    values: dict[str, dict[str, None]] = {}
    for facts in runs:
        for fact, value in facts.items():
            values.setdefault(fact, {})[value] = None
    return {fact: tuple(found) for fact, found in values.items()}


def _group(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a group of settings; of a record that was made by hand it may be anything."""
    group = config.get(name)
    return group if isinstance(group, Mapping) else {}


def _describe_augmentation(augment: Mapping[str, Any]) -> str:
    """Return the settings of the augmentation that are on."""
    active = {key: value for key, value in augment.items() if _is_on(key, value)}
    return ", ".join(f"{key} {_to_text(value)}" for key, value in active.items()) or "none"


def _describe_schedule(schedule: Mapping[str, Any]) -> str:
    """Return in what the schedule of the learning rate departs from the default one."""
    usual = asdict(COSINE)
    changed = {key: value for key, value in schedule.items() if value != usual.get(key)}
    return ", ".join(f"{key} {_to_text(value)}" for key, value in changed.items()) or "default"


def _is_on(key: str, value: object) -> bool:
    return key != "name" and value not in (None, 0, 0.0, "none", False)


def _describe_code(r: Record) -> str:
    """Return whether the code was a commit; which one does not matter to the numbers.

    A commit that changes them changes `training.loop.REVISION`, and so the identity of a run.
    """
    if not r.code.dirty:
        return _COMMITTED
    commit = (r.code.commit or _UNKNOWN)[:7]
    return f"changed after {commit}"


def _to_text(value: object) -> str:
    """Return a setting as a text by which equal ones are equal."""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, default=repr)


def notes_on_differences(
    found: Mapping[tuple[str, Difference], Sequence[str]],
    all_tasks: int,
) -> Iterator[str]:
    """Yield a line for each row and difference, with the tasks where it is.

    found: labels of tasks by row and difference, none where it is between tasks. all_tasks: how
    many the suite has.
    """
    for (row, difference), tasks in found.items():
        if len(tasks) in (0, all_tasks):
            where = ""
        elif len(tasks) > _MOST_TASKS_LISTED:
            where = f" on {len(tasks)} of {all_tasks} tasks"
        else:
            where = f" on {', '.join(tasks)}"
        yield f"{difference.flag.mark} {row}: {describe_difference(difference)}{where}."
