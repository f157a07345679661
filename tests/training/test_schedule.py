"""Schedules: timm's own as the oracle, numbers of published code, and what cannot be meant."""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import composed
from timm.scheduler import CosineLRScheduler

from san import config_files
from san.errors import InvalidValueError
from san.schema import from_mapping
from san.training.recipe import Recipe
from san.training.schedule import COSINE, Schedule, Timeline, trained_epochs

PEAK = 1e-3
CHOICES = ("adapter_plus", "cosine", "san_authors", "timm", "timm_lagged", "vpt")


def chosen(name: str) -> Schedule:
    return from_mapping(Schedule, composed(f"schedule={name}")["schedule"], "schedule")


def rates(schedule: Schedule, epochs: int = 100, warmup: int = 10, batches: int = 3) -> list[float]:
    """The rate of each epoch, which all of its steps must have."""
    timeline = Timeline(schedule, epochs, warmup, batches)
    by_step = [timeline.lr(step, PEAK) for step in range(timeline.steps)]
    by_epoch = by_step[::batches]
    assert by_step == [rate for rate in by_epoch for _ in range(batches)]
    return by_epoch


def timm_rates(epochs: int, first: float, lowest: float, trained: int, lag: int) -> list[float]:
    """The rates of timm's scheduler, stepped after each epoch with the next number, or its own."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=PEAK)
    scheduler = CosineLRScheduler(
        optimizer, t_initial=epochs, lr_min=lowest, warmup_t=10, warmup_lr_init=first
    )
    found = []
    for epoch in range(trained):
        found.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch + 1 - lag)
    return found


def test_there_is_a_file_for_each_and_the_default_is_that_of_the_code() -> None:
    assert config_files.choices("schedule") == tuple(CHOICES)
    assert chosen("cosine") == COSINE
    plain = yaml.safe_load(Path(config_files.CONFIGS, "schedule", "cosine.yaml").read_text("utf-8"))
    assert plain.keys() == {field.name for field in fields(Schedule)}


@pytest.mark.parametrize(
    ("name", "first", "lowest", "trained", "lag"),
    [
        ("timm", 1e-7, 1e-8, 110, 0),
        ("timm_lagged", 1e-6, 1e-5, 100, 1),
        ("san_authors", 1e-4, 1e-8, 100, 1),
    ],
)
def test_equals_timms_scheduler(
    name: str, first: float, lowest: float, trained: int, lag: int
) -> None:
    wanted = timm_rates(100, first, lowest, trained, lag)
    assert rates(chosen(name)) == pytest.approx(wanted, rel=0, abs=1e-12)
    assert len(wanted) == trained


def test_equals_the_lagged_and_cooled_schedule_that_was_measured() -> None:
    """RLRR's: 110 epochs, lagged; 101 to 109 at the lowest rate, the peak in epoch 11."""
    found = rates(replace(chosen("timm"), lag_epochs=1))
    assert found[:2] == [1e-7, 1e-7]
    assert max(found) == found[11] == pytest.approx(0.9755 * PEAK, rel=1e-4)
    assert found[101:] == [1e-8] * 9
    assert found[100] > 1e-8


def test_noahs_family_has_the_rates_that_were_read_there() -> None:
    found = rates(chosen("timm_lagged"))
    assert found[:2] == [1e-6, 1e-6]
    assert found[2] == pytest.approx(1.009e-4, rel=1e-12)
    assert found[11] == max(found) == pytest.approx(9.758e-4, rel=1e-4)
    assert found[50] == pytest.approx(5.205e-4, rel=1e-4)
    assert found[99] == pytest.approx(1.098e-5, rel=1e-3)


def test_vpts_is_a_factor_of_the_epoch() -> None:
    def factor(epoch: int) -> float:
        if epoch < 10:
            return epoch / 10
        return 0.5 * (1 + math.cos(math.pi * (epoch - 10) / 90))

    wanted = [PEAK * factor(epoch) for epoch in range(100)]
    assert rates(chosen("vpt")) == pytest.approx(wanted, rel=0, abs=1e-15)
    assert wanted[0] == 0


def test_adapter_plus_rises_within_the_warm_up_and_lags() -> None:
    def closed_form(epoch: int) -> float:
        if epoch < 10:
            return PEAK / 100 + epoch * (PEAK - PEAK / 100) / 9
        lowest = PEAK / 1000
        return lowest + 0.5 * (PEAK - lowest) * (1 + math.cos(math.pi * (epoch - 10) / 90))

    wanted = [closed_form(max(0, epoch - 1)) for epoch in range(100)]
    assert rates(chosen("adapter_plus")) == pytest.approx(wanted, rel=0, abs=1e-15)
    assert wanted[10] == wanted[11] == PEAK


def test_the_default_changes_with_each_step() -> None:
    timeline = Timeline(COSINE, epochs=5, warmup_epochs=2, batches=4)
    assert timeline.steps == 20
    rising = [PEAK * (step + 1) / 8 for step in range(8)]
    falling = [PEAK * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert [timeline.lr(step, PEAK) for step in range(20)] == rising + falling


@pytest.mark.parametrize("update", ["step", "epoch"])
def test_lag_and_cooldown_are_counted_in_epochs(update: str) -> None:
    plain = Schedule(update=update)
    changed = Schedule(update=update, lag_epochs=2, cooldown_epochs=3, min_lr_ratio=0.1)
    timeline = Timeline(changed, 6, 1, 4)
    assert timeline.steps == 9 * 4
    found = [timeline.lr(step, PEAK) for step in range(36)]
    usual = Timeline(replace(plain, min_lr_ratio=0.1), 6, 1, 4)
    assert found[:8] == [usual.lr(0, PEAK)] * 8
    assert found[8:32] == [usual.lr(step, PEAK) for step in range(24)]
    assert found[32:] == [0.1 * PEAK] * 4


def test_a_warm_up_of_one_update_and_none() -> None:
    one = Schedule(update="epoch", warmup_start=1e-4)
    assert rates(one, epochs=4, warmup=1)[:2] == [PEAK, PEAK]
    before = Schedule(update="epoch", warmup_start=1e-4, warmup_ends_at_peak=False)
    assert rates(before, epochs=4, warmup=1)[:2] == [1e-4, PEAK]
    assert rates(before, epochs=4, warmup=0)[0] == PEAK
    unsaid = Schedule(update="epoch", warmup_ends_at_peak=False)
    assert rates(unsaid, epochs=4, warmup=3)[:4] == [PEAK / 4, 2 * PEAK / 4, 3 * PEAK / 4, PEAK]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["schedule.warmup_start=1e-6", "schedule.warmup_start_ratio=0.1"],
            r"warmup_start came as 1e-06, and schedule\.warmup_start_ratio as 0\.1; give one",
        ),
        (
            ["schedule.min_lr=1e-6", "schedule.min_lr_ratio=0.1"],
            r"schedule\.min_lr came as 1e-06, and schedule\.min_lr_ratio as 0\.1; give one",
        ),
        (["schedule.warmup_start=-1"], "warmup_start came as -1; allowed"),
        (["schedule.min_lr=1"], r"schedule\.min_lr came as 1, above lr, which is 0\.01"),
        (["schedule=timm_lagged", "head_lr=1e-6"], r"min_lr came as 1e-05, above head_lr"),
        (["schedule.warmup_start=2"], r"warmup_start came as 2, above lr"),
        (["schedule.cooldown_epochs=-1"], "cooldown_epochs came as -1; allowed"),
        (["schedule.update=batch"], r"Unknown schedule: update 'batch'"),
        (["+schedule.warmup=3"], r"Unknown key of schedule 'warmup'"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], message: str) -> None:
    from san.experiment import from_config

    with pytest.raises((InvalidValueError, LookupError), match=message):
        from_config(composed("device=cpu", *words))


def test_a_cooldown_is_trained() -> None:
    config = composed("schedule=timm", "epochs=100")
    assert trained_epochs(config) == 110
    assert trained_epochs({"epochs": 7}) == 7
    assert trained_epochs({"epochs": "x", "schedule": 3}) == "x"
    assert trained_epochs({}) is None
    recipe = Recipe(100, 64, "adamw", 1e-3, 0.0, 0.9, 10, 0.0, "fp32", schedule=chosen("timm"))
    assert recipe.total_epochs == 110
