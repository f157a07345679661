"""A sweep from the command line: plan it, show its status, run it here or hand it to a launcher."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from san import compose, record_file
from san.data.task_data import folder_suite
from san.errors import FileAccessError, InvalidValueError, LaunchError, Preempted
from san.installation import CLUSTERS, process_words
from san.run_options import RunOptions
from san.runtime.files import read_yaml
from san.runtime.formatting import printable
from san.search.space import Search, load_search
from san.search.trials import refuse_searched, trial_runs
from san.search.tuned_file import check_budget, tuned_path, write_tuned
from san.settings import RunConfig
from san.sweep import ray_pool, slurm
from san.sweep.disk import disk_estimate
from san.sweep.plan import (
    PlannedRun,
    RunState,
    RunStatus,
    pending_runs,
    plan_runs,
    run_status,
    should_run,
)
from san.sweep.pool import Pool
from san.sweep.request import Launcher, SweepRequest
from san.sweep.search_result import cell_of, collect
from san.sweep.status import details, progress_table, summary
from san.tasks import Suite, load_suite


def work(request: SweepRequest, *, plan: bool, status: bool, cancel: bool) -> bool:
    """Do what a program was asked for: cancel, show the plan or the status, or run.

    Return whether all is done that was asked for; errors as of `run`.
    """
    if cancel:
        _cancel_all(request)
    elif plan:
        _show_plan(request)
    elif status:
        _show_status(request)
    else:
        return run(request)
    return True


def plan_sweep(request: SweepRequest) -> list[PlannedRun]:
    """Return the runs of a request; raise SanError if it asks for what does not exist."""
    configs = _compose_runs(request)
    options = _shared_options(configs)
    if options.force:
        raise InvalidValueError(
            "force=true would run everything again each time the sweep is resumed. "
            "Remove the records instead."
        )
    return plan_runs(configs)


def _show_plan(request: SweepRequest) -> None:
    """Print the status of all runs, and the disk and the table of what is left to do."""
    runs = plan_sweep(request)
    _check_search(request, runs)
    statuses = _print_status(runs)
    estimate = disk_estimate(statuses, _local_workers(request))
    _print(f"{estimate}\n\n{progress_table(statuses)}")


def _show_status(request: SweepRequest) -> None:
    """Print how far the runs are."""
    _print_status(plan_sweep(request))


def _cancel_all(request: SweepRequest) -> None:
    """Cancel the SLURM jobs that were submitted with the results directory of a request."""
    options = _shared_options(_compose_runs(request))
    cancelled = slurm.cancel_jobs(_job_directory(options))
    for line in cancelled:
        _print(f"cancelled {line}")
    if not cancelled:
        _print("No jobs of this results directory are queued.")


def run(request: SweepRequest) -> bool:
    """Do the runs that have no record, then print the table; or submit them to SLURM.

    Return whether all runs are done, but for those that other processes hold. Raises SanError if
    none can start, Preempted if a signal stopped the sweep.
    """
    runs = plan_sweep(request)
    _check_search(request, runs)
    is_complete = _is_complete(_print_status(runs))
    if all(run.path is None for run in runs):
        raise LaunchError("None of these runs can start; the lines above say why.")
    pending = pending_runs(runs, request.retry, request.submitted_ns)
    if request.launcher == Launcher.SLURM:
        submit(request, pending)
        return True
    if pending:
        if _execute(request, pending):
            raise Preempted("Stopped by a signal; runs under way have saved checkpoints.")
        is_complete = _is_complete(_print_status(runs))
    if request.is_job:
        return is_complete
    if request.search is not None:
        return write_search(request, runs)
    has_table = make_tables(runs[0], request.table_options, upload=bool(pending))
    return is_complete and has_table


def write_search(request: SweepRequest, runs: Sequence[PlannedRun]) -> bool:
    """Write and print what the trials of a search found; return whether no cell is missing."""
    search = _search_of(request)
    found = collect([run_status(run) for run in runs], search)
    path = _path_of_search(request, runs)
    if found.cells:
        write_tuned(found.cells, search, path)
    _print("\n".join(found.describe(search, path)))
    return not found.incomplete and not found.hopeless


def _check_search(request: SweepRequest, runs: Sequence[PlannedRun]) -> None:
    """Raise InvalidValueError where what a search finds could not be written."""
    if request.search is None or request.is_job:
        return
    search = _search_of(request)
    cells = [cell_of(run, search) for run in runs]
    check_budget(cells, search, _path_of_search(request, runs))


def _path_of_search(request: SweepRequest, runs: Sequence[PlannedRun]) -> Path:
    assert request.search is not None
    return tuned_path(request.suite, runs[0].backbone.name, request.search, request.tuned_dir)


def _search_of(request: SweepRequest) -> Search:
    assert request.search is not None
    return load_search(request.search, request.trials)


def submit(request: SweepRequest, pending: Sequence[PlannedRun]) -> None:
    """Submit SLURM jobs that work through a request, if there is something to run."""
    if not pending:
        _print("Nothing to submit.")
        return
    directory = _job_directory(pending[0].options)
    words = request.worker_command(time.time_ns())
    ids = slurm.submit(words, request.jobs or 1, cluster_options(request), directory)
    _print(f"Submitted {len(ids)} jobs: {', '.join(ids)}. Logs: {directory}.")
    if request.search is None:
        _print("Status: the same command with --status.")
    else:
        _print("Once they are done, the same command without --launcher writes what they found.")


def make_tables(run: PlannedRun, options: Sequence[str] = (), *, upload: bool) -> bool:
    """Run the program `tables`, which prints the table of a run; return whether it succeeded.

    options: of that program, further ones. upload: log the table to W&B, too, if the run is logged
    there.
    """
    is_own = load_suite(run.task.suite).is_own_images
    table = [run.task_name if is_own else run.task.suite, "--backbone", run.backbone.name]
    words = [*process_words("tables"), *table, "--results", str(run.options.results_dir)]
    words += options
    if upload and run.options.logger == "wandb":
        words.append("--wandb")
        if run.options.wandb_project is not None:
            words += ["--wandb-project", run.options.wandb_project]
    return subprocess.run(words, check=False).returncode == 0  # noqa: S603  (our own program)


def cluster_options(request: SweepRequest) -> dict[str, Any]:
    """Read the options of a launcher's jobs.

    Raises FileAccessError or InvalidValueError if the file cannot be read or holds no options.
    """
    path = request.cluster or CLUSTERS / f"{request.launcher}.yaml"
    try:
        options = read_yaml(path)
    except OSError as error:
        raise FileAccessError(f"--cluster {error}") from error
    if not isinstance(options, dict):
        raise InvalidValueError(
            f"--cluster {path} holds no options. Write `name: value` lines, "
            f"as the files in {CLUSTERS} do."
        )
    return options


def _compose_runs(request: SweepRequest) -> list[RunConfig]:
    """Return the configurations of a request; names that occur twice count once."""
    suite = _suite_of(request)
    tasks = [suite.task(name).name for name in request.tasks] or list(suite.tasks)
    methods = request.methods or suite.methods
    overrides = list(request.overrides)
    if request.backbone is not None:
        overrides.append(f"backbone={request.backbone}")
    if request.search is not None:
        refuse_searched(methods, overrides, _search_of(request))
        overrides.append("protocol=tune")
    runs = compose.compose_grid(
        [f"{suite.name}/{task}" for task in dict.fromkeys(tasks)],
        list(dict.fromkeys(methods)),
        list(dict.fromkeys(request.seeds)),
        overrides,
    )
    return runs if request.search is None else trial_runs(runs, _search_of(request))


def _suite_of(request: SweepRequest) -> Suite:
    """Return the suite of a request; of a user's own images with the folder that it chooses."""
    suite = load_suite(request.suite)
    if suite.is_own_images:
        return folder_suite(*compose.own_images(request.overrides))
    return suite


def _shared_options(configs: Sequence[RunConfig]) -> RunOptions:
    """Return the options of the runs, which differ in task, method and seed alone."""
    return RunOptions.from_config(configs[0].config)


def _job_directory(options: RunOptions) -> Path:
    """Return the directory of the logs of SLURM jobs; absolute, as a job may start elsewhere."""
    return options.results_dir.absolute() / "slurm"


def _print_status(runs: Sequence[PlannedRun]) -> list[RunStatus]:
    """Print the summary, a line for each noteworthy run, and the queued SLURM jobs."""
    options = runs[0].options
    statuses = [run_status(run) for run in runs]
    records, problems = record_file.read_records(options.results_dir / "records")
    lines = [summary(statuses, records), *details(statuses)]
    lines += [f"left out     {problem}" for problem in problems]
    for job in slurm.queued_jobs(_job_directory(options)):
        lines.append(f"slurm job    {job}")
    _print("\n".join(lines))
    return statuses


def _is_complete(statuses: Sequence[RunStatus]) -> bool:
    """Return whether all runs are done, but for those that other processes hold."""
    return all(status.state in (RunState.DONE, RunState.RUNNING) for status in statuses)


def _execute(request: SweepRequest, pending: Sequence[PlannedRun]) -> bool:
    """Do the runs on this machine or on Ray; return whether a signal stopped the sweep."""
    if request.launcher == Launcher.RAY:
        words = request.worker_command(time.time_ns())
        return ray_pool.run_on_ray(words, request.jobs, cluster_options(request))
    pool = Pool(
        pending,
        jobs=_local_workers(request),
        devices=_visible_devices(),
        log=_print,
        fail_fast=request.fail_fast,
        wait_for_others=not request.is_job,
        is_wanted=partial(should_run, retry=request.retry, recorded_before_ns=request.submitted_ns),
    )
    return pool.work()


def _local_workers(request: SweepRequest) -> int:
    """Return how many processes to use here: as asked for, or one for each GPU, or one."""
    if request.jobs is not None:
        return request.jobs
    return max(1, len(_visible_devices()))


def _visible_devices() -> list[str]:
    """Return the names of the visible GPUs, as CUDA_VISIBLE_DEVICES takes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return visible.split(",")
    return [str(index) for index in range(torch.cuda.device_count())]


def _print(text: str) -> None:
    """Print at once: the standard output of a job is a file, and its workers write there, too."""
    sys.stdout.write(f"{printable(text)}\n")
    sys.stdout.flush()
