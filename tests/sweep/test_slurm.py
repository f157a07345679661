"""A real one-node SLURM (tests/one_node_slurm.sh start): submit, status, pre-empt, cancel."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from san import record_file
from san.errors import LaunchError
from san.sweep import slurm

ROOT = Path(__file__).parents[2]
ENDLESS = 3000  # epochs: hours, where a run must not be at its end when the test looks
CLUSTER = "slurm_partition: debug\ntimeout_min: 20\ncpus_per_task: 1\nslurm_signal_delay_s: 30\n"


class Cluster:
    """Sweeps of the demo suite on the cluster."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.results = folder / "results"
        self.file = folder / "cluster.yaml"
        self.file.write_text(CLUSTER)
        self.data = data
        self.program = ["reproduce.py"]
        self.logs = self.results / "slurm"

    def __call__(self, *options: str, epochs: int = 2) -> subprocess.CompletedProcess[str]:
        chosen = ["--methods", "san,linear", "--tasks", "digits,count", "--seeds", "0"]
        script, *own = self.program
        command = [sys.executable, str(ROOT / "scripts" / script), "demo", *chosen, *own, *options]
        command += [
            f"epochs={epochs}",
            "logger=none",
            f"results_dir={self.results}",
            f"data_root={self.data}",
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    def submit(self, jobs: int, *options: str, epochs: int = 2) -> list[str]:
        launcher = ("--launcher", "slurm", "--cluster", str(self.file), "--jobs", str(jobs))
        done = self(*launcher, *options, epochs=epochs)
        assert done.returncode == 0, done.stderr
        assert f"Submitted {jobs} jobs" in done.stdout
        return slurm.submitted_jobs(self.logs)

    def wait(self, text: str, seconds: float, epochs: int = 2) -> str:
        """Wait until the status has a text."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self("--status", epochs=epochs).stdout
            if text in status:
                return status
            time.sleep(0.5)
        raise AssertionError(f"'{text}' did not come: {status}")


@pytest.fixture
def cluster(tmp_path: Path, data_root: Path) -> Cluster:
    if shutil.which("sinfo") is None:
        pytest.fail("no SLURM: tests/one_node_slurm.sh start")
    return Cluster(tmp_path, data_root)


@pytest.mark.slurm
def test_jobs_share_a_sweep_to_its_end(cluster: Cluster) -> None:
    begin = time.monotonic()
    assert len(cluster.submit(2)) == 2
    assert time.monotonic() - begin < 60  # it returns without waiting for the runs
    cluster.wait("4 runs: 4 done", 200)
    logs = "".join(p.read_text() for p in (cluster.results / "slurm").rglob("*.err"))
    assert logs.count(" % in ") == 4  # no run twice
    assert cluster().returncode == 0
    assert (cluster.results / "tables" / "demo.csv").is_file()


@pytest.mark.slurm
def test_jobs_share_the_trials_of_a_search_and_the_same_command_writes_what_was_found(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.program = ["search.py", "--trials=2", f"--tuned-dir={tmp_path / 'tuned'}"]
    cluster.logs = cluster.results / "search" / "slurm"
    path = tmp_path / "tuned" / "demo_vit_nano_lr.csv"
    assert len(cluster.submit(2)) == 2
    cluster.wait("8 runs: 8 done", 200)
    logs = "".join(p.read_text() for p in cluster.logs.rglob("*.err"))
    assert logs.count(" % in ") == 8  # no trial twice
    assert not path.exists()  # jobs write none
    done = cluster()
    assert done.returncode == 0, done.stderr
    assert f"Written: {path}" in done.stdout
    assert len(path.read_text().splitlines()) == 1 + 2 * 2
    assert not (cluster.results / "tables").exists()


@pytest.mark.slurm
def test_a_pre_empted_job_saves_itself_and_goes_on_to_the_same_end(
    cluster: Cluster, tmp_path: Path, data_root: Path
) -> None:
    one = ("--methods", "san", "--tasks", "digits")
    epochs = 30  # many times what it takes to ask for the status
    (job,) = cluster.submit(1, *one, epochs=epochs)
    status = cluster.wait("epoch ", 100, epochs)
    # The scheduler may take a minute, and wakes whom it pre-empts.
    os.kill(int(re.findall(r"process (\d+)", status)[0]), signal.SIGSTOP)
    subprocess.run(
        ["sbatch", "-p", "urgent", "-n", "2", "--wrap", "sleep 1", "-o", "/dev/null"], check=True
    )
    cluster.wait("PENDING", 200, epochs)
    assert len(list(cluster.results.rglob("*.checkpoint"))) == 1
    assert not list(cluster.results.rglob("*.claim"))
    assert not list(cluster.results.rglob("records/**/*.json"))
    subprocess.run(
        ["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False
    )  # not to wait for two minutes
    cluster.wait("1 done", 400, epochs)
    assert not list(cluster.results.rglob("*.checkpoint"))
    (tmp_path / "whole").mkdir()
    whole = Cluster(tmp_path / "whole", data_root)
    assert whole(*one, epochs=epochs).returncode == 0
    (resumed,), (undisturbed,) = (
        record_file.read_records(c.results / "records")[0] for c in (cluster, whole)
    )
    assert (resumed.id, resumed.last) == (undisturbed.id, undisturbed.last)


@pytest.mark.slurm
def test_a_job_that_is_out_of_time_saves_itself_and_is_queued_again(cluster: Cluster) -> None:
    # SLURM warns up to a minute early, so within a minute of a job of two.
    cluster.file.write_text(CLUSTER.replace("timeout_min: 20", "timeout_min: 2"))
    (job,) = cluster.submit(1, epochs=ENDLESS)
    cluster.wait("PENDING (BeginTime)", 180, epochs=ENDLESS)
    assert len(list(cluster.results.rglob("*.checkpoint"))) == 1
    assert not list(cluster.results.rglob("*.claim"))
    log = "".join(p.read_text() for p in (cluster.results / "slurm").rglob("*.out"))
    assert "this job is timed-out" in log or "Job has timed out" in log
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
    cluster.wait(" running", 200, epochs=ENDLESS)
    cluster("--cancel", epochs=ENDLESS)


@pytest.mark.slurm
def test_hydras_own_launcher_keeps_the_rules(cluster: Cluster) -> None:
    chosen = [
        "method=linear,ssf",
        "data=demo/digits",
        "epochs=1",
        "logger=none",
        f"data_root={cluster.data}",
    ]
    launcher = [
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=debug",
        "hydra.launcher.cpus_per_task=1",
    ]
    command = [
        sys.executable,
        "train.py",
        "-m",
        *launcher,
        *chosen,
        f"results_dir={cluster.results}",
    ]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr
    records = list(cluster.results.rglob("records/**/*.json"))
    assert len(records) == 2
    logs = "".join(p.read_text() for p in cluster.results.rglob("*_log.*"))
    assert logs.count(" % in ") == 2
    assert logs.count("already complete") == 2


@pytest.mark.slurm
def test_cancelling_takes_the_jobs_back_and_leaves_the_records(cluster: Cluster) -> None:
    cluster.submit(2, epochs=ENDLESS)
    cluster.wait(" running", 100, epochs=ENDLESS)
    assert "cancelled" in cluster("--cancel").stdout
    deadline = time.monotonic() + 60
    while slurm.queued_jobs(cluster.results / "slurm") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert slurm.queued_jobs(cluster.results / "slurm") == []
    again = cluster("--cancel")
    assert (again.returncode, again.stdout.strip()) == (
        0,
        "No jobs of this results directory are queued.",
    )


@pytest.mark.slurm
def test_what_sbatch_says_is_shown(cluster: Cluster) -> None:
    cluster.file.write_text(CLUSTER.replace("debug", "nowhere"))
    refused = cluster("--launcher", "slurm", "--cluster", str(cluster.file))
    assert refused.returncode == 1
    assert "SLURM refused the sweep" in refused.stderr
    assert "invalid partition" in refused.stderr
    cluster.file.write_text("partitions: debug\n")
    unknown = cluster("--launcher", "slurm", "--cluster", str(cluster.file))
    assert "SLURM refused the sweep" in unknown.stderr
    assert "partitions" in unknown.stderr


def test_without_sbatch_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(LaunchError, match="There is no sbatch here"):
        slurm.submit(["true"], 1, {}, tmp_path)
