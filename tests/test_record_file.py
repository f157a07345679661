"""Files of records: earlier schemas, what may be deleted, and the answers beside them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import a_record

from san import record_file
from san.answers import count_by_class, pack_answers, unpack_answers
from san.errors import RecordError
from san.record import Record
from san.score import ClassScore, EpochEntry, Score

OLD = Path(__file__).parent / "golden" / "a10070e" / "records"
LAST = Score(3, 700, 797, loss=0.5)
BEST = Score(2, 720, 797, loss=0.25)
HISTORY = [
    EpochEntry(1, 2.5, 0.1),
    EpochEntry(2, 1.5, 0.05, BEST),
    EpochEntry(3, 0.5, 1e-9, LAST),
]


def whole(**changes: Any) -> Record:
    """A record with all that a run of this version says."""
    facts: dict[str, Any] = {
        "last": LAST,
        "best": BEST,
        "history": HISTORY,
        "started": "2025-12-31T23:00:00+00:00",
        "host": "a-host",
        "validation": Score(3, 150, 200, loss=0.75),
        "classes": [ClassScore("zero", 0, 0), ClassScore("one", 700, 797)],
        "answers": "0123456789abcdef",
        "device_hours": 0.25,
        "peak_bytes": 10**9,
        "joules": 5.5,
        "adapter_bytes": 480,
    }
    return a_record(**facts | changes)


def rewritten(path: Path, change: dict[str, Any], without: str = "") -> None:
    """Change what a record says."""
    raw = json.loads(path.read_text()) | change
    raw.pop(without, None)
    path.write_text(json.dumps(raw))


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    record_file.write_record(whole(), path)
    assert record_file.read_record(path) == whole()
    assert whole().curve == [BEST, LAST]
    raw = json.loads(path.read_text())
    assert raw["history"][0] == {"epoch": 1, "train_loss": 2.5, "lr": 0.1}
    assert raw["history"][1]["score"] == {"epoch": 2, "correct": 720, "total": 797, "loss": 0.25}
    assert raw["schema"] == 2
    lines = path.read_text().splitlines()
    assert '  {"epoch": 1, "train_loss": 2.5, "lr": 0.1},' in lines  # a person reads it, too
    assert '  "precision": "fp32"' in lines


def test_a_loss_that_is_no_number_is_neither_kept_nor_written(tmp_path: Path) -> None:
    for odd in (math.nan, math.inf):
        with pytest.raises(ValueError, match="impossible entry"):
            EpochEntry(1, odd, 0.1)
        with pytest.raises(ValueError, match="impossible score"):
            Score(1, 1, 1, loss=odd)
        with pytest.raises(ValueError, match="not JSON compliant"):
            record_file.write_record(whole(joules=odd), tmp_path / "r.json")
    record_file.write_record(whole(), tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    for odd in ("NaN", "Infinity", "1e999"):
        (tmp_path / "r.json").write_text(text.replace("5.5", odd))
        with pytest.raises(RecordError, match=r"r\.json is not a record of this suite"):
            record_file.read_record(tmp_path / "r.json")


def test_records_of_schema_1_are_read_as_of_this_one_and_stay_as_they_are() -> None:
    paths = sorted(OLD.rglob("*.json"))
    assert len(paths) == 24
    for path in paths:
        before = path.read_bytes()
        raw = json.loads(before)
        r = record_file.read_record(path)
        assert path.read_bytes() == before
        assert (raw["schema"], r.schema) == (1, 2)
        score = Score(**raw["last"])
        assert (r.last, r.best, r.curve) == (score, score, [score])
        assert r.history == [EpochEntry(score.epoch, None, None, score)]
        assert r.peak_bytes == raw["peak_bytes"]
        unknown = (r.started, r.host, r.validation, r.classes, r.answers)
        assert unknown == (None,) * 5
        assert (r.device_hours, r.adapter_bytes) == (None, None)


def of_schema_1(path: Path, **changes: Any) -> None:
    """Write a record of schema 1."""
    raw = json.loads(min(OLD.rglob("*.json")).read_text())
    path.write_text(json.dumps(raw | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curve": 5}, "Expected `array`"),
        ({"curve": [5]}, "Expected `object`"),
        ({"curve": [{"epoch": "x"}]}, "epoch"),
        ({"curve": []}, "there is no score in its history"),
        ({"curve": {"0": 1}}, "Expected `array`"),
        ({"seconds": {}}, "must have counted its parameters and seconds"),
        ({"params": {}}, "must have counted its parameters and seconds"),
        ({"history": []}, "of schema 1, which has no history"),
        ({"answers": None}, "of schema 1, which has no answers"),
        ({"schema": 1.0}, "it has schema 1.0; 1 to 2 are allowed"),
        ({"schema": True}, "it has schema True"),
    ],
)
def test_a_record_of_schema_1_is_not_believed_either(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    of_schema_1(path)
    assert record_file.read_record(path).schema == 2
    of_schema_1(path, **changes)
    with pytest.raises(RecordError, match=f"is not a readable record .*{message}"):
        record_file.read_record(path)


def test_only_what_is_ours_is_to_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    record_file.write_record(whole(), path)
    rewritten(path, {"seed": -1})
    with pytest.raises(RecordError, match=r"readable record .*\. Delete it and run again\."):
        record_file.read_record(path)
    record_file.write_record(whole(), path)
    rewritten(path, {"seed": -1}, without="suite")
    with pytest.raises(RecordError, match=r"not a record of this suite .*\. Move it away\."):
        record_file.read_record(path)
    record_file.write_record(whole(), path)
    rewritten(path, {"schema": 3, "surprise": 1})
    with pytest.raises(RecordError, match=r"of a later version of san .*\. Update san-peft\."):
        record_file.read_record(path)
    for foreign in (
        "{}",
        "[1]",
        "5",
        "null",
        '{"name": "package", "version": "1"}',
        path.read_text()[:99],
    ):
        path.write_text(foreign)
        with pytest.raises(RecordError, match="Move it away") as refused:
            record_file.read_record(path)
        assert "elete" not in str(refused.value)


ANSWERS = np.arange(797) % 797 < 700


def kept(folder: Path, answers: np.ndarray = ANSWERS) -> tuple[Record, Path]:
    """A record with its answers beside it."""
    path = record_file.answers_path(folder / "r.json")
    digest = record_file.write_answers(answers, path)
    return whole(answers=digest), path


@pytest.mark.parametrize("total", [1, 7, 8, 9, 797])
def test_answers_are_bits_and_come_back(total: int, tmp_path: Path) -> None:
    answers = np.random.default_rng(total).random(total) < 0.5
    score = Score(3, int(answers.sum()), total)
    packed = pack_answers(answers)
    assert len(packed) == math.ceil(total / 8)
    again = unpack_answers(packed, score)
    assert again.dtype == np.bool_
    assert again.tolist() == answers.tolist()
    digest = record_file.write_answers(answers, tmp_path / "r.answers")
    r = a_record(suite="gone", last=score, best=score, answers=digest)
    assert record_file.read_answers(r, tmp_path / "r.answers").tolist() == answers.tolist()
    assert (tmp_path / "r.answers").read_bytes() == packed


def test_the_first_answer_is_the_highest_bit() -> None:
    assert pack_answers(np.array([True, False, False, True, True])) == bytes([0b10011000])


def test_answers_are_of_the_score_that_counts(tmp_path: Path) -> None:
    of_best = np.arange(797) < 720
    r, path = kept(tmp_path, of_best)
    chosen = whole(answers=r.answers, selected_on="test", protocol="best_test", classes=None)
    assert record_file.read_answers(chosen, path).sum() == 720
    with pytest.raises(RecordError, match="it has 720 right answers; 700 are recorded"):
        record_file.read_answers(r, path)


def test_answers_that_are_not_the_record_s_are_refused(tmp_path: Path) -> None:
    r, path = kept(tmp_path)
    good = path.read_bytes()
    assert record_file.read_answers(r, path).tolist() == ANSWERS.tolist()
    # The same number of images is right, but others.
    record_file.write_answers(np.roll(ANSWERS, 1), path)
    foreign = {path.read_bytes(): "they are not those that were recorded"}
    foreign |= {
        good[:-1]: "it has 99 bytes; 797 answers take 100",
        good + b"\0": "it has 101 bytes",
        b"": "it has 0 bytes",
        bytes(100): "it has 0 right answers; 700 are recorded",
        good[:-1] + b"\1": "it has more than 797 answers",
        bytes(2**17): "cannot be read: it has 131 kB; at most 66 kB are allowed",
    }
    for content, message in foreign.items():
        path.write_bytes(content)
        with pytest.raises(RecordError, match=rf"r\.answers does not hold .*\({message}"):
            record_file.read_answers(r, path)
    path.unlink()
    with pytest.raises(RecordError, match=r"r\.answers does not hold .* \(does not exist"):
        record_file.read_answers(r, path)
    with pytest.raises(RecordError, match="has no answers"):
        record_file.read_answers(whole(answers=None), path)


def test_a_record_without_its_answers_is_done(tmp_path: Path) -> None:
    path = record_file.record_path(tmp_path, "demo", "san", "digits", 0, whole().id)
    record_file.write_record(whole(), path)
    assert not record_file.answers_path(path).exists()
    assert record_file.find_completed(path) == whole()


def test_classes_are_counted() -> None:
    labels = np.array([2, 0, 2, 2, 0])
    answers = np.array([True, True, False, True, False])
    assert count_by_class(["a", "b", "c"], labels, answers) == [
        ClassScore("a", 1, 2),
        ClassScore("b", 0, 0),
        ClassScore("c", 2, 3),
    ]


def test_a_history_may_be_long(tmp_path: Path) -> None:
    """A score an epoch, for more epochs than anybody trains."""
    scores = [Score(epoch, 700, 797, loss=0.1 + 0.2) for epoch in range(1, 100_001)]
    history = [EpochEntry(s.epoch, 0.1 + 0.2, 0.1 + 0.2, s) for s in scores]
    r = whole(last=scores[-1], best=scores[0], history=history, validation=None)
    record_file.write_record(r, tmp_path / "r.json")
    assert (tmp_path / "r.json").stat().st_size < 2**26 / 2
    assert record_file.read_record(tmp_path / "r.json") == r


def test_what_failed_keeps_its_history(tmp_path: Path) -> None:
    failed = a_record(status="failed", error="boom", history=HISTORY[:2])
    record_file.write_record(failed, tmp_path / "r.json")
    assert record_file.read_record(tmp_path / "r.json").history == HISTORY[:2]
    torn = a_record(status="failed", error="boom", history=HISTORY[1:])
    with pytest.raises(ValueError, match="an epoch is missing"):
        record_file.write_record(torn, tmp_path / "r.json")
