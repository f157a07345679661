"""What a user asks of a sweep. Imports no torch, so that `--help` is quick."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from san.errors import InvalidValueError
from san.installation import process_words
from san.record import Status


class Launcher(StrEnum):
    """Where a sweep runs."""

    LOCAL = "local"
    SLURM = "slurm"
    RAY = "ray"


@dataclass(frozen=True)
class SweepRequest:
    """The runs of a suite, and how to run them.

    tasks, methods: () means those of the suite; a method may come with options, as
    `san:propagation=off`. backbone: None means the suite's. jobs: processes,
    SLURM jobs or Ray workers at a time; None means one for each visible GPU (Ray: as many as fit).
    retry: which of `failed` and `oom` run again. cluster: the file with a job's options; None means
    `clusters/<launcher>.yaml`. overrides: settings of all runs, as train.py takes them.
    submitted_ns: set in a job of a launcher: when it was submitted, in nanoseconds. A job retries
    only runs that had failed by then, does not wait for other processes and makes no table.
    search: a file of `benchmarks/searches/`, whose points all runs try under protocol=tune; trials:
    how many, None means as the file says. tuned_dir: where what is found is written.
    table_options: of the program `tables`, which makes the table.
    """

    suite: str
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    backbone: str | None = None
    jobs: int | None = None
    retry: tuple[Status, ...] = ()
    fail_fast: bool = False
    launcher: Launcher = Launcher.LOCAL
    cluster: Path | None = None
    overrides: tuple[str, ...] = ()
    submitted_ns: int | None = None
    search: str | None = None
    trials: int | None = None
    tuned_dir: Path | None = None
    table_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.cluster is not None and self.launcher == Launcher.LOCAL:
            raise InvalidValueError(
                "--cluster is for --launcher slurm or ray; a local sweep has no jobs to configure."
            )

    @property
    def is_job(self) -> bool:
        """Whether a launcher started this sweep as one of its jobs."""
        return self.submitted_ns is not None

    def worker_command(self, submitted_ns: int) -> list[str]:
        """Return the command that works through this sweep inside a job."""
        seeds = [str(seed) for seed in self.seeds]
        values = {
            "--methods": ",".join(self.methods),
            "--tasks": ",".join(self.tasks),
            "--seeds": ",".join(seeds),
            "--backbone": self.backbone or "",
            "--retry": ",".join(self.retry),
            "--submitted-ns": str(submitted_ns),
            "--search": self.search or "",
            "--trials": "" if self.trials is None else str(self.trials),
        }
        options = [f"{name}={value}" for name, value in values.items() if value]
        if self.fail_fast:
            options.append("--fail-fast")
        program = process_words("reproduce" if self.search is None else "search")
        return [*program, self.suite, *options, *self.overrides]
