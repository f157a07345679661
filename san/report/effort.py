"""Columns of what stands behind the numbers of rows: trials of settings, device-hours, energy.

Each is there only where a row has it; a published row has none of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from san.report.rows import Row
from san.report.value import MISSING

_JOULES = {"kJ": 1e3, "kWh": 3.6e6}


@dataclass(frozen=True)
class EffortColumn:
    """A text for each row. legend: what the title means."""

    title: str
    legend: str
    texts: Sequence[str]

    @property
    def head(self) -> str:
        """The title as papers write it; a unit stays as it is."""
        return self.title if self.title in _JOULES else self.title.capitalize()

    @property
    def note(self) -> str:
        """What stands below a table."""
        return f"{self.head}: {self.legend}."


def effort_columns(rows: Sequence[Row], *, with_cost: bool = True) -> list[EffortColumn]:
    """Return the columns of trials and, if wanted, of costs that one of the rows has."""
    columns = list(_trials_column(rows))
    if with_cost:
        columns += _cost_columns(rows)
    return columns


def _trials_column(rows: Sequence[Row]) -> Iterator[EffortColumn]:
    """Yield the column of trials, if a row has them."""
    if any(row.trials is not None for row in rows):
        texts = []
        for row in rows:
            known = row.trials.text() if row.trials is not None else MISSING
            texts.append(_unless_published(row, known))
        legend = (
            "settings tried to choose hyper-parameters, for each task in rows of a recipe by task, "
            "else once for all"
        )
        yield EffortColumn("trials", legend, texts)


def _cost_columns(rows: Sequence[Row]) -> Iterator[EffortColumn]:
    """Yield the columns of device-hours and energy that a row has; all energies in one unit."""
    hours = [row.cost.device_hours for row in rows]
    yield from _amounts("device-hours", "wall time times devices, without the search", rows, hours)
    joules = [row.cost.joules for row in rows]
    most = max((each for each in joules if not math.isnan(each)), default=0.0)
    unit = "kWh" if most >= _JOULES["kWh"] else "kJ"
    energies = [each / _JOULES[unit] for each in joules]
    yield from _amounts(unit, "energy of the devices", rows, energies)


def _amounts(
    title: str, what: str, rows: Sequence[Row], amounts: Sequence[float]
) -> Iterator[EffortColumn]:
    """Yield a column, if one of its amounts is known. what: of the legend, what is counted."""
    if all(map(math.isnan, amounts)):
        return
    texts = []
    for row, amount in zip(rows, amounts, strict=True):
        texts.append(_unless_published(row, _amount_text(amount)))
    yield EffortColumn(title, f"{what}, summed over tasks and seeds", texts)


def _amount_text(amount: float) -> str:
    """Return an amount with two digits that count, or whole."""
    if math.isnan(amount):
        return MISSING
    return f"{amount:,.0f}" if amount >= 10 else f"{amount:.2g}"


def _unless_published(row: Row, text: str) -> str:
    return text if row.published is None else ""
