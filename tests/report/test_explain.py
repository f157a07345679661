"""Where a number comes from: what is said is what the table has, and the commands are true."""

import dataclasses
import itertools
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import a_record, composed, resolved, scores_alone
from samples import DEMO, VTAB, demo_records, done, failed, ten_classes, vtab_records

from san.errors import UnknownNameError
from san.experiment import from_config
from san.record import DataSource, Record
from san.record_file import read_records, record_path, write_record
from san.record_names import named_by_value
from san.report.explain import explain_cell
from san.report.explain_names import find_place
from san.report.explain_record import labelled_command, rerun_words
from san.report.means import accuracy_columns, mean_columns
from san.report.published import published_numbers
from san.report.table import make_table
from san.report.value import to_text
from san.runtime.environment import CodeState, DeviceInfo
from san.score import ClassScore, EpochEntry, Score
from san.tasks import load_suite, suite_names

NOWHERE = Path("no/records")
OLD_RECORDS = Path(__file__).parents[1] / "golden" / "a10070e" / "records"
WIDTH = 100
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


def explain(
    suite: str,
    row: str,
    column: str,
    records: Sequence[Record],
    folder: Path = NOWHERE,
    backbone: str | None = None,
) -> list[str]:
    """The lines that are printed."""
    return "\n".join(explain_cell(suite, row, column, records, folder, backbone)).splitlines()


def heads(lines: Sequence[str]) -> list[str]:
    """The first lines of all cells."""
    return [line for line in lines if line and not line.startswith(" ")]


def said(lines: Sequence[str], label: str) -> list[str]:
    """What stands behind a label, each text in one line."""
    text = "\n".join(lines).replace(" \\\n", "\n")
    whole = re.sub(r"\n {15,}(?=\S)", " ", text)
    return re.findall(rf"^    {re.escape(label)} +(.*)$", whole, re.MULTILINE)


def written(folder: Path, *records: Record) -> list[Path]:
    """Write records where they belong."""
    paths = [record_path(folder, r.suite, r.method, r.task, r.seed, r.id) for r in records]
    for r, path in zip(records, paths, strict=True):
        write_record(r, path)
    return paths


def digits(correct: int, **changes: Any) -> Record:
    """A run on all 797 test images of demo/digits."""
    score = Score(5, correct, 797)
    return a_record(last=score, best=score, **changes)


@pytest.mark.parametrize("words", OVERRIDES)
def test_the_command_that_is_printed_repeats_the_run(words: list[str], data_root: Path) -> None:
    where = f"data_root={data_root}"
    experiment = from_config(*resolved(*words, where))
    made = experiment.record("failed", "weights")
    again = rerun_words(made, NOWHERE)
    assert again[:2] == ["python", "train.py"]
    assert from_config(composed(*again[2:], where)).identity == experiment.identity


def test_a_shell_reads_the_words_of_a_command_back() -> None:
    words = ["echo", "it's", "a b", "$HOME", "x" * 120, *(f"key{i}=value{i}" for i in range(30))]
    text = labelled_command("run", words)
    assert text.startswith("    run        echo ")
    assert len(text.splitlines()) > 5
    assert all(len(line) <= WIDTH for line in text.splitlines() if "xxx" not in line)
    command = text.removeprefix("    run        echo")
    program = f"printf '%s\\n' {command}"
    shown = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == words[1:]


def test_a_run_whose_record_exists_is_repeated_by_force(tmp_path: Path) -> None:
    good = digits(700)
    broken = failed(seed=1)
    path, path_of_broken = written(tmp_path, good, broken)
    lines = explain("demo", "san", "digits", [good, broken], tmp_path)
    assert [text.split(" ")[0] for text in said(lines, "record")] == [
        str(path),
        str(path_of_broken),
    ]
    commands = said(lines, "reproduce")
    assert [command.endswith(" force=true") for command in commands] == [True, False]
    path.unlink()
    lines = explain("demo", "san", "digits", [good, broken], tmp_path)
    assert said(lines, "record")[0].startswith(f"not at {path} 0123456789ab of 2026-01-01")
    assert not any("force" in line for line in lines)


def test_records_of_schema_1_say_what_they_know() -> None:
    records, problems = read_records(OLD_RECORDS)
    assert (len(records), problems) == (24, [])
    lines = explain("demo", "ssf", "count", list(map(named_by_value, records)), OLD_RECORDS)
    assert heads(lines) == ["28.80  demo/count, ssf [epochs=1], vit_nano: 1 record"]
    assert said(lines, "interval") == [
        "26.08 to 31.68 at 95 %, from 1,000 images; other seeds aside"
    ]
    assert "  seed 0: 28.80 % (288 of 1000) after epoch 1, chosen on last" in lines
    path = OLD_RECORDS / "demo" / "ssf" / "count-seed0-277b821c8eee.json"
    assert said(lines, "record") == [f"{path} 277b821c8eee of 2026-11-27T12:09:13+00:00"]
    assert said(lines, "settings")[0].endswith("weight_decay=0.0001; not the suite's: epochs=1")
    assert said(lines, "evaluated") == ["on test once, after epoch 1"]
    assert said(lines, "cost") == ["11 s of training steps, 944 MB peak memory"]
    assert said(lines, "reproduce")[0].endswith("precision=fp32 epochs=1 force=true")
    for unknown in ("loss", "validation", "worst", "best", "classes"):
        assert said(lines, unknown) == []


def test_a_record_says_all_that_schema_2_has() -> None:
    classes = [ClassScore(name, 60 + i, 79) for i, name in enumerate(DEMO.tasks["digits"].classes)]
    classes.append(ClassScore("of which the split has none", 0, 0))
    last = Score(30, 645, 790, loss=0.25)
    best = Score(20, 700, 790, loss=0.5)
    history = [EpochEntry(10, score=Score(10, 600, 790)), EpochEntry(20, score=best)]
    r = a_record(
        config={"epochs": 30, "lr": 0.01},
        last=last,
        best=best,
        history=[*history, EpochEntry(30, score=last)],
        validation=Score(30, 150, 200),
        classes=classes,
        started="2025-12-31T23:00:00+00:00",
        host="a-host",
        device=DeviceInfo("cuda", "A GPU", 4),
        code=CodeState("0123456789abcdef", dirty=True),
        versions={"python": "3.11"},
        device_hours=2.5,
        peak_bytes=3 * 10**9,
        joules=12345.6,
        adapter_bytes=45_000,
        warnings=["The adapter was not saved:\nthe disk is full"],
    )
    lines = explain("demo", "san", "digits", [r])
    assert "  seed 0: 81.65 % (645 of 790) after epoch 30, chosen on last" in lines
    assert said(lines, "record")[0].endswith(", begun 2025-12-31T23:00:00+00:00")
    assert said(lines, "settings") == ["epochs=30, lr=0.01"]
    expected = (
        "on test after epochs 10 to 30 in steps of 10; best 88.61 % (700 of 790) after epoch 20"
    )
    assert said(lines, "evaluated") == [expected]
    assert said(lines, "loss") == ["0.2500, the mean cross-entropy on test"]
    assert said(lines, "validation") == ["75.00 % (150 of 200) after epoch 30"]
    assert said(lines, "worst") == [
        "zero 75.95 % (60 of 79); one 77.22 % (61 of 79); two 78.48 % (62 of 79)"
    ]
    assert said(lines, "best") == [
        "nine 87.34 % (69 of 79); eight 86.08 % (68 of 79); seven 84.81 % (67 of 79)"
    ]
    assert said(lines, "trained") == ["120 parameters, 20 of them the head's"]
    steps = "2.5 h of device time, 1 s of training steps"
    assert said(lines, "cost") == [f"{steps}, 3.0 GB peak memory, 12,346 J, adapter of 45 kB"]
    made_by = "commit 0123456789ab with changes, python 3.11, on 4 x A GPU, host a-host"
    assert said(lines, "made by") == [made_by]
    assert said(lines, "warning") == ["The adapter was not saved: the disk is full"]


def test_of_a_run_near_chance_it_is_said() -> None:
    chance = [done(116, task="tissue", classes=ten_classes(116))]
    lines = explain("demo", "san", "tissue", chance)
    (flag,) = said(lines, "flag ∅")
    assert flag == "a run is not shown to be better than always answering the most frequent class"
    expected = (
        "11.60 % is not shown to be better than always answering the most frequent class (10.00 %)"
    )
    assert said(lines, "chance") == [expected]
    assert said(lines, "compared") == []
    above = [done(117, task="tissue", classes=ten_classes(117))]
    assert said(explain("demo", "san", "tissue", above), "chance") == []


def test_of_few_classes_all_are_listed() -> None:
    classes = [ClassScore("healthy", 480, 500), ClassScore("tumour", 420, 500)]
    lines = explain("demo", "san", "tissue", [done(900, task="tissue", classes=classes)])
    assert said(lines, "classes") == ["tumour 84.00 % (420 of 500); healthy 96.00 % (480 of 500)"]
    assert said(lines, "worst") == said(lines, "best") == []


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ([0], "without training"),
        ([7], "once, after epoch 7"),
        ([4, 5], "after epochs 4, 5"),
        ([1, 2, 3], "after epochs 1 to 3"),
        ([10, 20, 30], "after epochs 10 to 30 in steps of 10"),
        ([1, 5, 7], "after epochs 1, 5, 7"),
    ],
)
def test_evaluated_epochs_are_said_in_few_words(epochs: list[int], expected: str) -> None:
    scores = [Score(epoch, 900, 1000) for epoch in epochs]
    r = a_record(last=scores[-1], best=scores[0], history=scores_alone(*scores))
    assert said(explain("demo", "san", "digits", [r]), "evaluated")[0].startswith(
        f"on test {expected}"
    )


def test_of_a_run_chosen_on_test_the_last_score_is_said_too() -> None:
    lines = explain("demo", "san [best_test]", "count", demo_records())
    assert "  seed 0: 99.00 % (990 of 1000) after epoch 3, chosen on test" in lines
    assert said(lines, "evaluated")[0].endswith("; last 60.00 % (600 of 1000) after epoch 5")
    assert said(lines, "flag †")[0].endswith(": epoch chosen on test (compared rows: last)")


def test_the_flags_of_a_cell_are_said_in_words_with_what_differs() -> None:
    lines = explain("demo", "lora", "texture", demo_records())
    assert heads(lines) == ["70.00§≠  demo/texture, lora [last_epoch], vit_nano: 1 record"]
    difference = "pre-trained weights texture (compared rows: w)"
    assert said(lines, "flag ≠")[0].endswith(f"the compared rows: {difference}")
    assert "pre-trained weights digits and texture and" in said(lines, "flag §")[0]
    assert said(lines, "compared") == ["no: it takes no part in the comparison of rows"]
    lines = explain("demo", "lora", "mean", demo_records())
    assert said(lines, "flag ≠")[0].endswith(
        "pre-trained weights on Digits, Texture, Tissue, Terrain, Count, Orientation"
    )


def test_a_difference_that_all_tasks_share_is_said_once_with_its_values() -> None:
    records = [done(900, method=m, task=t) for m in ("full", "linear", "san") for t in DEMO.tasks]
    for t in DEMO.tasks:
        code = CodeState("abcdef0123", dirty=True)
        records.append(done(800, method="ssf", task=t, code=code, config={"precision": "bf16"}))
    lines = explain("demo", "ssf", "Mean", records)
    where = "on Digits, Texture, Tissue, Terrain, Count, Orientation"
    assert said(lines, "flag ≠")[0].endswith(f"rows: precision bf16 (compared rows: fp32) {where}")
    assert said(lines, "flag ◇")[0].endswith(
        f"code changed after abcdef0 (compared rows: committed) {where}"
    )


def test_forced_data_and_failed_runs_say_why() -> None:
    lines = explain("demo", "bitfit", "digits", demo_records())
    assert said(lines, "FORCED") == ["ten images are missing"]
    assert said(lines, "reproduce")[0].endswith(" allow_unverified_data=true")
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    f()\n    ^^^\n'
    trace += "ValueError: this went wrong,\nand here is\n  what to do\n"
    lines = explain("demo", "san", "digits", [failed(error=trace)])
    assert heads(lines) == ["failed  demo/digits, san, vit_nano: 1 record"]
    assert "  seed 0: failed" in lines
    assert said(lines, "error") == ["ValueError: this went wrong,"]


def test_records_that_are_not_in_the_value_say_so() -> None:
    lines = explain("demo", "san [epochs=4, last_epoch]", "digits", demo_records())
    assert heads(lines) == ["65.00‡  demo/digits, san [epochs=4, last_epoch], vit_nano: 2 records"]
    shown = [line for line in lines if line.startswith("  seed") or "counted" in line]
    assert [line.split(" (")[0] for line in shown] == [
        "  seed 0: 64.00 %",
        "    counted    no: a newer run of this seed is",
        "  seed 0: 65.00 %",
    ]


def test_what_is_missing_comes_with_the_command_that_makes_it() -> None:
    settings: dict[str, Any] = {"method": "lora", "variant": "method.rank=4"}
    records = [done(900, task="digits", seed=seed, **settings) for seed in (0, 1, 2)]
    records.append(done(900, task="count", seed=1, **settings))
    rest = "protocol=last_epoch precision=fp32 method.rank=4"
    lines = explain("demo", "lora [rank=4]", "count", records)
    command = f"python train.py -m method=lora data=demo/count seed=0,2 {rest}"
    assert said(lines, "not run") == [command]
    lines = explain("demo", "lora [rank=4]", "tissue", records[1:2])
    assert heads(lines) == ["–  demo/tissue, lora [rank=4], vit_nano: 0 records"]
    assert said(lines, "not run") == [f"python train.py method=lora data=demo/tissue seed=1 {rest}"]
    assert said(explain("demo", "lora", "digits", records), "not run") == []


def test_the_data_that_one_task_was_forced_on_is_not_forced_on_another() -> None:
    data = DataSource(forced="ten images are missing")
    lines = explain("demo", "san", "count", [done(900, task="digits", data=data)])
    assert "allow_unverified_data" not in said(lines, "not run")[0]


@pytest.mark.parametrize(
    ("column", "backbone", "command"),
    [
        ("cifar", None, "python train.py method=san data=vtab/cifar"),
        ("cifar", VTAB.backbone, "python train.py method=san data=vtab/cifar"),
        (
            "cifar",
            "swin_b_in22k",
            "python train.py method=san data=vtab/cifar backbone=swin_b_in22k",
        ),
        ("mean", None, "python scripts/reproduce.py vtab --methods san"),
        (
            "natural",
            "swin_b_in22k",
            "python scripts/reproduce.py vtab --methods san --backbone swin_b_in22k",
        ),
    ],
)
def test_a_method_that_was_not_run_comes_with_the_command_that_runs_it(
    column: str, backbone: str | None, command: str
) -> None:
    lines = explain("vtab", "san", column, [], NOWHERE, backbone)
    assert heads(lines)[0].endswith(", san: not run yet")
    assert said(lines, "run") == [command]
    assert heads(lines)[1].startswith("–  vtab")
    assert "SAN: published without a number: no number for a task" in heads(lines)[1]


def test_a_cell_says_how_far_it_is_from_what_is_published() -> None:
    lines = explain("vtab", "ssf", "cifar", vtab_records())
    head = "70.10 ± 0.10 (3)  vtab/cifar, ssf, vit_b16_augreg_in21k: 3 records"
    assert heads(lines)[0].startswith(head)
    assert said(lines, "spread") == ["± standard deviation over seeds, here 3"]
    assert said(lines, "gap") == [
        "+1.10 to SSF, 69.0†",
        "-5.53 to SSF (Mai et al., last), 75.63◦",
        "-5.54 to SSF (Mai et al., best), 75.64†◦",
    ]
    assert [head.partition("  ")[2] for head in heads(lines)[1:]] == [
        "vtab/cifar, SSF, vit_b16_augreg_in21k: published",
        "vtab/cifar, SSF (Mai et al., last), vit_b16_orig_in21k: published",
        "vtab/cifar, SSF (Mai et al., best), vit_b16_orig_in21k: published",
    ]


def test_a_published_number_says_whose_it_is_and_where_it_was_read() -> None:
    lines = explain("vtab", "SSF (Mai et al., last)", "cifar", vtab_records())
    assert heads(lines) == [
        "75.63◦  vtab/cifar, SSF (Mai et al., last), vit_b16_orig_in21k: published"
    ]
    assert said(lines, "flag ◦") == ["from other pre-trained weights than this table's"]
    assert said(lines, "weights") == ["vit_b16_orig_in21k; epoch chosen on last"]
    printed = said(lines, "printed")
    assert printed[0] == "75.63: mai2025lessons; read in mai_results"
    assert printed[1].startswith("86.32 (augmented): mai2025lessons")
    (source,) = said(lines, "source")
    assert source.startswith("mai2025lessons: Lessons and Insights")
    assert source.endswith("(CVPR), 2025, https://arxiv.org/abs/2409.16434")
    assert said(lines, "protocol")[0].startswith("resize 224x224 bicubic, no augmentation")


def test_every_published_number_is_in_a_cell() -> None:
    found = 0
    for name in ("vtab", "fgvc", "gic"):
        suite = load_suite(name)
        places = [find_place(suite, column.label) for column in accuracy_columns(suite)]
        for backbone in ("vit_b16_augreg_in21k", "swin_b_in22k", "convnext_b_in22k"):
            for number in published_numbers(name, backbone):
                holding = [place for place in places if place.holds(number.task)]
                is_ambiguous = number.task == "mean" and len(suite.groups) > 1
                assert len(holding) == (2 if is_ambiguous else 1), number
                found += 1
    assert found == 1604


def test_of_a_mean_the_tasks_are_listed_and_the_stated_ones_are_told_apart() -> None:
    lines = explain("vtab", "ssf", "mean", vtab_records())
    assert heads(lines)[0].startswith("74.60 ± 0.10 (3)")
    assert heads(lines)[0].endswith(
        "  vtab, mean of all tasks, ssf, vit_b16_augreg_in21k: 19 tasks"
    )
    assert said(lines, "CIFAR-100") == ["70.10 ± 0.10 (3)"]
    assert said(lines, "sNORB-Ele") == ["79.10 ± 0.10 (3)"]
    assert said(lines, "each task") == ["python scripts/tables.py --cell vtab ssf TASK"]
    by_rules = "from the values of its tasks, by the rules of our tables"
    lines = explain("vtab", "LoRA", "mean of groups", [])
    assert said(lines, "computed")[0] == by_rules
    assert said(lines, "printed")[0].startswith("74.5: zhang2022noah, Table 1;")
    lines = explain("vtab", "SNELL-8", "natural", [], NOWHERE, "swin_b_in22k")
    assert said(lines, "computed") == []
    assert said(lines, "flag *")[0].startswith("from means as stated")


def test_a_run_of_another_split_is_in_a_table_of_its_own() -> None:
    lines = explain(
        "demo", "san", "digits", [done(900), done(999, protocol="tune", evaluated_on="val")]
    )
    assert heads(lines) == [
        "90.00  demo/digits, san, vit_nano: 1 record",
        "99.90  demo/digits, san, vit_nano, val split: 1 record",
    ]


def test_a_backbone_can_be_chosen() -> None:
    lines = explain("vtab", "san", "cifar", vtab_records(), NOWHERE, "swin_b_in22k")
    assert heads(lines)[0].startswith("99.90  vtab/cifar, san, swin_b_in22k: 1 record")
    assert "vit_b16" not in "".join(heads(lines))
    heads_of_full = heads(explain("vtab", "Full", "natural", [], NOWHERE, "swin_b_in22k"))
    assert heads_of_full[1].endswith("vtab, mean of natural, Full, Swin-B: published")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("NOAH", ["NOAH, vit_b16_orig_in21k: published"]),
        ("noah", ["NOAH, vit_b16_orig_in21k: published"]),
        ("NOAH†", ["NOAH, vit_b16_orig_in21k: published"]),
        ("Adapter-32", ["Adapter-32, ViT-B/16: published"]),
        ("SSF", ["ssf, vit_b16", "ssf [rank=4], vit_b16", "SSF, vit_b16"]),
        ("ssf", ["ssf, vit_b16", "ssf [rank=4], vit_b16", "SSF, vit_b16"]),
        ("ssf [rank=4]", ["ssf [rank=4], vit_b16"]),
        ("SSF [rank=4]", ["ssf [rank=4], vit_b16"]),
        ("ssf [rank=4]‖ - SSF†", ["ssf [rank=4], vit_b16"]),
    ],
)
def test_rows_are_found_as_tables_print_them(row: str, expected: list[str]) -> None:
    records = vtab_records()
    for r in list(records):
        records.append(msgspec.structs.replace(r, variant="method.rank=4", id=f"{r.id}-4"))
    found = heads(explain("VTAB-1k", row, "CIFAR-100", records))
    for head in expected:
        assert any(f"vtab/cifar, {head}" in line for line in found), (head, found)
    if len(expected) == 1:
        assert len([line for line in found if "published" not in line]) == ("ssf" in row.lower())


def test_a_published_number_is_headed_by_its_own_weights_once() -> None:
    records = vtab_records()
    records += [msgspec.structs.replace(r, backbone="vit_b16_orig_in21k") for r in records]
    found = heads(explain("vtab", "NOAH", "cifar", records))
    assert len(found) == 1
    assert found[0].endswith("  vtab/cifar, NOAH, vit_b16_orig_in21k: published")


def test_every_row_of_a_table_is_found_and_has_its_value() -> None:
    """Each row at one column, so that all columns come."""
    explained = 0
    for suite, records in ((DEMO, demo_records()), (VTAB, vtab_records())):
        table = make_table(suite, records)
        columns = itertools.cycle(table.columns)
        for row in [*table.ours.rows, *table.published.rows]:
            column = next(columns)
            found = heads(explain(suite.name, row.label, column.label, records))
            value = row.values[column]
            text = to_text(dataclasses.replace(value, flags=value.flags | row.flags))
            assert any(head.startswith(f"{text}  ") for head in found), (row.label, found)
            explained += 1
        for row in table.differences.rows:
            assert heads(explain(suite.name, row.label, "mean", records)), row.label
    assert explained > 40


def test_every_column_of_a_table_is_found() -> None:
    found = 0
    for name in suite_names():
        suite = load_suite(name)
        means = mean_columns(suite)
        for column in accuracy_columns(suite):
            names = [column.label, column.label.upper()]
            if column in means:
                names += [f"{column.group} {column.label}", means[column]] if len(means) > 1 else []
            for each in names:
                if each == "mean of group":  # which group, is not said
                    continue
                assert find_place(suite, each).column == column, (name, each)
                found += 1
    assert found > 100
    for each in ("mean", "Mean", "mean all", "All tasks", "mean of all tasks"):
        assert find_place(VTAB, each).title == "vtab, mean of all tasks"
    for each in ("Of groups", "mean groups", "mean_of_groups"):
        assert find_place(VTAB, each).title == "vtab, mean of groups"
    assert find_place(VTAB, "Specialized").title == "vtab, mean of specialised"
    assert find_place(load_suite("robustness"), "mCE").title == "robustness, mean corruption error"


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Unknown task of vtab 'cifer'. Did you mean cifar"):
        explain("vtab", "ssf", "cifer", [])
    # Papers write the last two as we do: each is offered once.
    near = r"method or row 'sann'\. Did you mean san or san_neurons or san_lora\?"
    with pytest.raises(UnknownNameError, match=near):
        explain("vtab", "sann", "cifar", [])
    with pytest.raises(UnknownNameError, match="Unknown suite 'vtub'. Did you mean vtab"):
        explain("vtub", "ssf", "cifar", [])


def test_what_is_said_fits_a_terminal() -> None:
    records, _ = read_records(OLD_RECORDS)
    lines = explain("demo", "ssf", "count", list(map(named_by_value, records)), Path("records"))
    lines += explain("vtab", "ssf", "cifar", vtab_records())
    lines += explain("vtab", "lora", "mean", vtab_records())
    assert len(lines) > 100
    assert [line for line in lines if len(line) > WIDTH] == []
