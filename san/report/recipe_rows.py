"""Runs that are cells of several rows, as several recipes say the same of their task.

A run is done once, whatever the recipe is called that it was given: where the tuned values of a
task are the default ones, the default run is a cell of the tuned row as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from san import compose, settings
from san.record import Record
from san.record_names import config_of, variant_of
from san.tasks import load_suite

_Recipe = tuple[str, ...]  # name, search and file of a recipe with rows; all others are one
_NO_ROWS: _Recipe = ()


@dataclass(frozen=True)
class _Run:
    """A record with its configuration in current words."""

    record: Record
    config: Mapping[str, Any]

    @property
    def recipe(self) -> _Recipe:
        """What tells its recipe from others."""
        recipe = self.config["recipe"]
        if recipe.get("rows") is None:
            return _NO_ROWS
        name = str(recipe["name"])
        search = str(recipe.get("search"))
        return (name, search, str(recipe["rows"]))

    @property
    def row(self) -> tuple[str, ...]:
        """The row of a table that it is in."""
        r = self.record
        return (r.suite, r.backbone, r.method, r.variant, r.protocol, r.evaluated_on)


def in_every_row(records: Sequence[Record]) -> list[Record]:
    """Return records, and copies of those that belong to the row of another recipe as well.

    records: as `named_by_value` returns them. Asked for are the recipes that runs of the same suite
    and backbone were given. A row that no run was made for is only there where it is whole.
    """
    runs = list(_runs_of(records))
    by_table: dict[tuple[str, str], dict[_Recipe, Mapping[str, Any]]] = {}
    for run in runs:
        table = (run.record.suite, run.record.backbone)
        by_table.setdefault(table, {})[run.recipe] = run.config["recipe"]
    copies: dict[tuple[str, ...], list[Record]] = {}
    for run in runs:
        recipes = by_table[run.record.suite, run.record.backbone]
        for copy in _copies(run, recipes):
            copies.setdefault(copy.row, []).append(copy.record)
    made = {run.row for run in runs}
    found = list(records)
    for row, of_row in copies.items():
        if row in made or _is_whole(of_row):
            found += of_row
    return found


def _runs_of(records: Sequence[Record]) -> Iterator[_Run]:
    for r in records:
        config = config_of(r)
        if config is not None and isinstance(config.get("recipe"), Mapping):
            yield _Run(r, config)


def _copies(run: _Run, recipes: Mapping[_Recipe, Mapping[str, Any]]) -> Iterator[_Run]:
    """Yield a run as a cell of the rows of other recipes that say just its values."""
    for name, recipe in recipes.items():
        if name == run.recipe:
            continue
        config = compose.with_recipe(run.config, recipe)
        if config is None:
            continue
        base = compose.base_of(config)
        keys = settings.departures(config, base).keys() - base.overrides.keys()
        # A row of a recipe may be of a method with options, but of no other values.
        if not all(key.startswith("method.") for key in keys):
            continue
        # A copy is for tables: its configuration says which recipe it is shown as.
        own = {**run.record.config, "recipe": config["recipe"]}
        variant = variant_of(config, run.record.weights)
        yield _Run(replace(run.record, variant=variant, config=own), config)


def _is_whole(records: Sequence[Record]) -> bool:
    """Return whether records of a row are of all tasks of their suite; own images have no list."""
    tasks = {r.task for r in records}
    suite = load_suite(records[0].suite)
    if suite.is_own_images:
        return True
    return len(tasks) == len(suite.tasks)
