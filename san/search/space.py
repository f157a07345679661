"""What is searched: `configs/search/<name>.yaml`, and the settings of each trial.

Every method has the same space and the same number of trials. What a method searches beside it is
an addition under its name, which multiplies the number of its trials.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from san.errors import InvalidValueError, choose
from san.recipes import ROOT
from san.runtime.files import read_text
from san.schema import NonNegativeInt, PositiveFloat, PositiveInt, from_mapping

SPACES = ROOT / "configs" / "search"
Values = Mapping[str, Any]  # by setting of train.py: `lr`, `weight_decay`, `method.rank`
_DIGITS = 3  # that count, of a number that was computed


@dataclass(frozen=True)
class Dimension:
    """The values of one setting: a range, on a logarithmic scale, or a list."""

    low: PositiveFloat | None = None
    high: PositiveFloat | None = None
    values: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        is_range = self.low is not None and self.high is not None and self.low < self.high
        if is_range == bool(self.values):
            raise InvalidValueError(
                f"A range came as low {self.low}, high {self.high}, values {list(self.values)}; "
                "allowed: low and high with low < high, or values alone."
            )

    def at(self, share: float) -> float:
        """Return the value at a share in [0, 1] of the range."""
        assert self.low is not None
        assert self.high is not None
        value = self.low * (self.high / self.low) ** share
        return float(f"{value:.{_DIGITS}g}")

    def describe(self) -> str:
        """Return the values in words."""
        if self.values:
            return " ".join(map(str, self.values))
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Search:
    """A space, how points are taken from it, and how many: for every method alike.

    sampling: `grid` (of ranges, equally spaced; all combinations) or `halton` (quasi-random,
    scrambled by sampling_seed). additions: further settings by method, all combinations.
    """

    name: str
    sampling: Literal["grid", "halton"]
    trials: PositiveInt
    space: Mapping[str, Dimension]
    additions: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    sampling_seed: NonNegativeInt = 0

    def points(self, method: str) -> list[dict[str, Any]]:
        """Return the settings of each trial of a method, in a fixed order."""
        shared = self._grid() if self.sampling == "grid" else self._quasi_random()
        own = self.additions.get(method, {})
        added = [dict(zip(own, values, strict=True)) for values in itertools.product(*own.values())]
        return [{**point, **extra} for point in shared for extra in added]

    @property
    def budget(self) -> str:
        """The space that all methods share, and how often it is tried, in words."""
        parts = [f"{key} {dimension.describe()}" for key, dimension in self.space.items()]
        return f"{self.trials} points, {self.sampling}: {', '.join(parts)}"

    def addition(self, method: str) -> str:
        """Return what a method searches beside the shared space, in words; or nothing."""
        added = self.additions.get(method, {})
        parts = [f"{key} {' '.join(map(str, values))}" for key, values in added.items()]
        return ", ".join(parts)

    def _grid(self) -> list[dict[str, Any]]:
        """Return all combinations; the one range of a space has as many values as are left."""
        listed = math.prod(len(each.values) for each in self.space.values() if each.values)
        ranges = [key for key, each in self.space.items() if not each.values]
        count, rest = divmod(self.trials, listed)
        if rest or len(ranges) > 1 or (not ranges and count != 1) or (ranges and count < 2):
            raise InvalidValueError(
                f"{self.trials} trials came for search {self.name}; a grid has one range at most "
                f"and {listed} combinations of listed values, so it takes "
                f"{f'a multiple of {listed}, from {2 * listed} on' if ranges else listed}."
            )
        choices: list[Sequence[Any]] = []
        for dimension in self.space.values():
            spaced = [dimension.at(i / (count - 1)) for i in range(count) if not dimension.values]
            choices.append(dimension.values or spaced)
        points = itertools.product(*choices)
        return [dict(zip(self.space, point, strict=True)) for point in points]

    def _quasi_random(self) -> list[dict[str, Any]]:
        """Return the first points of a scrambled Halton sequence."""
        from scipy.stats import qmc  # noqa: PLC0415  (takes a second; a table needs none of it)

        for key, dimension in self.space.items():
            if dimension.values:
                raise InvalidValueError(
                    f"{key} came as a list; a quasi-random search takes ranges (low, high)."
                )
        sampler = qmc.Halton(len(self.space), scramble=True, rng=self.sampling_seed)
        points = []
        for shares in sampler.random(self.trials).tolist():
            pairs = zip(self.space.items(), shares, strict=True)
            points.append({key: dimension.at(share) for (key, dimension), share in pairs})
        return points


def search_names() -> list[str]:
    """Return the names of all searches, sorted."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def load_search(name: str, trials: int | None = None) -> Search:
    """Read `configs/search/<name>.yaml`. trials: another number of them than the file says.

    Raises UnknownNameError where there is none of that name, InvalidValueError on a wrong value.
    """
    choose(name, search_names(), "search")
    return read_search(SPACES / f"{name}.yaml", trials)


def read_search(path: Path, trials: int | None = None) -> Search:
    """Read a search from a file; errors as of `load_search`."""
    where = f"search {path.stem}"
    facts = dict(yaml.safe_load(read_text(path)))
    space = {}
    for key, row in facts.get("space", {}).items():
        space[key] = from_mapping(Dimension, row, f"{where}, {key}")
    facts |= {"name": path.stem, "space": space}
    if trials is not None:
        facts["trials"] = trials
    search = from_mapping(Search, facts, where)
    for method in ("", *search.additions):
        search.points(method)
    return search
