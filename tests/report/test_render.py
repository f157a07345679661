"""Files against golden ones; all are written, or none."""

import csv
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from samples import DEMO, VTAB, demo_records, done, vtab_records

from san.errors import FileAccessError
from san.record import Record
from san.report.render import markdown, write_table
from san.report.table import make_table
from san.tasks import Suite

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ["{}.csv", "{}_cells.csv", "{}_runs.csv", "{}.md", "{}.tex"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("suite", "records"), [(DEMO, demo_records), (VTAB, vtab_records)], ids=["demo", "vtab"]
)
def test_golden_files(
    suite: Suite, records: Callable[[], list[Record]], file: str, tmp_path: Path
) -> None:
    """UPDATE_GOLDEN=1 writes them anew; read the difference before committing it."""
    paths = write_table(make_table(suite, records()), tmp_path, suite.name)
    assert [path.name for path in paths] == [name.format(suite.name) for name in FILES]
    name = file.format(suite.name)
    made = (tmp_path / name).read_text()
    if name == "vtab_cells.csv":
        made = without_cited(made)
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(made)
    assert made == (GOLDEN / name).read_text()
    assert [path for path in tmp_path.iterdir() if path not in paths] == []


def without_cited(text: str) -> str:
    """A file of cells without the lines that repeat benchmarks/published/vtab.csv."""
    return "".join(line for line in text.splitlines(True) if not line.startswith("cited,"))


def test_a_bar_in_the_name_of_a_row_ends_no_cell_of_markdown() -> None:
    text = markdown(make_table(DEMO, [done(900, variant="a='|'")]))
    assert r"san [a=\|]" in text


def test_runs_are_tidy(tmp_path: Path) -> None:
    write_table(make_table(DEMO, demo_records()), tmp_path, "demo")
    runs = pd.read_csv(tmp_path / "demo_runs.csv", keep_default_na=False)
    of_suite = [r for r in demo_records() if r.suite == "demo"]
    assert len(runs) == len(of_suite) - 1  # one is a copy of another
    assert set(runs.status) == {"done", "failed", "oom"}


def test_where_one_file_cannot_be_written_all_stay_as_they_were(tmp_path: Path) -> None:
    write_table(make_table(DEMO, demo_records()), tmp_path, "demo")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    table = make_table(DEMO, [*demo_records(), done(1, method="zebra")])
    # As on a full disk: the first files can be written, a later one cannot.
    limit = len(before["demo_cells.csv"]) + 1000
    assert limit < len(before["demo_runs.csv"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(FileAccessError, match="File too large.*are unchanged"):
            write_table(table, tmp_path, "demo")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_no_cell_of_a_csv_file_is_a_formula(start: str, tmp_path: Path) -> None:
    formula = f"{start}HYPERLINK(1)"
    spaced = done(600, task="count", created=f"\t{formula}")
    records = [
        spaced,
        done(900, method=formula),
        done(800, variant=formula),
        done(700, protocol=formula),
    ]
    write_table(make_table(DEMO, records), tmp_path, "demo")
    found = 0
    for name in ("demo.csv", "demo_cells.csv", "demo_runs.csv"):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.lstrip().startswith(formula)]
        found += sum(cell.startswith(f"'{formula}") for cell in cells)
    assert found >= 6


def test_signed_numbers_stay_numbers(tmp_path: Path) -> None:
    write_table(make_table(VTAB, vtab_records()), tmp_path, "vtab")
    with (tmp_path / "vtab.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    signed = [cell for row in rows if row["kind"] == "gap" for cell in row.values()]
    assert [cell for cell in signed if cell.startswith("-") and float(cell) < 0]
