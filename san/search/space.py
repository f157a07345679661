"""What is searched: `benchmarks/searches/<name>.yaml`, and the settings of each trial.

Every method has the same space and the same number of trials. What a method searches beside it is
an addition under its name, which multiplies the number of its trials.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from san.errors import InvalidValueError, UnknownNameError, choose
from san.installation import BENCHMARKS
from san.runtime.files import read_yaml
from san.runtime.formatting import count_of
from san.schema import NonNegativeInt, PositiveFloat, PositiveInt, check_value, from_mapping

SPACES = BENCHMARKS / "searches"
Values = Mapping[str, Any]  # by setting of train.py: `lr`, `weight_decay`, `method.rank`
# Of a file: at least one setting, each with what its Dimension says.
_Rows = Annotated[dict[str, dict[str, Any]], Meta(min_length=1)]
_DIGITS = 3  # that count, of a number that was computed


@dataclass(frozen=True)
class Dimension:
    """The values of one setting: a range, on a logarithmic scale, or a list."""

    low: PositiveFloat | None = None
    high: PositiveFloat | None = None
    values: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        # One or the other: what is given beside it would be swallowed.
        is_list = bool(self.values) and self.low is None and self.high is None
        is_range = False
        if self.low is not None and self.high is not None and not self.values:
            is_range = self.low < self.high
        if not (is_list or is_range):
            raise InvalidValueError(
                f"A range came as low {self.low}, high {self.high}, values {list(self.values)}; "
                "allowed: low and high with low < high, or values alone."
            )

    def at(self, share: float) -> float:
        """Return the value at a share in [0, 1] of the range."""
        assert self.low is not None
        assert self.high is not None
        ratio = self.high / self.low
        value = self.low * ratio**share
        return float(f"{value:.{_DIGITS}g}")

    def spaced(self, count: int) -> list[float]:
        """Return so many values of the range, two or more, from its low end to its high one."""
        return [self.at(i / (count - 1)) for i in range(count)]

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
        """Return the settings of each trial of a method, in a fixed order.

        A method without additions has the shared points alone.
        """
        shared = self._grid() if self.sampling == "grid" else self._quasi_random()
        own = self.additions.get(method, {})
        added = _combinations(own)
        points = []
        for point in shared:
            for extra in added:
                points.append({**point, **extra})
        return points

    @property
    def budget(self) -> str:
        """The space that all methods share, and how often it is tried, in words."""
        parts = []
        for key, dimension in self.space.items():
            parts.append(f"{key} {dimension.describe()}")
        space = ", ".join(parts)
        return f"{self.trials} points, {self.sampling}: {space}"

    def addition(self, method: str) -> str:
        """Return what a method searches beside the shared space, in words; or nothing."""
        parts = []
        for key, values in self.additions.get(method, {}).items():
            words = " ".join(map(str, values))
            parts.append(f"{key} {words}")
        return ", ".join(parts)

    def _grid(self) -> list[dict[str, Any]]:
        """Return all combinations; the one range of a space has as many values as are left."""
        dimensions = self.space.values()
        listed = math.prod(len(each.values) for each in dimensions if each.values)
        ranges = sum(not each.values for each in dimensions)
        count, rest = divmod(self.trials, listed)
        is_whole = rest == 0 and (count >= 2 if ranges else count == 1)
        if ranges > 1 or not is_whole:
            raise InvalidValueError(
                f"{count_of(self.trials, 'trial')} came; {self._allowed_trials(ranges, listed)}."
            )
        choices = {}
        for key, dimension in self.space.items():
            choices[key] = dimension.values or dimension.spaced(count)
        return _combinations(choices)

    def _allowed_trials(self, ranges: int, listed: int) -> str:
        """Return in words how many trials a grid takes. listed: combinations of listed values."""
        if ranges > 1:
            return (
                f"search {self.name} has {ranges} ranges and a grid takes one at most: list the "
                "values of the others, or write sampling: halton"
            )
        if ranges == 0:
            return f"{self.name} takes {listed}, one for each combination of its values"
        if listed == 1:
            return f"{self.name} takes 2 trials or more, from one end of its range to the other"
        return (
            f"{self.name} takes a multiple of {listed}, from {2 * listed} on: it has {listed} "
            "combinations of listed values, each with two values of its range or more"
        )

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
            point = {}
            for (key, dimension), share in zip(self.space.items(), shares, strict=True):
                point[key] = dimension.at(share)
            points.append(point)
        return points


def _combinations(choices: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of values by key, the last key changing first."""
    values = itertools.product(*choices.values())
    return [dict(zip(choices, each, strict=True)) for each in values]


def search_names() -> list[str]:
    """Return the names of all searches, sorted."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def load_search(name: str, trials: int | None = None) -> Search:
    """Read `benchmarks/searches/<name>.yaml`. trials: another number of them than the file says.

    Raises UnknownNameError where there is none of that name, InvalidValueError on a wrong value.
    """
    choose(name, search_names(), "search")
    return read_search(SPACES / f"{name}.yaml", trials)


def read_search(path: Path, trials: int | None = None) -> Search:
    """Read a search from a file; errors as of `load_search`, and FileAccessError."""
    content = read_yaml(path)
    try:
        return _parse_search(content, path.stem, trials)
    except (InvalidValueError, UnknownNameError) as error:
        raise type(error)(f"{path}: {error}") from error


def _parse_search(content: Any, name: str, trials: int | None) -> Search:
    where = f"search {name}"
    facts = check_value(content, dict[str, Any], where)
    rows = check_value(facts.get("space"), _Rows, f"{where}: space")
    space = {}
    for key, row in rows.items():
        space[key] = from_mapping(Dimension, row, f"{where}, {key}")
    facts |= {"name": name, "space": space}
    if trials is not None:
        facts["trials"] = trials
    search = from_mapping(Search, facts, where)
    for method in ("", *search.additions):
        _check_points(search.points(method), f"{where}, {method or 'any method'}")
    return search


def _check_points(points: Sequence[Values], where: str) -> None:
    """Raise InvalidValueError where there is no point, or one twice."""
    words = [str(point) for point in points]
    is_different = len({*words}) == len(words)
    if not words or not is_different:
        found = "; ".join(words) or "none"
        raise InvalidValueError(
            f"{where} has the points {found}; allowed: one or more, all different."
        )
