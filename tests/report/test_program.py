"""scripts/tables.py, on a machine without torch: what it prints, writes and says to mistakes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from conftest import scores_alone
from samples import demo_records, done

from san.commands import tables as program
from san.errors import SanError
from san.record import Record
from san.record_file import record_path, write_record
from san.score import Score
from san.tasks import known_split_sizes

ROOT = Path(__file__).parents[2]
# As on a machine where they are not installed.
WITHOUT_TORCH = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'timm', 'torchvision'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
"""
PROGRAM = "import runpy; runpy.run_path('scripts/tables.py', run_name='__main__')"


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH + code, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )


def tables(results: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(PROGRAM, "--results", str(results), *arguments)


def write(records: list[Record], results: Path) -> None:
    """Write records that count all images of their splits, as records that are read must."""
    for made in records:
        r = made if made.last is None else with_true_total(made)
        write_record(r, record_path(results / "records", r.suite, r.method, r.task, r.seed, r.id))


def with_true_total(r: Record) -> Record:
    """The record with about the same accuracy, of as many images as its split has."""
    sizes = known_split_sizes(r.suite, r.task, r.evaluated_on)
    scores = [score for score in (r.best, r.last) if score is not None]
    if sizes:
        (total,) = sizes
        scores = [Score(s.epoch, s.correct * total // s.total, total) for s in scores]
    best, last = scores
    curve = [best, last] if best.correct > last.correct else [last]
    return msgspec.structs.replace(r, best=curve[0], last=last, history=scores_alone(*curve))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with records of two suites, and of one that benchmarks/ does not have."""
    results = tmp_path_factory.mktemp("results")
    swin = done(990, suite="vtab", task="cifar", backbone="swin_b_in22k")
    write([*demo_records(), swin], results)
    return results


def test_no_module_of_the_report_needs_torch() -> None:
    names = sorted(path.stem for path in (ROOT / "san" / "report").glob("*.py"))
    assert len(names) == 41
    code = "import importlib\n"
    code += f"for name in {names}: importlib.import_module(f'san.report.{{name}}')\n"
    code += "print('torch' in sys.modules)"
    imported = run_python(code)
    assert imported.stdout == "False\n", imported.stderr


def test_help_needs_no_torch(tmp_path: Path) -> None:
    shown = tables(tmp_path, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "--cell SUITE ROW TASK" in shown.stdout


def test_tables_of_all_suites_with_records(results: Path) -> None:
    shown = tables(results)
    assert shown.returncode == 0, shown.stderr
    assert "**Demo suite**, top-1 accuracy in percent" in shown.stdout
    assert "**VTAB-1k, swin_b_in22k**" in shown.stdout
    assert "No tables of another" in shown.stderr
    files = {path.name for path in (results / "tables").iterdir()}
    assert len(files) == 27
    assert {"demo.csv", "demo_cells.csv", "vtab_swin_b_in22k_runs.csv"} <= files


def test_the_backbone_of_a_table_can_be_chosen(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--results", str(results), "fgvc", "--backbone", "swin_b_in22k"]
    monkeypatch.setattr(sys, "argv", ["tables.py", *arguments])
    program.main()
    shown = capsys.readouterr().out
    assert "swin_b_in22k" in shown.splitlines()[0]
    assert "VTAB" not in shown


def test_a_cell_is_explained(results: Path) -> None:
    shown = tables(results, "--cell", "demo", "ssf", "count")
    assert shown.returncode == 0, shown.stderr
    cell = r"71\.\d\d \(failed\)  demo/count, ssf \[last_epoch\], vit_nano: 2 records"
    assert re.search(cell, shown.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "vtab", "sff", "cifar"], "Unknown method or row 'sff'. Did you mean ssf"),
        (["--cell", "vtab", "ssf", "cifer"], "Unknown task of vtab 'cifer'. Did you mean cifar"),
        (["vtub"], "Unknown suite 'vtub'. Did you mean vtab?"),
        (["--backbone", "vit_nono"], "Unknown backbone 'vit_nono'. Did you mean vit_nano"),
        (["--cell", "vtab", "ssf", "cifar", "--backbone", "x"], "Unknown backbone 'x'"),
        (["demo", "--cell", "demo", "ssf", "count"], "a suite came beside --cell; --backbone and"),
        (["--cell", "demo", "ssf", "count", "--rows", "san"], "--rows came beside --cell"),
        (["demo", "--rows", "sn"], "Unknown row 'sn'. Did you mean san"),
        (["fgvc", "--published", "SSFF"], "Unknown published row 'SSFF'. Did you mean SSF"),
        (["demo", "--columns", "digit"], "Unknown column 'digit'. Did you mean digits"),
        (["demo", "--reference", "sn"], "Unknown reference 'sn'. Did you mean san"),
    ],
)
def test_a_mistake_is_answered_in_words(
    results: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tables.py", "--results", str(results), *arguments])
    with pytest.raises(SanError, match=re.escape(message)):
        program.main()


def test_a_suite_without_records_and_published_numbers_has_no_table(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tables.py", "--results", str(results), "robustness"])
    with pytest.raises(SystemExit) as stopped:
        program.main()
    assert stopped.value.code == 1
    expected = "Error: No test results of robustness below"
    assert expected in capsys.readouterr().err


def test_tables_that_cannot_be_written_are_a_message(tmp_path: Path) -> None:
    write([done(900)], tmp_path)
    (tmp_path / "tables").write_text("a file where the directory belongs")
    shown = tables(tmp_path, "demo")
    assert shown.returncode == 1
    assert "Error: The tables cannot be written" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_our_marks_shows_their_codes(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    shown = tables(tmp_path, "vtab")
    assert shown.returncode == 0, shown.stderr
    assert "\\u2020" in shown.stdout  # a dagger
    assert "†" in (tmp_path / "tables" / "vtab.md").read_text("utf-8")


def test_a_failed_attempt_with_another_backbone_is_one_line_until_it_is_forgotten(
    tmp_path: Path,
) -> None:
    failed = done(1, seed=7, backbone="vit_b16_augreg_in21k", status="failed")
    write([done(900), failed], tmp_path)
    shown = tables(tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("**Demo suite") == 1
    line = next(x for x in shown.stderr.splitlines() if x.startswith("No table of demo with vit_b"))
    remove = line.partition("To forget them: ")[2].split()
    assert remove[0] == "rm"
    for path in remove[1:]:
        Path(path).unlink()
    assert "No table" not in tables(tmp_path).stderr


def test_a_reader_who_leaves_is_no_error_and_all_files_are_written(results: Path) -> None:
    shutil.rmtree(results / "tables", ignore_errors=True)
    command = [sys.executable, str(ROOT / "scripts" / "tables.py"), "--results", str(results)]
    read_end, write_end = os.pipe()
    os.close(read_end)  # nobody reads
    with os.fdopen(write_end, "w") as stdout:
        left = subprocess.run(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
        )
    assert left.returncode == 0, left.stderr
    assert "Error" not in left.stderr
    assert len(list((results / "tables").iterdir())) == 27
