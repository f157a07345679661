"""Where a number comes from: the command that is printed makes the same experiment."""

import itertools
import shlex
from pathlib import Path

import msgspec
import pytest
from conftest import a_record, composed, resolved
from samples import done, vtab_records

from san.errors import UnknownNameError
from san.experiment import from_config
from san.report.explain import explain_cell, rerun_command
from san.report.table import make_table
from san.tasks import load_suite

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
    experiment = from_config(*resolved(*words, where))
    made = experiment.record("failed", "weights")
    again = shlex.split(rerun_command(made))
    assert again[:2] == ["python", "train.py"]
    assert from_config(composed(*again[2:], where)).identity == experiment.identity


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
    assert text.startswith("70.60 ± 0.10 (3)  vtab/cifar, ssf, vit_b16_augreg_in21k: 3 records\n")
    assert "seed 1: 70.60 % (706 of 1000), epoch chosen on last" in text
    assert "settings   epochs=100, batch_size=64, optimizer=adamw, lr=0.001, weight" in text
    assert f"reproduce  {command}\n" in text
    assert "69  vtab/cifar, SSF, vit_b16_augreg_in21k: published\n    weights    vit_b16" in text
    assert "75.63  vtab/cifar, SSF (Mai et al., last), vit_b16_orig_in21k: published" in text
    assert "source     lian2022ssf, Table 4; read in vpetl_readme; zhao2024dyt, Table 3" in text
    assert "protocol   official VTAB scripts" in text


def test_a_claim_stands_in_place_of_numbers() -> None:
    text = "\n".join(explain_cell("vtab", "san", "cifar", []))
    run = "python train.py method=san data=vtab/cifar"
    assert text.startswith(f"–  vtab/cifar, san: not run yet\n    run        {run}\n")
    assert "–  vtab/cifar, SAN: published without a number: no number for a task" in text


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Unknown task of vtab 'cifer'. Did you mean cifar"):
        list(explain_cell("vtab", "ssf", "cifer", []))


@pytest.mark.parametrize(
    ("row", "heads"),
    [
        ("NOAH", ["NOAH, vit_b16_orig_in21k: published"]),
        ("noah", ["NOAH, vit_b16_orig_in21k: published"]),
        ("NOAH†", ["NOAH, vit_b16_orig_in21k: published"]),
        ("Adapter-32", ["Adapter-32, ViT-B/16: published"]),
        ("SSF", ["ssf, vit_b16", "ssf [rank=4], vit_b16", "SSF, vit_b16"]),
        ("ssf", ["ssf, vit_b16", "ssf [rank=4], vit_b16", "SSF, vit_b16"]),
        ("ssf [rank=4]", ["ssf [rank=4], vit_b16"]),
    ],
)
def test_rows_are_found_as_tables_print_them(row: str, heads: list[str]) -> None:
    records = vtab_records()
    records += [msgspec.structs.replace(r, variant="method.rank=4") for r in records]
    text = "\n".join(explain_cell("VTAB-1k", row, "CIFAR-100", records))
    found = [line for line in text.splitlines() if "  vtab/cifar, " in line]
    for head in heads:
        assert any(f"vtab/cifar, {head}" in line for line in found), (head, found)
    if len(heads) == 1:
        assert len([line for line in found if "published" not in line]) == ("ssf" in row)


def test_a_published_number_is_headed_by_its_own_weights_once() -> None:
    records = vtab_records()
    records += [msgspec.structs.replace(r, backbone="vit_b16_orig_in21k") for r in records]
    lines = list(explain_cell("vtab", "NOAH", "cifar", records))
    assert [line for line in lines if "published" in line] == [
        "69.6  vtab/cifar, NOAH, vit_b16_orig_in21k: published"
    ]
    assert any(line.startswith("    weights    vit_b16_orig_in21k;") for line in lines)


def test_every_name_of_a_table_is_found() -> None:
    table = make_table(load_suite("vtab"), vtab_records())
    labels = [row.label for row in [*table.ours.rows, *table.published.rows]]
    assert len(labels) > 30
    tasks = load_suite("vtab").tasks.values()
    for label, task in zip(labels, itertools.cycle(tasks), strict=False):
        assert list(explain_cell("vtab", label, task.label, vtab_records())), label


def test_a_failed_run_says_what_went_wrong_first() -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    f()\n    ^^^\n'
    trace += "ValueError: this went wrong,\nand here is\n  what to do\n"
    failed = a_record(suite="demo", status="failed", error=trace)
    text = "\n".join(explain_cell("demo", "san", "digits", [failed]))
    assert "    error      ValueError: this went wrong,\n" in text


def test_what_failed_after_the_number_is_said() -> None:
    warned = done(900, warnings=["The adapter was not saved: the disk is full"])
    lines = explain_cell("demo", "san", "digits", [warned])
    assert "    warning    The adapter was not saved: the disk is full" in lines
