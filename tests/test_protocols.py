"""What each protocol says, against what is stated of the authors' code; all of it composes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from conftest import composed

from san import compose, config_files
from san.config_keys import check_keys
from san.tasks import load_suite, suite_names
from san.training.schedule import Schedule, Timeline

PEAK = 1e-3
BATCHES = 15  # of 1000 images in batches of 64, the last one left out


def timm(start: float, lowest: float, lag: int) -> Callable[[int], float]:
    """timm's CosineLRScheduler over 100 epochs, 10 of them warm-up ."""

    def rate(epoch: int) -> float:
        epoch = max(0, epoch - lag)
        if epoch < 10:
            return start + epoch * (PEAK - start) / 10
        if epoch >= 100:
            return lowest
        return lowest + 0.5 * (PEAK - lowest) * (1 + math.cos(math.pi * epoch / 100))

    return rate


def vpt(epoch: int) -> float:
    """WarmupCosineSchedule of KMnP/vpt, src/solver/lr_scheduler.py."""
    if epoch < 10:
        return PEAK * epoch / 10
    return PEAK * 0.5 * (1 + math.cos(math.pi * (epoch - 10) / 90))


def adapter_plus(epoch: int) -> float:
    """LinearWarmupCosineAnnealingLR of visinf/adapter_plus, one epoch late."""
    epoch = max(0, epoch - 1)
    if epoch < 10:
        return PEAK / 100 + epoch * (PEAK - PEAK / 100) / 9
    lowest = PEAK / 1000
    return lowest + 0.5 * (PEAK - lowest) * (1 + math.cos(math.pi * (epoch - 10) / 90))


SSF = timm(1e-7, 1e-8, lag=0)
NOAH = timm(1e-6, 1e-5, lag=1)
SAN = timm(0.1 * PEAK, 1e-8, lag=1)
# Per protocol: rate by epoch, epochs trained, epoch chosen on, evaluated every, resize,
# normalization, decayed tensors, whether the last incomplete batch is left out, head.
STATED: dict[str, tuple[Any, ...]] = {
    "ssf": (SSF, 110, "test", 1, "ssf", "inception", "timm", True, "timm"),
    "ssf_crop": (
        timm(1e-7, 1e-8, 0),
        110,
        "test",
        1,
        "crop_248",
        "inception",
        "timm",
        True,
        "timm",
    ),
    "vpt": (vpt, 100, "last", 0, "vtab", "imagenet", "all_but_head_bias", False, "vpt"),
    "noah": (NOAH, 100, "test", 10, "bicubic", "imagenet", "timm", True, "torch"),
    "petl_vit": (NOAH, 100, "test", 10, "bicubic", "imagenet", "all", True, "torch"),
    "mai": (NOAH, 100, "last", 0, "bicubic", "none", "all", True, "timm"),
    "adapter_plus": (adapter_plus, 100, "last", 0, "vtab", "inception", "timm", True, "timm"),
    "san_authors": (
        timm(0.1 * PEAK, 1e-8, 1),
        100,
        "test",
        20,
        "crop_248",
        "inception",
        "matrices",
        True,
        "timm",
    ),
}
OWN = {"last_epoch", "tune", "best_test"}


def rates(config: dict[str, Any]) -> list[float]:
    """The learning rate of each epoch; all steps of an epoch have the same."""
    schedule = Schedule(**config["schedule"])
    timeline = Timeline(schedule, config["epochs"], config["warmup_epochs"], BATCHES)
    steps = [timeline.lr(step, PEAK) for step in range(timeline.steps)]
    epochs = [steps[i : i + BATCHES] for i in range(0, len(steps), BATCHES)]
    assert all(len(set(epoch)) == 1 for epoch in epochs)
    return [epoch[0] for epoch in epochs]


def test_every_protocol_is_stated() -> None:
    assert set(config_files.choices("protocol")) == {*STATED, *OWN}


@pytest.mark.parametrize("name", STATED)
def test_a_protocol_does_what_its_authors_code_does(name: str) -> None:
    rate, epochs, selected_on, every, resize, normalize, decayed, drops, head = STATED[name]
    config = composed("data=vtab/cifar", f"protocol={name}", "method=lora")
    assert rates(config) == pytest.approx(
        [rate(epoch) for epoch in range(epochs)], abs=1e-12, rel=0
    )
    protocol = config["protocol"]
    assert protocol == {
        "name": name,
        "train": "train+val",
        "evaluate": "test",
        "selected_on": selected_on,
        "eval_every": every,
    }
    assert (config["data"]["resize"], config["data"]["normalize"]) == (resize, normalize)
    assert (config["weight_decay_on"], config["drop_last"]) == (decayed, drops)
    assert config["head_init"] == head


def test_the_numbers_that_were_measured_on_noahs_schedule() -> None:
    measured = {0: 1e-6, 1: 1e-6, 2: 1.009e-4, 11: 9.758e-4, 50: 5.205e-4, 99: 1.098e-5}
    found = rates(composed("data=vtab/cifar", "protocol=petl_vit"))
    assert max(found) == found[11]
    for epoch, rate in measured.items():
        assert float(f"{found[epoch]:.3e}") == rate


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ssf method=ssf data=vtab/cifar", "ssf ssf_paper none 0.005 5e-05 None"),
        ("ssf_fgvc method=ssf data=fgvc/cub", "ssf_crop ssf_paper ssf_fgvc 0.01 0.05 0.9998"),
        ("ssf_gic method=ssf data=gic/imagenet", "ssf_crop ssf_paper ssf 0.001 0.05 0.99992"),
        ("vpt method=vpt_deep data=vtab/eurosat", "vpt vpt_paper none 0.25 0.001 None"),
        ("noah method=lora data=vtab/cifar", "noah noah none 0.001 0.0001 None"),
        ("mai method=lora data=vtab/cifar", "mai mai none 0.01 0.0001 None"),
        (
            "adapter_plus method=adapter_plus data=vtab/svhn",
            "adapter_plus adapter_plus none 0.001 0.0001 None",
        ),
        (
            "san_authors method=san data=vtab/cifar lr=5e-4",
            "san_authors san_authors ssf 0.0005 0.0 None",
        ),
    ],
)
def test_an_experiment_is_all_of_it_in_one_word(words: str, expected: str) -> None:
    name, *others = words.split()
    config = composed(f"experiment={name}", *others)
    assert config["recipe"]["row"] is not None
    groups = [config[group]["name"] for group in ("protocol", "recipe", "augment")]
    values = [config[key] for key in ("lr", "weight_decay", "ema_decay")]
    assert " ".join(map(str, groups + values)) == expected
    text = (config_files.CONFIGS / "experiment" / f"{name}.yaml").read_text("utf-8")
    assert f"experiment={name} method={config['method']['name']}" in text


def test_every_experiment_is_tried_above() -> None:
    tried = test_an_experiment_is_all_of_it_in_one_word.pytestmark[0].args[1]
    assert {each[0].split()[0] for each in tried} == set(config_files.choices("experiment"))


@pytest.mark.sweep
def test_every_cell_of_every_protocol_and_of_every_backbone_composes() -> None:
    """Methods x tasks, with each protocol and with each backbone: each is there as chosen."""
    suites = [load_suite(name) for name in suite_names()]
    tasks = [f"{suite.name}/{task}" for suite in suites for task in suite.tasks]
    methods = config_files.choices("method")
    protocols = [f"protocol={name}" for name in config_files.choices("protocol")]
    backbones = [f"backbone={name}" for name in config_files.choices("backbone") if name != "timm"]
    assert (len(tasks), len(methods), len(protocols), len(backbones)) == (53, 39, 11, 5)
    cells = set()
    for word in (*protocols, *backbones):
        group, _, name = word.partition("=")
        for config, _base in compose.compose_grid(tasks, methods, [0], [word]):
            check_keys(config)
            assert config[group]["name"] == name
            assert isinstance(config["lr"], float)
            data = config["data"]
            cells.add((word, data["suite"], data["task"], config["method"]["name"]))
    assert len(cells) == 53 * 39 * (11 + 5) == 33072
