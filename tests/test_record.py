"""Records: identity, round trip, corrupt files."""

import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import a_record, composed

from san import record, record_file
from san.errors import FileAccessError, InvalidValueError, RecordError
from san.experiment import from_config
from san.record import DataSource, Record
from san.runtime import files
from san.score import Score
from san.tasks import load_suite


def identity(data_root: Path, *overrides: str) -> str:
    return from_config(composed(f"data_root={data_root}", *overrides)).identity


def test_identity_is_the_content(data_root: Path) -> None:
    base = identity(data_root)
    same = [
        ["results_dir=elsewhere"],
        ["logger=none"],
        ["device=cpu"],
        ["force=true"],
        ["lr=0.01"],
        ["precision=fp32"],
        ["label_smoothing=0"],
    ]
    other = [
        ["lr=0.001"], ["seed=1"], ["epochs=3"], ["batch_size=10"], ["method=ssf"],
        ["method.train_norms=false"],
        ["data=demo/count"], ["data.resize=bicubic"], ["data.normalize=none"],
        ["protocol=tune"], ["protocol=best_test"],
        ["backbone.weights=random"], ["label_smoothing=0.1"], ["precision=bf16"],
        ["optimizer=sgd"], ["weight_decay=0"],
    ]  # fmt: skip
    assert [identity(data_root, *o) for o in same] == [base] * len(same)
    keys = [identity(data_root, *o) for o in other]
    assert len({base, *keys}) == 1 + len(other)


def stored(**changes: Any) -> Record:
    """A record of a suite that is gone: how many images its splits have is not known."""
    return a_record(suite="gone", **changes)


def test_round_trip_is_exact_and_atomic(tmp_path: Path) -> None:
    path = record_file.record_path(tmp_path, "demo", "san", "digits", 0, "0123456789ab")
    assert record_file.find_completed(path) is None
    record_file.write_record(stored(), path)
    assert record_file.read_record(path) == stored()
    assert record_file.find_completed(path) == stored()
    assert list(path.parent.iterdir()) == [path]
    assert stored().accuracy == 90.0
    assert stored(selected_on="test").accuracy == 91.0


def test_a_write_that_fails_leaves_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    record_file.write_record(stored(), path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        record_file.write_record(stored(seed=7), path)
    assert record_file.read_record(path) == stored()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a record of this suite"),
        ('{"schema": 2', "is not a record of this suite"),
        ("[]", "has schema None; 1 to 2 are allowed"),
        ('{"schema": 99}', "has schema 99; 1 to 2 are allowed"),
        ('{"schema": 0}', "has schema 0; 1 to 2 are allowed"),
        ('{"schema": 2, "id": "x"}', "is not a record of this suite"),
        ('{"schema": 2, "surprise": 1}', "unknown field"),
    ],
)
def test_corrupt_records_are_named_and_the_rest_is_read(
    text: str, message: str, tmp_path: Path
) -> None:
    record_file.write_record(stored(), tmp_path / "good.json")
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        record_file.read_record(tmp_path / "bad.json")
    records, problems = record_file.read_records(tmp_path)
    assert records == [stored()]
    assert len(problems) == 1
    assert "bad.json" in problems[0]
    assert record_file.find_completed(tmp_path / "bad.json") is None


def test_failed_runs_are_not_finished(tmp_path: Path) -> None:
    record_file.write_record(stored(status="failed", error="boom"), tmp_path / "f.json")
    assert record_file.find_completed(tmp_path / "f.json") is None
    with pytest.raises(ValueError, match="has no accuracy"):
        record_file.read_record(tmp_path / "f.json").accuracy  # noqa: B018


def test_impossible_records_are_refused() -> None:
    with pytest.raises(ValueError, match="must have a last and a best score"):
        stored(last=None)


@pytest.mark.parametrize(
    "change",
    [
        {"last": {"epoch": 1, "correct": 5, "total": 0}},
        {"params": {}},
        {"params": None},
        {"seed": "0"},
        {"seed": -1},
        {"status": "fine"},
        {"backbone": "mine/nano"},
        {"data": {"train": 5}},
        {"history": [{"epoch": 1, "score": {"epoch": 1, "correct": 5, "total": 4}}]},
        {"curve": []},  # of schema 1
        {"method": None},
        {"task": ["digits"]},
    ],
)
def test_records_with_odd_values_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    record_file.write_record(stored(), tmp_path / "r.json")
    raw = json.loads((tmp_path / "r.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps(raw | change))
    with pytest.raises(RecordError, match="is not a readable record"):
        record_file.read_record(tmp_path / "r.json")


ONE_OF_ONE = Score(1, 1, 1)
UNTRAINED = Score(0, 700, 797)
COUNTS = {"method": 1, "norm": 1, "head": 1, "trainable": 3, "total": 9, "percent": 1.0}
LAST = Score(5, 700, 797)
BEST = Score(4, 720, 797)


def plain(score: Score) -> dict[str, int]:
    return {"epoch": score.epoch, "correct": score.correct, "total": score.total}


def scored(*scores: Score) -> list[dict[str, object]]:
    """A history without losses."""
    return [{"epoch": score.epoch, "score": plain(score)} for score in scores]


def trained(*epochs: int, score: Score = LAST) -> list[dict[str, object]]:
    """A history with losses, evaluated at its end."""
    entries: list[dict[str, object]] = [{"epoch": e, "train_loss": 0.5, "lr": 0.1} for e in epochs]
    entries[-1]["score"] = plain(score)
    return entries


A_CLASS = {"name": "zero", "correct": 700, "total": 797}
ALL_LAST = {"best": plain(LAST)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict.fromkeys(("last", "best"), plain(Score(1, 1, 1)))
            | {"history": scored(Score(1, 1, 1))},
            "it was scored on 1 images of 'test'; demo/digits has 797",
        ),
        ({"evaluated_on": "val"}, "it was scored on 797 images of 'val'; demo/digits has 200"),
        ({"evaluated_on": "tset"}, "it was scored on 797 images of 'tset'; demo/digits has none"),
        ({"selected_on": "val"}, "it was scored on test, not on val"),
        ({"last": plain(BEST)}, "its last or best score is not the one of its history"),
        ({"best": plain(LAST)}, "its last or best score is not the one of its history"),
        ({"last": plain(LAST) | {"loss": 0.5}}, "is not the one of its history"),
        ({"history": []}, "there is no score in its history"),
        ({"history": scored(LAST, BEST)}, "impossible history"),
        ({"history": scored(Score(4, 720, 900), LAST)}, "scores count [797, 900] images"),
        (ALL_LAST | {"history": trained(1, 2, 4, 5)}, "an epoch is missing"),
        (ALL_LAST | {"history": trained(2, 3, 4, 5)}, "an epoch is missing"),
        (ALL_LAST | {"history": [*scored(BEST), *trained(5)]}, "an epoch is missing"),
        (ALL_LAST | {"history": [{"epoch": 4}, *scored(LAST)]}, "impossible entry of a history"),
        ({"history": [{"epoch": 4, "lr": 0.1}]}, "impossible entry of a history"),
        ({"history": [{"epoch": 4, "train_loss": 1.0}]}, "impossible entry of a history"),
        ({"history": [{"epoch": 0, "train_loss": 1.0, "lr": 1.0}]}, "impossible entry"),
        ({"history": [{"epoch": 1, "train_loss": -1.0, "lr": 1.0}]}, "impossible entry"),
        ({"history": [{"epoch": 1, "train_loss": 1.0, "lr": "fast"}]}, "lr"),
        ({"history": [{"epoch": 3, "score": plain(LAST)}]}, "impossible entry of a history"),
        ({"last": plain(LAST) | {"loss": -0.5}}, "impossible score"),
        ({"last": plain(LAST) | {"loss": "low"}}, "loss"),
        ({"validation": plain(Score(5, 100, 199))}, "199 images of 'val'; demo/digits has 200"),
        ({"validation": plain(Score(4, 100, 200))}, "of 'val', after epoch 5"),
        (
            {
                "validation": plain(Score(5, 100, 200)),
                "config": {"protocol": {"train": "train+val"}},
            },
            "of 'val', after epoch 5 on ['train', 'val', 'test']",
        ),
        ({"classes": [A_CLASS | {"total": 798}]}, "its classes have 700 of 798 right"),
        ({"classes": [A_CLASS | {"correct": 699}]}, "its classes have 699 of 797 right"),
        ({"classes": []}, "its classes have 0 of 0 right"),
        ({"classes": [A_CLASS | {"correct": 798}]}, "impossible result of a class"),
        ({"classes": [A_CLASS | {"correct": -1}]}, "impossible result of a class"),
        ({"classes": [A_CLASS | {"name": "a\nb"}]}, "name"),
        ({"answers": "xyz"}, "answers"),
        ({"answers": "0123456789abcdef0"}, "answers"),
        ({"started": "yesterday"}, "'yesterday' is no moment"),
        ({"created": "not a date"}, "'not a date' is no moment"),
        ({"created": "2026-01-01T00:00:00"}, "is no moment"),
        ({"host": "a\x1b[2Jb"}, "host"),
        ({"device_hours": -1.0}, "device_hours"),
        ({"adapter_bytes": -1}, "adapter_bytes"),
        ({"adapter_bytes": 2**53}, "adapter_bytes"),
        ({"joules": "1e999"}, "joules"),
        ({"params": {**COUNTS, "norm": []}}, "norm"),
        (
            {
                "params": {
                    "method": 1,
                    "norm": 1,
                    "head": 1,
                    "trainable": 4,
                    "total": 9,
                    "percent": 1.0,
                }
            },
            "impossible numbers of parameters",
        ),
        ({"seconds": {"fit": -1.0}}, "fit"),
        ({"config": {"epochs": 0}}, "its epochs is 5; its configuration says 0"),
        (
            dict.fromkeys(("last", "best"), plain(UNTRAINED)) | {"history": scored(UNTRAINED)},
            "it was scored before it was trained",
        ),
        ({"task": ".."}, "task"),
        ({"config": {"seed": 3}}, "its seed is 0; its configuration says 3"),
        (
            {"config": {"method": {"name": "ssf"}}},
            "its method is san; its configuration says 'ssf'",
        ),
        ({"config": {"data": {"task": "count"}}}, "its task is digits; its configuration says"),
        ({"config": {"data": "digits"}}, "config.data is 'digits', no group of settings"),
        ({"task": "../../digits"}, "task"),
        ({"method": "a\x1b[2Jb"}, "method"),
        ({"variant": "two\nlines"}, "variant"),
        ({"backbone": "vit_nano\n"}, "backbone"),
        ({"peak_bytes": -1}, "peak_bytes"),
        ({"schema": True}, "has schema True"),
    ],
)
def test_a_record_that_cannot_be_is_named(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    record_file.write_record(a_record(last=LAST, best=BEST), path)
    good = path.read_text()
    path.write_text(json.dumps(json.loads(good) | change))
    with pytest.raises(RecordError, match=f"^{re.escape(str(path))} .*{re.escape(message)}"):
        record_file.read_record(path)
    assert record_file.find_completed(path) is None
    records, problems = record_file.read_records(tmp_path)
    assert records == []
    assert len(problems) == 1


def test_a_record_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    for odd in (
        a_record(last=Score(5, 1, 1), best=Score(5, 1, 1)),
        a_record(last=LAST, best=BEST, variant="two\nlines"),
        a_record(last=LAST, best=BEST, variant="\ud800"),
        a_record(last=LAST, best=BEST, config={"lr": float("nan")}),
        a_record(last=LAST, best=BEST, config={"epochs": 7}),
    ):
        with pytest.raises(ValueError):
            record_file.write_record(odd, tmp_path / "r.json")
        with pytest.raises(InvalidValueError, match="No record could hold this run"):
            record_file.check_storable(odd)
    assert list(tmp_path.iterdir()) == []


def test_data_that_was_forced_may_have_another_size(tmp_path: Path) -> None:
    forced = a_record(data=DataSource(train="a", evaluate="b", forced="test has 1000 images"))
    record_file.write_record(forced, tmp_path / "r.json")
    assert record_file.read_record(tmp_path / "r.json") == forced


def test_official_splits_count_too(tmp_path: Path) -> None:
    size = load_suite("fgvc").tasks["nabirds"].size("test")
    score = Score(5, 1, size)
    r = a_record(suite="fgvc", task="nabirds", last=score, best=score)
    record_file.write_record(r, tmp_path / "r.json")
    assert record_file.read_record(tmp_path / "r.json") == r


def test_a_surrogate_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    record_file.write_record(a_record(last=LAST, best=BEST), path)
    path.write_text(path.read_text().replace("vit_nano", "\\ud800"))
    with pytest.raises(RecordError, match=f"^{re.escape(str(path))} is not a record of this suite"):
        record_file.read_record(path)


def test_what_is_no_file_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    record_file.write_record(stored(), tmp_path / "good.json")
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("nowhere")
    (tmp_path / "c.json").symlink_to("/dev/zero")
    (tmp_path / "d.json").mkdir()  # a folder like any other
    (tmp_path / "e.json").symlink_to("e.json")
    records, problems = record_file.read_records(tmp_path)
    assert records == [stored()]
    assert [problem.split()[0] for problem in problems] == [
        str(tmp_path / f"{c}.json") for c in "abce"
    ]


def test_the_record_of_another_run_is_not_this_one_s(tmp_path: Path) -> None:
    path = tmp_path / "ssf" / "digits-seed0-c487a536337c.json"
    record_file.write_record(stored(), path)
    message = "holds the record of another run, san 0123456789ab. Move it away"
    with pytest.raises(RecordError, match=f"^{re.escape(str(path))} {message}"):
        record_file.read_record_of_run(path)
    assert record_file.find_completed(path) is None
    assert record_file.read_records(tmp_path) == ([stored()], [])  # tables go by what it says


def test_a_folder_that_is_a_link_is_read_once(tmp_path: Path) -> None:
    elsewhere = tmp_path / "larger disk"
    record_file.write_record(stored(), elsewhere / "san" / "r.json")
    records = tmp_path / "records"
    records.mkdir()
    (records / "demo").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(records)
    (records / "again").symlink_to(elsewhere)
    assert record_file.read_records(records) == ([stored()], [])


def test_what_may_not_be_read_is_neither_corrupt_nor_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    record_file.write_record(stored(), path)

    def denied(*_: object, **__: object) -> int:  # root may read everything
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        with pytest.raises(RecordError, match="r.json may not be read by you. Ask its owner") as no:
            record_file.read_record(path)
    assert "Delete" not in str(no.value)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(FileAccessError, match="r.json is there, and may not be read by you"):
        files.check_writable(path)


def test_a_record_of_many_megabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "r.json").open("wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(RecordError, match="at most 67 MB are allowed"):
        record_file.read_record(tmp_path / "r.json")


def test_a_folder_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record_file.read_records(tmp_path / "not there yet") == ([], [])
    (tmp_path / "file").write_text("")
    _, problems = record_file.read_records(tmp_path / "file")
    assert problems == [f"{tmp_path / 'file'} cannot be read (Not a directory)."]
    (tmp_path / "secret").mkdir()
    record_file.write_record(stored(), tmp_path / "good.json")
    scandir = os.scandir

    def denied(path: str) -> object:  # root may read everything
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    records, problems = record_file.read_records(tmp_path)
    assert records == [stored()]
    assert problems == [f"{tmp_path / 'secret'} cannot be read (Permission denied)."]


def test_the_epoch_is_chosen_on_what_is_evaluated(data_root: Path) -> None:
    with pytest.raises(
        LookupError, match="Unknown protocol.selected_on 'val'. Allowed: last, test"
    ):
        identity(data_root, "protocol.selected_on=val")


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"cannot be written .*Give results_dir=DIRECTORY"):
        files.check_writable(tmp_path / "records" / "demo" / "r.json")


def test_records_are_plain_json(tmp_path: Path) -> None:
    record_file.write_record(stored(), tmp_path / "r.json")
    raw = json.loads((tmp_path / "r.json").read_text())
    assert raw["schema"] == record.SCHEMA
    assert raw["last"] == {"epoch": 5, "correct": 900, "total": 1000}


def in_any_order(schema: Any) -> Any:
    """A JSON schema without the order of its alternatives, which depends on msgspec's version."""
    if isinstance(schema, dict):
        return {key: in_any_order(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return sorted(map(in_any_order, schema), key=json.dumps)
    return schema


def test_the_published_schema_is_the_one_of_the_program() -> None:
    published = json.loads(record.SCHEMA_FILE.read_text())
    assert in_any_order(published) == in_any_order(json.loads(record.json_schema()))
    fields = json.loads(record.json_schema())["$defs"]["Record"]
    assert set(fields["properties"]) == set(msgspec.to_builtins(stored()))
    assert fields["additionalProperties"] is False
