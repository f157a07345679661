"""An ablation: arms that differ in one thing, searched alike, then run with what was found.

The arms are a row each of `benchmarks/ablations/<name>.yaml`; the first is what the others are
compared with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import yaml

from san import settings
from san.errors import InvalidValueError, LaunchError, choose
from san.installation import BENCHMARKS
from san.runtime.files import read_text
from san.schema import from_mapping
from san.sweep import driver
from san.sweep.plan import PlannedRun
from san.sweep.request import Launcher, SweepRequest
from san.tasks import load_suite

ABLATIONS = BENCHMARKS / "ablations"


@dataclass(frozen=True)
class Ablation:
    """The arms of an ablation: methods with options, as `san:propagation=off`."""

    name: str
    arms: tuple[str, ...]


def _ablation_names() -> list[str]:
    return sorted(path.stem for path in ABLATIONS.glob("*.yaml"))


def load_ablation(name: str) -> Ablation:
    """Read an ablation; raise UnknownNameError with the nearest names if there is none."""
    path = ABLATIONS / f"{choose(name, _ablation_names(), 'ablation')}.yaml"
    facts = yaml.safe_load(read_text(path))
    return from_mapping(Ablation, {**facts, "name": name}, f"ablation {name}")


def work(
    ablation: Ablation,
    request: SweepRequest,
    *,
    only: str | None,
    plan: bool,
    status: bool,
    cancel: bool,
) -> bool:
    """Search, run and compare the arms, or show how far that is; return whether all is done.

    request: with the search; its methods are a part of the arms, its seeds those of the runs, () of
    the suite. only: `search` or `runs`. Errors as of `driver.run`.
    """
    if request.launcher is Launcher.SLURM and only is None and not (plan or status or cancel):
        raise InvalidValueError(
            "--launcher slurm came without --only. The runs need what the search finds, so give "
            "--only search first; when its jobs are done, the same without --launcher, which "
            "writes what they found; then --only runs."
        )
    search, runs = _parts_of(ablation, request)
    show = partial(driver.work, plan=plan, status=status, cancel=cancel)
    if only != "runs":
        is_complete = show(search)
        if only == "search" or not is_complete:
            return is_complete
    if not (plan or status or cancel):
        runs = replace(runs, table_options=_table_options(ablation, runs))
    return show(runs)


def _parts_of(ablation: Ablation, request: SweepRequest) -> tuple[SweepRequest, SweepRequest]:
    """Return the two sweeps of an ablation: the search, and the runs with what it found."""
    arms = request.methods or ablation.arms
    for arm in arms:
        choose(arm, ablation.arms, f"arm of ablation {ablation.name}")
    found = ["recipe=tuned", f"recipe.search={request.search}", "save_adapter=true"]
    if request.tuned_dir is not None:
        found.append(f"recipe.folder={request.tuned_dir.absolute()}")
    runs = replace(
        request,
        methods=arms,
        seeds=request.seeds or load_suite(request.suite).seeds,
        search=None,
        trials=None,
        overrides=(*request.overrides, *found),
    )
    return replace(request, methods=arms, seeds=(0,)), runs


def _table_options(ablation: Ablation, request: SweepRequest) -> tuple[str, ...]:
    """Return the options of the program `tables` for a table of the arms alone."""
    planned = driver.plan_sweep(request)
    rows = _row_names([run for run in planned if run.path is not None])
    if not rows:
        raise LaunchError("None of the runs can start: search the arms first (--only search).")
    return ("--name", f"ablate_{ablation.name}", "--reference", rows[0], "--rows", *rows)


def _row_names(runs: Sequence[PlannedRun]) -> list[str]:
    """Return what tables call the rows of runs, in their order."""
    names = []
    for run in runs:
        variant = settings.shorten_variant(run.variant)
        names.append(f"{run.method} [{variant}]" if variant else run.method)
    return list(dict.fromkeys(names))
