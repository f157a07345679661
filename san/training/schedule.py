"""The learning rate over training, as a function of the step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from san.errors import InvalidValueError
from san.schema import NonNegativeFloat, NonNegativeInt, Probability, check_fields


@dataclass(frozen=True)
class Schedule:
    """The shape of the learning rate: a linear rise to the peak, then a half cosine.

    update: how often the rate changes; an update is a step or an epoch.
    warmup_start: the rate of the first update of the warm-up; warmup_start_ratio: the same as a
    share of the peak; neither: as if the update before it had 0.
    warmup_ends_at_peak: whether the last update of the warm-up has the peak; else the next one.
    min_lr: where the cosine ends; min_lr_ratio: the same as a share of the peak.
    cosine_from: where the cosine is at the peak, at the end of the warm-up or at the start of
    training; then the rate falls below the peak where the warm-up ends.
    lag_epochs: how many epochs the rate lags behind; the first ones have that of the first.
    cooldown_epochs: further epochs at the lowest rate.
    """

    update: Literal["step", "epoch"] = "step"
    warmup_start: NonNegativeFloat | None = None
    warmup_start_ratio: Probability | None = None
    warmup_ends_at_peak: bool = True
    min_lr: NonNegativeFloat = 0.0
    min_lr_ratio: Probability | None = None
    cosine_from: Literal["warmup", "start"] = "warmup"
    lag_epochs: NonNegativeInt = 0
    cooldown_epochs: NonNegativeInt = 0

    def __post_init__(self) -> None:
        check_fields(self, "schedule.")
        if self.warmup_start is not None and self.warmup_start_ratio is not None:
            raise InvalidValueError(
                f"schedule.warmup_start came as {self.warmup_start}, and "
                f"schedule.warmup_start_ratio as {self.warmup_start_ratio}; give one of them."
            )
        if self.min_lr > 0 and self.min_lr_ratio is not None:
            raise InvalidValueError(
                f"schedule.min_lr came as {self.min_lr}, and schedule.min_lr_ratio as "
                f"{self.min_lr_ratio}; give one of them."
            )

    def lowest(self, peak: float) -> float:
        """Return the rate where the cosine ends."""
        return self.min_lr if self.min_lr_ratio is None else self.min_lr_ratio * peak

    def first(self, peak: float) -> float | None:
        """Return the rate where the warm-up begins, None where nothing says so."""
        if self.warmup_start_ratio is not None:
            return self.warmup_start_ratio * peak
        return self.warmup_start


COSINE = Schedule()


def lr_at(
    update: int, updates: int, warmup: int, peak: float, schedule: Schedule = COSINE
) -> float:
    """Return the learning rate of an update (from 0), which may be after the last one.

    updates, warmup: how many the cosine ends after, and the rise takes.
    """
    lowest = schedule.lowest(peak)
    if update >= updates:
        return lowest
    if update < warmup:
        return _rising(update, warmup, peak, schedule)
    start = warmup if schedule.cosine_from == "warmup" else 0
    share = 1 + math.cos(math.pi * (update - start) / (updates - start))
    return lowest + 0.5 * (peak - lowest) * share


def _rising(update: int, warmup: int, peak: float, schedule: Schedule) -> float:
    """Return the learning rate of an update of the warm-up."""
    first = schedule.first(peak)
    rises = warmup - 1 if schedule.warmup_ends_at_peak else warmup
    if first is None:
        return peak * (update + 1) / (rises + 1)
    if rises == 0:
        return peak
    return first + update * ((peak - first) / rises)


@dataclass(frozen=True)
class Timeline:
    """How training is divided; the rate of each step follows.

    epochs, warmup_epochs: of the cosine and the rise. batches: steps of an epoch.
    """

    schedule: Schedule
    epochs: int
    warmup_epochs: int
    batches: int

    @property
    def steps(self) -> int:
        """The steps of the whole training, its cooldown included."""
        return (self.epochs + self.schedule.cooldown_epochs) * self.batches

    def lr(self, step: int, peak: float) -> float:
        """Return the learning rate of a step, from 0."""
        per_epoch = self.batches if self.schedule.update == "step" else 1  # updates
        update = step if self.schedule.update == "step" else step // self.batches
        update = max(0, update - self.schedule.lag_epochs * per_epoch)
        updates = self.epochs * per_epoch
        warmup = self.warmup_epochs * per_epoch
        return lr_at(update, updates, warmup, peak, self.schedule)


def trained_epochs(config: Mapping[str, Any]) -> Any:
    """Return how many epochs a configuration trains, None where it does not say.

    config: perhaps made by hand, so its values may be anything.
    """
    epochs = config.get("epochs")
    schedule = config.get("schedule")
    cooldown = schedule.get("cooldown_epochs", 0) if isinstance(schedule, Mapping) else 0
    if isinstance(epochs, int) and isinstance(cooldown, int):
        return epochs + cooldown
    return epochs
