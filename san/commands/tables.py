"""Write the tables of all suites that have records: CSV, Markdown, LaTeX, figures, and a verdict.

python scripts/tables.py                        # every suite and backbone that has records
python scripts/tables.py vtab                   # one, beside the published numbers
python scripts/tables.py vtab --backbone swin_b_in22k
python scripts/tables.py vtab --style paper --rows full linear ssf san --published none
python scripts/tables.py vtab --style paper --columns means     # fits one column of a page
python scripts/tables.py --cell vtab san cifar  # where a number comes from, and how to repeat it
"""

import logging
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san import cli, config_files, record_names
from san.errors import FileAccessError, InvalidValueError, MissingFileError, RecordError, choose
from san.installation import command, install_command, localize_commands
from san.record import Record, Status
from san.record_file import answers_path, read_answers, read_records, record_path
from san.report.arguments import Arguments, parse_arguments, refuse_beside_cell
from san.report.comparability import RowKey
from san.report.draw import can_draw, draw_table
from san.report.explain import explain_cell
from san.report.markdown import markdown
from san.report.own_images import with_own_tasks
from san.report.paper import paper_latex
from san.report.recipe_rows import in_every_row
from san.report.render import cells_frame, runs_frame, write_table
from san.report.reproduction import REFERENCE, describe_reproduction
from san.report.rows import row_name
from san.report.selection import Selection, select
from san.report.table import Table, make_table
from san.runtime.formatting import count_of, printable
from san.runtime.wandb_logger import open_wandb
from san.tasks import load_suite, suite_names


class _TableKey(NamedTuple):
    """Which table: of a suite, a backbone, and the split that runs were scored on.

    task: of a user's own images, each of which is a table of its own; else nothing.
    """

    suite: str
    backbone: str
    split: str = "test"
    task: str = ""


def main() -> None:
    """Read records, then write and print tables, or explain a cell."""
    args = parse_arguments(localize_commands(__doc__ or ""))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("san").setLevel(logging.INFO)
    records, problems = read_records(args.records)
    records = in_every_row([record_names.named_by_value(r) for r in records])
    for problem in problems:
        print(f"Skipped: {printable(problem)}", file=sys.stderr)
    if args.backbone:
        known = {*config_files.choices("backbone"), *(r.backbone for r in records)}
        choose(args.backbone, sorted(known), "backbone")
    if args.cell:
        refuse_beside_cell(args)
        _print_cell(args, records)
        return
    # All files are written before anything is printed: the reader may go, as `head` does.
    keys = _choose_tables(args, records)
    made = [_make(key, records, len(problems), args) for key in keys]
    if args.style == "everyday":
        made += _reproduction_texts({key.suite for key in keys}, records, args)
    cli.print_while_read("\n".join(text for text in made if text))
    if "" in made:
        sys.exit(cli.USER_ERROR)


def _print_cell(args: Arguments, records: Sequence[Record]) -> None:
    """Print where the number of a cell (suite, row, task or mean) comes from."""
    assert args.cell is not None
    suite, row, column = args.cell
    lines = explain_cell(suite, row, column, records, args.records, args.backbone)
    cli.print_while_read("\n".join(lines))


def _choose_tables(args: Arguments, records: Sequence[Record]) -> list[_TableKey]:
    """Return the tables to make.

    Raises UnknownNameError on an unknown suite, MissingFileError where there is nothing to make.
    """
    suites = [load_suite(name.partition("/")[0]) for name in args.suite]
    shown_names = [suite.name for suite in suites] or suite_names()
    shown = _of_tasks(args.suite, [r for r in records if r.suite in shown_names])
    tables = set(_tables_of(shown))
    _name_failed_attempts([r for r in shown if not _has_table(r, tables)], args.records)
    for suite in suites:
        key = _TableKey(suite.name, args.backbone or suite.backbone)
        is_shown = any(table[:2] == key[:2] for table in tables)
        # Nothing is published of a user's own images.
        has_own = suite.is_own_images and any(table.suite == suite.name for table in tables)
        if not (is_shown or has_own):
            tables.add(key)
    if args.backbone:
        tables = {table for table in tables if table.backbone == args.backbone}
    if not tables:
        raise MissingFileError(
            f"No results of a suite below {args.records}. Run `{_run_command('demo')}` first, or "
            "name a suite."
        )
    others = sorted({r.suite for r in records} - set(suite_names()))
    if others:
        print(f"No tables of {', '.join(others)}: not a suite of benchmarks/.", file=sys.stderr)
    return sorted(tables)


def _of_tasks(names: Sequence[str], records: Sequence[Record]) -> list[Record]:
    """Return the records of a user's folders that are named, as `folder/pets`, and all others.

    Raises InvalidValueError at a task of a suite, which has no table of its own, UnknownNameError
    at a folder without records.
    """
    kept = list(records)
    for name in names:
        suite, _, task = name.partition("/")
        if not task:
            continue
        if not load_suite(suite).is_own_images:
            raise InvalidValueError(f"{name} has no table of its own; allowed: {suite}.")
        known = {r.task for r in records if r.suite == suite}
        choose(task, sorted(known), f"task with records of {suite}")
        kept = [r for r in kept if r.suite != suite or f"{suite}/{r.task}" in names]
    return kept


def _tables_of(records: Sequence[Record]) -> Iterator[_TableKey]:
    """Yield the tables that records have; of another backbone only where a run is done."""
    for r in records:
        suite = load_suite(r.suite)
        if r.status == Status.DONE or r.backbone == suite.backbone:
            task = r.task if suite.is_own_images else ""
            yield _TableKey(r.suite, r.backbone, r.evaluated_on, task)


def _has_table(r: Record, tables: set[_TableKey]) -> bool:
    return any(table[:2] == (r.suite, r.backbone) for table in tables)


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


def _make(key: _TableKey, records: Sequence[Record], unreadable: int, args: Arguments) -> str:
    """Write a table; return it as text, nothing if it has no rows or cannot be written whole."""
    if key.task:
        records = [r for r in records if r.task == key.task]
    suite = with_own_tasks(load_suite(key.suite), records)
    if args.name:
        if not args.rows:
            raise InvalidValueError("--name came without --rows; give the rows of that table.")
        records = [r for r in records if {_row_of(r), r.method} & {*args.rows}]
    table = make_table(
        suite,
        records,
        key.backbone,
        split=key.split,
        reference=args.reference,
        answers_of=lambda r: _find_answers(r, args.records),
    )
    labels = [label for label in (key.task, args.name) if label]
    table = replace(table, label="_".join(labels))
    if unreadable:
        note = (
            f"Left out: {count_of(unreadable, 'file')} that no record of this version is in; "
            f"{command('tables')} names them."
        )
        table = replace(table, notes=(*table.notes, note))
    if not table.ours.rows and not table.published.rows:
        run = _run_command(suite.name)
        message = f"No test results of {suite.name} below {args.records}. Run `{run}` first."
        cli.print_error(message, cli.USER_ERROR)
        return ""
    selection = select(table, args.wanted)
    paths = write_table(table, args.results / "tables", selection, args.paper)
    if args.wandb:
        _log_tables(table, args)
    try:
        for_paper = args.style == "paper"
        paths += draw_table(table, selection, records, args.results, for_paper=for_paper)
    except FileAccessError as error:
        written = " ".join(map(str, paths))
        cli.print_error(f"{error} Written are the tables: {written}", cli.USER_ERROR)
        return ""
    return _to_text(table, selection, paths, args)


def _run_command(suite: str) -> str:
    """Return what runs a suite; of the demo suite what takes minutes."""
    return f"{command('reproduce')} {suite}" + (" --seeds 0" if suite == "demo" else "")


def _row_of(r: Record) -> str:
    key = RowKey.of(r)
    return row_name(key, [key])


def _to_text(table: Table, selection: Selection, paths: Sequence[Path], args: Arguments) -> str:
    """Return what is printed of a table."""
    if args.style == "paper":
        return paper_latex(table, selection, args.paper)
    text = f"{markdown(table, selection)}\nWritten: {' '.join(map(str, paths))}"
    if not can_draw():
        text += f"\nNo figures without matplotlib and textalloc: {install_command('figures')}"
    return text


def _reproduction_texts(
    suites: Collection[str], records: Sequence[Record], args: Arguments
) -> Iterator[str]:
    """Yield how the runs here compare with the reference runs that the project ships."""
    if args.results.resolve() == REFERENCE.resolve():
        return
    reference, _ = read_records(REFERENCE / "records")
    reference = [record_names.named_by_value(r) for r in reference if r.suite in suites]
    lines = list(describe_reproduction(records, reference))
    if lines:
        yield "\n".join(["Does it reproduce here?", *lines])


def _find_answers(r: Record, records: Path) -> NDArray[np.bool_] | None:
    """Return which test images a run had right, where it kept them."""
    path = record_path(records, r.suite, r.method, r.task, r.seed, r.id)
    try:
        return read_answers(r, answers_path(path))
    except RecordError:
        return None


def _log_tables(table: Table, args: Arguments) -> None:
    """Log the cells and runs of a table as a run of W&B."""
    logger = open_wandb(
        args.results,
        run_id=f"tables-{table.name}",
        name=f"tables {table.name}",
        group=table.suite.name,
        job_type="tables",
        config={"results_dir": str(args.results)},
        tags=(table.suite.name, "tables"),
        project=args.wandb_project,
    )
    logger.log_tables({"cells": cells_frame(table), "runs": runs_frame(table)})
    logger.finish({})
