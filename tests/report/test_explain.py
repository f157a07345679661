"""Where a number comes from: the command that is printed makes the same experiment."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import composed

from san.experiment import from_config
from san.report import explain

OVERRIDES = [
    ["epochs=1"],
    ["method=ssf", "data=demo/count", "seed=3", "protocol=best_test", "batch_size=63", "lr=0.5"],
    [
        "method=lora",
        "method.rank=4",
        "+backbone.arguments.drop_path_rate=0.1",
        "backbone.weights=random",
    ],
    ["method=ssf", "+backbone.arguments={drop_path_rate: 0.1, proj_drop_rate: 0.0}"],
    ["method=linear", "backbone=vit_nano", "precision=bf16", "augment=vpt"],
]


@pytest.mark.parametrize("words", OVERRIDES)
def test_the_command_that_is_printed_repeats_the_run(words: list[str], data_root: Path) -> None:
    from san.compose import CELL

    where = f"data_root={data_root}"
    settings = [w for w in words if w.lstrip("+").split("=")[0] not in CELL]
    experiment = from_config(composed(*words, where), settings)
    made = experiment.record("failed", "weights")
    again = shlex.split(explain.rerun_command(made))
    assert again[:2] == ["python", "train.py"]
    assert from_config(composed(*again[2:], where), []).identity == experiment.identity


def test_a_cell_says_all_that_is_known_of_it() -> None:
    from test_table import vtab

    made = [
        replace(
            r,
            config={
                "epochs": 100,
                "batch_size": 64,
                "optimizer": "adamw",
                "lr": 1e-3,
                "weight_decay": 1e-4,
                "precision": "bf16",
            },
        )
        for r in vtab()
    ]
    text = "\n".join(explain.explain_cell("vtab", "ssf", "cifar", made))
    assert "vtab/cifar ssf: 3 records" in text
    assert "70.60 % (706 of 1000), epoch chosen on last" in text
    assert (
        "python train.py method=ssf data=vtab/cifar seed=1 protocol=last_epoch precision=bf16"
        in text
    )
    assert "published  69 % as SSF\n  weights    vit_b16_augreg_in21k; epoch chosen on test" in text
    assert "published  75.63 % as SSF (Mai et al. logs)" in text
    assert "SSF arXiv:2210.08823" in text
    with pytest.raises(LookupError, match="Unknown task of vtab 'cifer'. Did you mean cifar"):
        list(explain.explain_cell("vtab", "ssf", "cifer", made))
    with pytest.raises(LookupError, match="Unknown method 'sff'. Did you mean ssf"):
        list(explain.explain_cell("vtab", "sff", "cifar", made))
