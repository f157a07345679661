"""`make` passes on what it is given, and refuses what it would swallow."""

import os
import subprocess
from pathlib import Path

import pytest

from san.tasks import suite_names

ROOT = Path(__file__).parents[1]
SWEEPS = ["demo", "plan", "status", "cancel"]


def dry_run(*words: str) -> subprocess.CompletedProcess[str]:
    """Print the commands of a target without running them, as if nobody else's make ran us."""
    # `make test` hands its own flags and level to what it starts.
    outer = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "GNUMAKEFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "--dry-run", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        (["demo", "METHOD=lora"], "METHOD"),
        (["demo", "epochs=1"], "epochs"),
        (["tables", "METHODS=ssf"], "METHODS"),
        (["prepare-vtab", "SEEDS=1"], "SEEDS"),
        (["test", "SUITE=demo"], "SUITE"),
        (["SUITE=demo"], "SUITE"),
        (["plan", "tables", "TASKS=a"], "TASKS"),
    ],
)
def test_a_variable_that_a_target_does_not_take_is_refused(words: list[str], unknown: str) -> None:
    refused = dry_run(*words)
    assert refused.returncode == 2
    assert f"does not take {unknown}. It takes " in refused.stderr
    assert not refused.stdout


def test_all_sweeps_take_the_same_variables() -> None:
    targets = [*SWEEPS, *(f"reproduce-{suite}" for suite in suite_names())]
    assert len(targets) >= 4 + 5
    given = {
        "METHODS": "ssf,san",
        "TASKS": "a,b",
        "SEEDS": "0,1",
        "BACKBONE": "vit_nano",
        "JOBS": "3",
        "RETRY": "failed",
        "LAUNCHER": "slurm",
        "CLUSTER": "file",
    }
    words = [f"{name}={value}" for name, value in given.items()]
    for target in targets:
        shown = dry_run(target, *words, "DATA=images", "FAIL_FAST=1", "SET=lr=1e-3 epochs=1")
        assert shown.returncode == 0, shown.stderr
        command = shown.stdout.splitlines()[-1].split()
        for name, value in given.items():
            position = command.index(f"--{name.lower()}")
            assert command[position + 1] == value, (target, name)
        assert {"--fail-fast", "data_root=images", "lr=1e-3", "epochs=1"} <= set(command), target


@pytest.mark.parametrize("target", ["search", "ablate-san"])
def test_a_search_takes_its_own_variables_beside_those_of_a_sweep(target: str) -> None:
    shown = dry_run(target, "SEARCH=lr_wd", "TRIALS=8", "TUNED_DIR=mine", "METHODS=ssf")
    assert shown.returncode == 0, shown.stderr
    command = shown.stdout.splitlines()[-1]
    assert " --search lr_wd --trials 8 --tuned-dir mine --methods ssf " in command
    assert "--tuned-dir" not in dry_run(target).stdout
