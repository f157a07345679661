"""Does it reproduce here? What is said of runs beside the reference's."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from samples import DEMO
from samples import run as samples_run

from san import record_names
from san.answers import Answers
from san.record import Record
from san.record_file import answers_path, read_answers, read_records, record_path
from san.report.render import write_table
from san.report.reproduction import REFERENCE, describe_reproduction
from san.report.table import make_table
from san.runtime.environment import CodeState
from san.score import EpochEntry, Score


def run(correct: int, loss: float = 0.5, **facts: Any) -> Record:
    """A run whose loss was kept."""
    score = Score(1, correct, 1000, loss)
    history = [EpochEntry(1, train_loss=loss, lr=0.1, score=score)]
    return samples_run(last=score, best=score, history=history, **facts)


def reference() -> list[Record]:
    return [run(700 + i, task=task) for i, task in enumerate(DEMO.tasks)]


def said(own: list[Record]) -> str:
    return "\n".join(describe_reproduction(own, reference()))


def test_the_same_runs_are_equal_to_the_bit() -> None:
    text = said(reference())
    assert "6 of the 6 runs of the reference are here." in text
    assert "equal to the bit" in text
    assert "differs" not in text


def test_the_same_counts_of_other_losses_are_said_so() -> None:
    own = [run(700 + i, 0.51, task=task) for i, task in enumerate(DEMO.tasks)]
    text = said(own)
    assert (
        "All 6 of the same settings have the same number of test images right; the losses of 6"
        in text
    )
    assert "Nothing that records know differs" in text


def test_a_cell_that_differs_is_named_with_its_size_and_what_else_differs() -> None:
    own = reference()
    own[2] = run(705, task=list(DEMO.tasks)[2], versions={"torch": "9.9"}, code=CodeState("abc"))
    text = said(own)
    assert "have the same number of test images right, 5 of them to the bit" in text
    assert "The largest difference is +0.30 points" in text
    assert "  tissue san seed 0: 70.50 % (reference: 70.20 %, +3 images)" in text
    assert "version of torch 9.9 (reference: none)" in text
    assert "commit abc" in text


def test_runs_under_other_settings_need_not_agree() -> None:
    own = reference()
    own[0] = run(1, task="digits", id="another", config={"precision": "bf16"})
    text = said(own)
    assert "1 were run here under other settings" in text
    assert "precision bf16 (reference: fp32)" in text
    assert "digits san" not in text


def test_a_run_of_the_same_identity_counts_before_a_newer_one() -> None:
    newer = run(1, task="digits", id="another", created="2027-01-01T00:00:00+00:00")
    assert "equal to the bit" in said([*reference(), newer])


@pytest.mark.parametrize("own", [[], [run(1, method="lora")]])
def test_nothing_is_said_where_nothing_is_in_both(own: list[Record]) -> None:
    assert said(own) == ""


def test_the_reference_that_is_shipped_is_whole_and_of_committed_code() -> None:
    records, problems = read_records(REFERENCE / "records")
    assert problems == []
    cells = {(r.method, r.task) for r in records}
    assert cells == {(method, task) for method in DEMO.methods for task in DEMO.tasks}
    assert len(records) == len(cells) == 24
    for r in records:
        assert r.code.dirty is False
        assert r.answers is not None
        assert record_names.named_by_value(r).variant == ""
    text = "\n".join(describe_reproduction(records, records))
    assert "equal to the bit" in text
    changed = [msgspec.structs.replace(r, host="elsewhere") for r in records]
    assert "\n".join(describe_reproduction(changed, records)) == text


def test_the_tables_that_are_shipped_are_those_of_the_reference_runs(tmp_path: Path) -> None:
    """The figures are not compared: another version of matplotlib draws other bytes."""
    records, _ = read_records(REFERENCE / "records")

    def answers_of(r: Record) -> Answers:
        path = record_path(REFERENCE / "records", r.suite, r.method, r.task, r.seed, r.id)
        return read_answers(r, answers_path(path))

    named = [record_names.named_by_value(r) for r in records]
    write_table(make_table(DEMO, named, answers_of=answers_of), tmp_path)
    for name in ("demo.md", "demo.csv", "demo_runs.csv", "demo.tex", "demo.bib"):
        assert (tmp_path / name).read_text() == (REFERENCE / "tables" / name).read_text(), name
