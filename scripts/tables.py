"""Write the tables of all suites that have records, as CSV, Markdown and LaTeX with a figure.

python scripts/tables.py                        # every suite and backbone that has records
python scripts/tables.py vtab                   # one, beside the published numbers
python scripts/tables.py vtab --backbone swin_b_in22k
python scripts/tables.py --cell vtab san cifar  # where a number comes from, and how to repeat it
"""

import argparse
import importlib.util
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from san import cli, compose
from san.errors import MissingFileError
from san.record import Record, Status
from san.record_file import read_records, record_path
from san.report.explain import explain_cell
from san.report.figure import draw_figure
from san.report.render import cells_frame, markdown, runs_frame, write_table
from san.report.table import Table, make_table
from san.runtime.formatting import printable
from san.runtime.wandb_logger import open_logger
from san.tasks import Suite, load_suite, suite_names


class Arguments(argparse.Namespace):
    """The command line, typed."""

    suite: list[str]
    backbone: str | None
    cell: list[str] | None
    wandb: bool
    results: Path

    @property
    def records(self) -> Path:
        """Where the records are."""
        return self.results / "records"


def main() -> None:
    """Read records, then write and print tables, or explain a cell."""
    args = _parse_arguments()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("san").setLevel(logging.INFO)
    records, problems = read_records(args.records)
    records = [compose.named_by_value(r) for r in records]
    for problem in problems:
        print(f"Skipped: {printable(problem)}", file=sys.stderr)
    if args.cell:
        _print_cell(args.cell, records)
        return
    tables = _choose_tables(args, records)
    # All files are written before anything is printed: the reader may go, as `head` does.
    made = [_make(suite, backbone, records, len(problems), args) for suite, backbone in tables]
    texts = [text for text in made if text]
    if not texts:
        sys.exit(cli.USER_ERROR)
    cli.print_while_read("\n".join(texts))


def _parse_arguments() -> Arguments:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "suite",
        nargs="*",
        help=f"default: all with records; of {', '.join(suite_names())}",
    )
    parser.add_argument(
        "--backbone",
        help="of the suites that are named, also one that nothing was run with yet",
    )
    parser.add_argument(
        "--cell",
        nargs=3,
        metavar=("SUITE", "ROW", "TASK"),
        help="say where a number comes from: names as tables print them, or keys",
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="log them as one more W&B run of each suite, too",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="where records/ and tables/ are",
    )
    return parser.parse_args(namespace=Arguments())


def _print_cell(cell: Sequence[str], records: Sequence[Record]) -> None:
    """Print where the number of a cell (suite, method, task) comes from."""
    suite, row, task = cell
    cli.print_while_read("\n".join(explain_cell(suite, row, task, records)))


def _choose_tables(args: Arguments, records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return suite and backbone of each table to make.

    Raises UnknownNameError on an unknown suite, MissingFileError where there is nothing to make.
    """
    suites = [load_suite(name) for name in args.suite]
    shown_names = args.suite or suite_names()
    shown = [r for r in records if r.suite in shown_names]
    tables = {(r.suite, r.backbone) for r in shown if r.status == Status.DONE}
    tables |= {(r.suite, r.backbone) for r in shown if r.backbone == load_suite(r.suite).backbone}
    tables |= {(suite.name, args.backbone or suite.backbone) for suite in suites}
    _name_failed_attempts([r for r in shown if (r.suite, r.backbone) not in tables], args.records)
    if args.backbone:
        tables = {table for table in tables if table[1] == args.backbone}
    if not tables:
        raise MissingFileError(
            f"No results of a suite below {args.records}. Run `make demo` first, or name a suite."
        )
    others = sorted({r.suite for r in records} - set(suite_names()))
    if others:
        print(f"No tables of {', '.join(others)}: not a suite of benchmarks/.", file=sys.stderr)
    return sorted(tables)


def _name_failed_attempts(failed: Sequence[Record], root: Path) -> None:
    """Say of which backbones there is no table, as every run failed, and how to forget them."""
    by_table: dict[tuple[str, str], list[str]] = {}
    for r in failed:
        path = record_path(root, r.suite, r.method, r.task, r.seed, r.id)
        by_table.setdefault((r.suite, r.backbone), []).append(str(path))
    for (suite, backbone), paths in by_table.items():
        print(
            f"No table of {suite} with {backbone}: of its runs none is done, {len(paths)} failed. "
            f"To forget them: {shlex.join(['rm', *paths])}",
            file=sys.stderr,
        )


def _make(
    suite_name: str,
    backbone: str,
    records: Sequence[Record],
    unreadable: int,
    args: Arguments,
) -> str:
    """Write the table of a suite and a backbone; return it as text, nothing if it has no rows."""
    suite = load_suite(suite_name)
    table = make_table(suite, records, backbone)
    if unreadable:
        note = (
            f"{unreadable} files are not records of this version and are left out; "
            "python scripts/tables.py names them."
        )
        table = replace(table, notes=(*table.notes, note))
    if not table.ours.rows and not table.published.rows:
        run = "make demo" if suite.name == "demo" else f"python scripts/reproduce.py {suite.name}"
        message = f"No test results of {suite.name} below {args.records}. Run `{run}` first."
        cli.print_error(message, cli.USER_ERROR)
        return ""
    name = suite.name if backbone == suite.backbone else f"{suite.name}_{backbone}"
    paths = write_table(table, args.results / "tables", name)
    paths += draw_figure(table, args.results / "figures", name)
    if args.wandb:
        _log_tables(table, suite, backbone, args.results)
    text = f"{markdown(table)}\nWritten: {' '.join(str(path) for path in paths)}"
    if importlib.util.find_spec("matplotlib") is None:
        text += "\nNo figure without matplotlib: `make tables` installs it and draws."
    return text


def _log_tables(table: Table, suite: Suite, backbone: str, results: Path) -> None:
    """Log the cells and runs of a table as a run of W&B."""
    logger = open_logger(
        "wandb",
        results_dir=results,
        config={"results_dir": str(results)},
        run_id=f"tables-{suite.name}-{backbone}",
        group=suite.name,
        job_type="tables",
    )
    logger.log_tables({"cells": cells_frame(table), "runs": runs_frame(table)})
    logger.finish({})


if __name__ == "__main__":
    cli.main(main)
