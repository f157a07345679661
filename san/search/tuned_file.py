"""The file that a search writes: a line for each method and task, with its evidence.

`benchmarks/tuned/<suite>_<backbone>_<search>.csv`, in the format of `san.recipe_files`, which
`recipe=tuned` reads. What was found for other methods and tasks stays in it.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from san import settings
from san.config_files import read_choice
from san.errors import InvalidValueError
from san.installation import WRITE_ROOT
from san.recipe_files import EVIDENCE, NAMES, read_rows
from san.runtime.files import read_text, write_text
from san.search.selection import Choice
from san.search.space import SPACES, Search

_Line = dict[str, str]


@dataclass(frozen=True)
class SearchedCell:
    """A method on a task, for which one trial is chosen.

    options: the options of the method for which it is searched, as `propagation=off`. given: other
    settings that are given to all trials, as `epochs=5`; they are part of the budget.
    """

    suite: str
    backbone: str
    method: str
    options: Sequence[str]
    given: Sequence[str]
    task: str

    @property
    def name(self) -> tuple[str, ...]:
        """What a line is found by."""
        return (self.suite, self.backbone, self.method, " ".join(self.options), self.task)

    def space(self, search: Search) -> str:
        """Return the budget of its trials, in words."""
        return ", ".join([search.budget, *self.given])


@dataclass(frozen=True)
class TunedCell(SearchedCell):
    """What a search chose for a method on a task, and the records that it chose among.

    images: of the val split. seeds: of each trial.
    """

    choice: Choice
    images: int
    seeds: Sequence[int]
    records: Sequence[str]


def tuned_path(suite: str, backbone: str, search: str, directory: Path | None = None) -> Path:
    """Return where a search writes what it found.

    directory: None means the one where `recipe=tuned` looks.
    """
    if directory is None:
        directory = WRITE_ROOT / read_choice("recipe", "tuned")["folder"]
    return directory / f"{suite}_{backbone}_{search}.csv"


def check_budget(cells: Iterable[SearchedCell], search: Search, path: Path) -> None:
    """Raise InvalidValueError, before any trial, where `write_tuned` would once all are done."""
    lines = _read_lines(path)
    for cell in cells:
        lines[cell.name] = {"method": cell.method, "space": cell.space(search)}
    _check_one_budget(lines.values(), path)


def write_tuned(cells: Sequence[TunedCell], search: Search, path: Path) -> None:
    """Write lines of a search, in place of those of the same method and task.

    Raises InvalidValueError where the file has lines of another space under the name of the search:
    its methods would not have had the same budget.
    """
    lines = _read_lines(path)
    for cell in cells:
        lines[cell.name] = _line_of(cell, search)
    _check_one_budget(lines.values(), path)
    keys = {key: None for line in lines.values() for key in line}
    values = [key for key in keys if key not in (*NAMES, *EVIDENCE)]
    evidence = [key for key in EVIDENCE if key in keys]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*NAMES, *values, *evidence], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines.values())
    write_text(stream.getvalue(), path)


def _read_lines(path: Path) -> dict[tuple[str, ...], _Line]:
    """Return the lines of the file as they are, by what names them; none where there is no file."""
    if not path.exists():
        return {}
    if not all("space" in row.evidence for row in read_rows(path)):
        raise InvalidValueError(f"{path} was written by no search. Remove it, or give --tuned-dir.")
    lines = {}
    for line in csv.DictReader(io.StringIO(read_text(path))):
        lines[tuple(line[name] for name in NAMES)] = line
    return lines


def _line_of(cell: TunedCell, search: Search) -> _Line:
    choice = cell.choice
    line = dict(zip(NAMES, cell.name, strict=True))
    for key, value in choice.trial.values.items():
        line[key] = settings.override_value(value)
    accuracy = choice.trial.accuracy
    assert accuracy is not None
    return line | {
        "source": f"our search {search.name}, {choice.trials} trials",
        "search": search.name,
        "space": cell.space(search),
        "addition": search.addition(cell.method),
        "trials": str(choice.trials),
        "failed": str(choice.failed),
        "seeds": f"[{', '.join(map(str, cell.seeds))}]",
        "val_accuracy": _percent(accuracy),
        "val_images": str(cell.images),
        "ties": str(choice.ties),
        "runner_up": "" if choice.runner_up is None else _percent(choice.runner_up),
        "at_edge": " ".join(choice.at_edge),
        "records": " ".join(cell.records),
    }


def _percent(share: Fraction) -> str:
    return f"{float(100 * share):.2f}"


def _check_one_budget(lines: Iterable[_Line], path: Path) -> None:
    """Raise InvalidValueError where the lines of a file had different spaces or trials."""
    methods: dict[str, list[str]] = {}
    for line in lines:
        methods.setdefault(line["space"], []).append(line["method"])
    if len(methods) > 1:
        budgets = []
        for space, found in methods.items():
            budgets.append(f"{space} ({', '.join(dict.fromkeys(found))})")
        raise InvalidValueError(
            f"{path} would have methods of different budgets: {'; '.join(budgets)}. Give the "
            "number of trials (--trials) and the settings that are in the file already; or search "
            "all of its methods and tasks again in one call; or write elsewhere with --tuned-dir "
            "DIR, read by recipe=tuned recipe.folder=DIR; or give another search a name by a file "
            f"of its own in {SPACES}."
        )
