"""Files against golden ones; numbers are numbers; all are written, or none."""

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
from san.report.markdown import markdown
from san.report.render import write_table
from san.report.selection import Wanted, select
from san.report.table import make_table
from san.report.value import Flag
from san.tasks import Suite

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = [
    "{}.csv",
    "{}_cells.csv",
    "{}_runs.csv",
    "{}_comparisons.csv",
    "{}.md",
    "{}.tex",
    "{}.bib",
    "{}_cells.parquet",
    "{}_runs.parquet",
]
KEYS = ["kind", "row", "method", "settings", "protocol"]


@pytest.mark.parametrize("file", FILES[:-2])
@pytest.mark.parametrize(
    ("suite", "records"), [(DEMO, demo_records), (VTAB, vtab_records)], ids=["demo", "vtab"]
)
def test_golden_files(
    suite: Suite, records: Callable[[], list[Record]], file: str, tmp_path: Path
) -> None:
    """UPDATE_GOLDEN=1 writes them anew; read the difference before committing it."""
    paths = write_table(make_table(suite, records()), tmp_path)
    assert [path.name for path in paths] == [name.format(suite.name) for name in FILES]
    name = file.format(suite.name)
    made = (tmp_path / name).read_text()
    if name == "vtab_cells.csv":
        made = without_published(made)
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(made)
    if name.endswith("_comparisons.csv"):  # a product of matrices: the last digit is the machine's
        expected = pd.read_csv(GOLDEN / name)
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name), expected, rtol=1e-9)
    else:
        assert made == (GOLDEN / name).read_text()
    assert [path for path in tmp_path.iterdir() if path not in paths] == []


def test_every_flag_is_in_the_golden_files() -> None:
    shown = [flag for suite in ("demo", "vtab") for flag in flags_in(GOLDEN / f"{suite}.md")]
    assert set(shown) == set(Flag)


def flags_in(path: Path) -> list[Flag]:
    """The flags that the legend of a Markdown file explains."""
    text = " ".join(path.read_text().split())
    return [flag for flag in Flag if f"{flag.mark} {flag.legend}." in text]


def without_published(text: str) -> str:
    """A file of cells without the lines that repeat benchmarks/published/vtab.csv."""
    kept = []
    for line in text.splitlines(True):
        if line.split(",")[2] not in ("published", "quoted"):
            kept.append(line)
    return "".join(kept)


def test_parquet_has_what_csv_has_and_its_numbers_are_numbers(tmp_path: Path) -> None:
    write_table(make_table(VTAB, vtab_records()), tmp_path)
    for kind, numbers in (("cells", ["mean", "std", "n", "low"]), ("runs", ["accuracy", "seed"])):
        parquet = pd.read_parquet(tmp_path / f"vtab_{kind}.parquet")
        text = pd.read_csv(tmp_path / f"vtab_{kind}.csv")
        assert list(parquet.columns) == list(text.columns)
        for column in numbers:
            assert pd.api.types.is_numeric_dtype(parquet[column]), column
            assert pd.api.types.is_numeric_dtype(text[column]), column
            assert parquet[column].sum() == pytest.approx(text[column].sum())


def test_the_wide_file_has_a_line_for_each_row_and_numbers_alone(tmp_path: Path) -> None:
    table = make_table(VTAB, vtab_records())
    write_table(table, tmp_path)
    wide = pd.read_csv(tmp_path / "vtab.csv")
    assert not wide.duplicated(KEYS).any()
    for column in wide.columns.difference(KEYS):
        assert pd.api.types.is_numeric_dtype(wide[column]), column
    ssf = wide[(wide.kind == "ours") & (wide.row == "ssf")].iloc[0]
    assert ssf["cifar"] == pytest.approx(70.1)
    assert ssf["mean of all tasks"] == pytest.approx(74.6)
    printed = wide[(wide.kind == "published") & (wide.row == "SSF")].iloc[0]
    assert (printed["cifar"], printed.method) == (69.0, "ssf")
    assert printed["mean of group structured"] == pytest.approx(58.96, abs=0.01)


def test_a_bar_in_the_name_of_a_row_ends_no_cell_of_markdown() -> None:
    table = make_table(DEMO, [done(900, variant="a='|'")])
    text = markdown(table, select(table, Wanted()))
    assert r"san [a=\|]" in text


def test_runs_are_tidy(tmp_path: Path) -> None:
    write_table(make_table(DEMO, demo_records()), tmp_path)
    runs = pd.read_csv(tmp_path / "demo_runs.csv", keep_default_na=False)
    of_suite = [r for r in demo_records() if r.suite == "demo"]
    assert len(runs) == len(of_suite) - 1  # one is a copy of another
    assert set(runs.status) == {"done", "failed", "oom"}
    asked_for = {"joules", "lr", "epochs", "optimizer", "code_commit", "code_dirty", "suite"}
    asked_for |= {"device_name", "best_accuracy", "last_epoch"}
    assert asked_for <= set(runs.columns) | {"code_commit", "code_dirty", "device_name"}


def test_where_one_file_cannot_be_written_all_stay_as_they_were(tmp_path: Path) -> None:
    write_table(make_table(DEMO, demo_records()), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    table = make_table(DEMO, [*demo_records(), done(1, method="zebra")])
    # As on a full disk: the first files can be written, a later one cannot.
    limit = len(before["demo.csv"]) + 1000
    assert limit < len(before["demo_cells.csv"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(FileAccessError, match="File too large.*are unchanged"):
            write_table(table, tmp_path)
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
    write_table(make_table(DEMO, records), tmp_path)
    found = 0
    for name in ("demo.csv", "demo_cells.csv", "demo_runs.csv"):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.lstrip().startswith(formula)]
        found += sum(cell.startswith(f"'{formula}") for cell in cells)
    assert found >= 6
