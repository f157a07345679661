"""Records of made-up scores, from which tests make tables."""

from dataclasses import replace
from typing import Any

import msgspec
from conftest import a_record

from san import record
from san.record import DataSource, Record, Status
from san.report.means import Column, task_column
from san.report.table import Table
from san.report.value import to_text
from san.runtime.environment import CodeState
from san.score import ClassScore, Score
from san.tasks import load_suite

DEMO = load_suite("demo")
VTAB = load_suite("vtab")
DIGITS = task_column(DEMO.tasks["digits"])
CIFAR = task_column(VTAB.tasks["cifar"])
_IDENTITY_FIELDS = ("suite", "method", "variant", "protocol", "task", "seed", "evaluated_on")


def run(**changes: Any) -> Record:
    """A record with an id of its own, as records have."""
    made = a_record(**changes)
    if "id" in changes:
        return made
    facts = tuple(getattr(made, name) for name in _IDENTITY_FIELDS)
    return msgspec.structs.replace(made, id=record.hash_identity({"facts": facts}))


def done(correct: int, **changes: Any) -> Record:
    """A run that is done, with so many of 1000 right."""
    return run(last=Score(5, correct, 1000), **changes)


def failed(status: Status = Status.FAILED, **changes: Any) -> Record:
    return run(status=status, **changes)


def ten_classes(correct: int) -> list[ClassScore]:
    """So many right answers to 1000 images, of which a tenth is of each class; at most 1000."""
    rights = [min(100, max(0, correct - 100 * i)) for i in range(10)]
    return [ClassScore(str(i), right, 100) for i, right in enumerate(rights)]


def tried(trials: object) -> dict[str, Any]:
    """A recorded configuration that says how many settings were tried."""
    return {"precision": "fp32", "recipe": {"trials": trials}}


def demo_records() -> list[Record]:
    """Every kind of row and cell there is."""
    return [
        *_complete(),
        *[done(500, method="linear", task=task) for task in ("digits", "texture")],
        *_with_failures(),
        *_chosen_on_test(),
        *_conflicting(),
        *_left_out(),
        done(630, task="digits", variant="epochs=3"),
        *_copies_of_one_identity(),
        *[done(700, method="lora", task=task, weights=task) for task in DEMO.tasks],
        _unverified(),
        done(680, method="norm", task="digits", code=CodeState("0123456789ab", dirty=True)),
        done(116, method="adapter", task="texture", classes=ten_classes(116)),
    ]


def vtab_records() -> list[Record]:
    """SSF complete with three seeds, LoRA with one, SAN begun: beside what is published."""
    suite = {"suite": "vtab", "backbone": VTAB.backbone}
    made = []
    for i, task in enumerate(VTAB.tasks):
        for seed in (0, 1, 2):
            facts = {"method": "ssf", "task": task, "seed": seed, "id": f"ssf{i:02}{seed}"}
            cost = {"device_hours": 0.125, "joules": 1.5e5}
            config = tried({"ssf": 5, "default": 3})
            made.append(done(700 + 5 * i + seed, config=config, **facts, **suite, **cost))
    for i, task in enumerate(VTAB.tasks):
        correct = 690 + 5 * i
        cost = {"device_hours": 0.125, "config": tried(i)}
        made.append(done(correct, method="lora", task=task, id=f"lora{i:02}", **suite, **cost))
    made.append(done(999, task="cifar", id="san", **suite))
    made.append(done(999, task="cifar", id="swin", suite="vtab", backbone="swin_b_in22k"))
    return made


def text(table: Table, label: str, column: Column | tuple[str, str]) -> str:
    """What is printed in a cell of ours, with the marks of its row."""
    row = table.ours.row(label)
    value = row.values[Column(*column)]
    return to_text(replace(value, flags=value.flags | row.flags))


def mean(table: Table, label: str, column: tuple[str, str]) -> float:
    """The number behind a cell of ours."""
    return table.ours.row(label).values[Column(*column)].mean


def labels(table: Table) -> list[str]:
    """The rows of ours as they are called in the table."""
    return [row.label for row in table.ours.rows]


def _complete() -> list[Record]:
    return [
        done(800 + 10 * i + seed, method="full", task=task, seed=seed)
        for i, task in enumerate(DEMO.tasks)
        for seed in (0, 1, 2)
    ]


def _with_failures() -> list[Record]:
    return [
        done(700, method="ssf", task="digits"),
        failed(method="ssf", task="texture"),
        failed(Status.OOM, method="ssf", task="tissue"),
        done(710, method="ssf", task="count", seed=0),
        failed(method="ssf", task="count", seed=1),
    ]


def _chosen_on_test() -> list[Record]:
    best = {"best": Score(3, 990, 1000), "selected_on": "test", "protocol": "best_test"}
    return [done(600, task=task, **best) for task in DEMO.tasks]


def _conflicting() -> list[Record]:
    first, second = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    return [
        done(610, task="digits", id="aaaaaaaaaaaa", created=first),
        done(620, task="digits", id="bbbbbbbbbbbb", created=second),
    ]


def _left_out() -> list[Record]:
    return [
        done(999, task="digits", evaluated_on="val", protocol="tune"),
        done(1, suite="another"),
    ]


def _copies_of_one_identity() -> list[Record]:
    """Three records of one experiment, two of them with the same result."""
    made = []
    for day, correct in ((1, 650), (2, 640), (3, 650)):
        created = f"2026-01-0{day}T00:00:00+00:00"
        made.append(
            done(correct, task="digits", variant="epochs=4", id="cccccccccccc", created=created)
        )
    return made


def _unverified() -> Record:
    data = DataSource(train="a", evaluate="b", forced="ten images are missing")
    return done(710, method="bitfit", task="digits", data=data)
