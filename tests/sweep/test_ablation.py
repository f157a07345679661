"""Ablations: their arms compose, are searched alike, and have a table of their own."""

import argparse
from pathlib import Path

import pytest

from san import settings
from san.commands import ablate as program
from san.compose import compose_grid
from san.errors import SanError
from san.installation import BENCHMARKS
from san.sweep import ablation, driver
from san.sweep.arguments import make_request
from san.sweep.request import SweepRequest


def request(*words: str) -> tuple[argparse.Namespace, SweepRequest]:
    args = program.parse_arguments(["san", "demo", *words])
    return args, make_request(args, args.search, args.trials, args.tuned_dir)


def test_every_arm_is_another_row() -> None:
    names = sorted(path.stem for path in (BENCHMARKS / "ablations").glob("*.yaml"))
    assert names == ["san"]
    arms = ablation.load_ablation("san").arms
    assert len(arms) == 9
    runs = compose_grid(["demo/digits"], arms, [0], [])
    rows = set()
    for run in runs:
        departures = settings.departures(*run)
        assert all(key.startswith("method.") for key in departures)
        rows.add((run.config["method"]["name"], settings.join_overrides(departures)))
    assert len(rows) == len(arms)
    assert ("san", "") in rows
    assert ("san", "method.propagation=untied") in rows


def test_an_unknown_ablation_or_arm_is_named() -> None:
    with pytest.raises(SanError, match="Unknown ablation 'sann'"):
        ablation.load_ablation("sann")
    _, asked = request("--methods", "lora")
    with pytest.raises(SanError, match="Unknown arm of ablation san 'lora'"):
        ablation.work(
            ablation.load_ablation("san"), asked, only=None, plan=True, status=False, cancel=False
        )


def test_the_search_comes_first_and_the_table_is_of_the_arms_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_root: Path
) -> None:
    asked: list[SweepRequest] = []

    def work(request: SweepRequest, **_: bool) -> bool:
        asked.append(request)
        return True

    monkeypatch.setattr(driver, "work", work)
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    (tuned / "demo_vit_nano_lr.csv").write_text(
        "suite,backbone,method,settings,task,lr,search,trials\n"
        "demo,vit_nano,san,,count,0.02,lr,3\n"
        "demo,vit_nano,san,propagation=off,count,0.03,lr,3\n"
    )
    words = ["--methods", "san,san:propagation=off", "--tasks", "count", "--seeds", "0,1"]
    _, sweep = request(*words, "--trials", "3", "--tuned-dir", str(tuned), f"data_root={data_root}")
    arms = ablation.load_ablation("san")
    assert ablation.work(arms, sweep, only=None, plan=False, status=False, cancel=False)
    search, runs = asked
    assert (search.search, search.trials, search.seeds) == ("lr", 3, (0,))
    assert (runs.search, runs.seeds) == (None, (0, 1))
    assert runs.methods == search.methods == ("san", "san:propagation=off")
    assert "recipe=tuned" in runs.overrides
    assert "save_adapter=true" in runs.overrides
    name, reference, rows = runs.table_options[:2], runs.table_options[2:4], runs.table_options[5:]
    assert name == ("--name", "ablate_san")
    assert reference == ("--reference", rows[0])
    assert len(rows) == 2
    assert rows[0].startswith("san [tuned")
    assert "propagation=off" in rows[1]
