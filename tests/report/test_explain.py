"""Where a number comes from: the command that is printed makes the same experiment."""

import shlex
from pathlib import Path

import msgspec
import pytest
from conftest import composed
from samples import vtab_records

from san.compose import variant_overrides
from san.errors import UnknownNameError
from san.experiment import from_config
from san.report.explain import explain_cell, rerun_command

OVERRIDES = [
    ["epochs=1"],
    ["method=ssf", "data=demo/count", "seed=3", "protocol=best_test", "batch_size=63", "lr=0.5"],
    [
        "method=lora",
        "method.rank=4",
        "+backbone.kwargs.drop_path_rate=0.1",
        "backbone.weights=random",
    ],
    ["method=ssf", "+backbone.kwargs={drop_path_rate: 0.1, proj_drop_rate: 0.0}"],
    ["method=adapter", "method.bottleneck_dim=16"],
    ["method=linear", "backbone=vit_nano", "precision=bf16", "augment=vpt"],
]


@pytest.mark.parametrize("words", OVERRIDES)
def test_the_command_that_is_printed_repeats_the_run(words: list[str], data_root: Path) -> None:
    where = f"data_root={data_root}"
    experiment = from_config(composed(*words, where), variant_overrides(words))
    made = experiment.record("failed", "weights")
    again = shlex.split(rerun_command(made))
    assert again[:2] == ["python", "train.py"]
    assert from_config(composed(*again[2:], where), []).identity == experiment.identity


def test_a_cell_says_all_that_is_known_of_it() -> None:
    config = {
        "epochs": 100,
        "batch_size": 64,
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "precision": "bf16",
    }
    records = [msgspec.structs.replace(r, config=config) for r in vtab_records()]
    text = "\n".join(explain_cell("vtab", "ssf", "cifar", records))
    command = "python train.py method=ssf data=vtab/cifar seed=1 protocol=last_epoch precision=bf16"
    assert "vtab/cifar ssf: 3 records" in text
    assert "70.60 % (706 of 1000), epoch chosen on last" in text
    assert "settings   epochs=100, batch_size=64, optimizer=adamw, lr=0.001, weight" in text
    assert f"reproduce  {command}\n" in text
    assert "published  69 % as SSF\n  weights    vit_b16_augreg_in21k; epoch chosen on test" in text
    assert "published  75.63 % as SSF (Mai et al. logs)" in text
    assert "SSF arXiv:2210.08823" in text


def test_a_claim_stands_in_place_of_numbers() -> None:
    text = "\n".join(explain_cell("vtab", "san", "cifar", []))
    assert text.startswith("vtab/cifar san: 0 records\n\nclaimed    SAN: no number for a task")


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Unknown task of vtab 'cifer'. Did you mean cifar"):
        list(explain_cell("vtab", "ssf", "cifer", []))
