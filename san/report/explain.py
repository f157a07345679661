"""Where a number of a table comes from: records, settings, and the commands that repeat a run."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from san import compose, settings
from san.errors import choose
from san.record import Record
from san.report.aggregate import aggregate_runs
from san.report.published import (
    PublishedNumber,
    PublishedRow,
    all_published_rows,
    published_numbers,
)
from san.report.published_index import published_index, without_remark
from san.report.rows import group_runs, in_table, row_name
from san.report.value import MISSING, Flag, to_text
from san.runtime.formatting import first_line_of_error
from san.tasks import Suite, load_suite, suite_names

_RECIPE_KEYS = ("epochs", "batch_size", "optimizer", "lr", "weight_decay")
_RUN_ORDER = attrgetter("seed", "created")
_WITHOUT_MARKS = str.maketrans(dict.fromkeys((flag.mark for flag in Flag), ""))


@dataclass(frozen=True)
class _OurCell:
    """A cell of one of our rows. row: its name in the table of the backbone."""

    backbone: str
    row: str
    method: str
    runs: Sequence[Record]


@dataclass(frozen=True)
class _PublishedCell:
    """The published numbers of a task in a row; none where there is only a claim.

    backbone: as papers call it.
    """

    backbone: str
    row: PublishedRow
    numbers: Sequence[PublishedNumber]


def explain_cell(suite: str, name: str, task: str, records: Sequence[Record]) -> Iterator[str]:
    """Yield what is known of a cell, ours and published, the values first.

    name: a method, or a row as tables print it, ours or published. suite and task, too, are taken
    by the names that tables print. records: with the names that `compose.named_by_value` gives.
    Raises UnknownNameError with the nearest names.
    """
    facts = _find_suite(suite)
    task = _find_task(facts, task)
    where = f"{facts.name}/{task}"
    ours = list(_our_cells(facts, task, records))
    published = list(_published_cells(facts, task, ours))
    row = _choose_row(name, ours, published)
    method = _method_of(row, ours)
    chosen = [cell for cell in ours if row == cell.row and row != method]
    if not chosen:
        chosen = [cell for cell in ours if cell.method == method]
    for cell in chosen:
        yield from _describe_our_cell(cell, where)
    if method and not any(cell.runs for cell in chosen):
        yield f"{MISSING}  {where}, {method}: not run yet"
        yield _line("run", f"python train.py method={method} data={where}")
    for printed in published:
        if printed.row.method == row or _is_compared(printed.row, method):
            yield from _describe_published_cell(printed, where)


def rerun_command(r: Record) -> str:
    """Return the command that repeats a run; where its record still exists, add `force=true`."""
    return shlex.join(["python", "train.py", *compose.rerun_words(r)])


def _find_suite(name: str) -> Suite:
    """Return a suite by its name or by the title of one of its tables."""
    title = name.partition(", ")[0]  # what follows is another backbone
    for each in suite_names():
        suite = load_suite(each)
        if _is_called(title, suite.name, suite.title):
            return suite
    return load_suite(title)  # which names the nearest


def _find_task(suite: Suite, name: str) -> str:
    """Return a task by its name or by its label."""
    for task in suite.tasks.values():
        if _is_called(name, task.name, task.label):
            return task.name
    return suite.task(name).name


def _is_called(name: str, *names: str) -> bool:
    """Return whether a name is one of several, however it is capitalized."""
    return name.casefold() in [each.casefold() for each in names]


def _our_cells(suite: Suite, task: str, records: Sequence[Record]) -> Iterator[_OurCell]:
    """Yield the cell of a task in each row of each table of ours."""
    by_backbone: dict[str, list[Record]] = {}
    for r in sorted(records, key=_RUN_ORDER):
        if r.suite == suite.name:
            by_backbone.setdefault(r.backbone, []).append(r)
    for backbone, found in sorted(by_backbone.items()):
        # A run that is scored on the validation split is in no table, and changes no row's name.
        shown = [group.key for group in group_runs(suite, in_table(suite, found))]
        groups = group_runs(suite, found)
        everything = [group.key for group in groups]
        for group in groups:
            keys = shown if group.key in shown else everything
            row = row_name(group.key, keys)
            runs = group.runs.get(task, [])
            yield _OurCell(
                backbone=backbone,
                row=row,
                method=group.key.method,
                runs=runs,
            )


def _published_cells(suite: Suite, task: str, ours: Sequence[_OurCell]) -> Iterator[_PublishedCell]:
    """Yield the published cells of a task with the suite's backbone and those of our rows."""
    called = published_index().backbones
    by_printed_name: dict[str, str] = {}  # papers call several of ours by one name
    for backbone in sorted({suite.backbone, *(cell.backbone for cell in ours)}):
        by_printed_name.setdefault(called.get(backbone, backbone), backbone)
    for printed_name, backbone in by_printed_name.items():
        numbers = [n for n in published_numbers(suite.name, backbone) if n.task == task]
        for row in all_published_rows(suite, backbone):
            found = [number for number in numbers if number.method == row.method]
            yield _PublishedCell(
                backbone=printed_name,
                row=row,
                numbers=found,
            )


def _choose_row(name: str, ours: Sequence[_OurCell], published: Sequence[_PublishedCell]) -> str:
    """Return the name of a method or row as it is spelt; raise UnknownNameError on any other."""
    known = compose.config_choices("method")
    known += [cell.row for cell in ours]
    known += [cell.row.method for cell in published]
    plain = name.translate(_WITHOUT_MARKS).strip()
    for each in (name, plain):
        if each in known:
            return each
    for each in known:
        if _is_called(plain, each):
            return each
    return choose(plain, list(dict.fromkeys(known)), "method or row")


def _method_of(row: str, ours: Sequence[_OurCell]) -> str:
    """Return the method of a row of ours, or that a published row is compared with, or nothing."""
    if row in compose.config_choices("method"):
        return row
    for cell in ours:
        if cell.row == row:
            return cell.method
    for method, printed in published_index().our_methods.items():
        if printed == row:
            return method
    return ""


def _is_compared(row: PublishedRow, method: str) -> bool:
    """Return whether a published row is the one that a method of ours is compared with.

    `SSF (Mai et al., last)` is a variant of `SSF`.
    """
    compared = published_index().our_methods.get(method)
    return compared is not None and without_remark(row.method) == without_remark(compared)


def _describe_our_cell(cell: _OurCell, where: str) -> Iterator[str]:
    """Yield the value of a cell, and what its records say."""
    value = to_text(aggregate_runs(cell.runs))
    count = len(cell.runs)
    yield f"{value}  {where}, {cell.row}, {cell.backbone}: {count} records"
    for r in cell.runs:
        yield from _describe_record(r)
    yield ""


def _describe_published_cell(cell: _PublishedCell, where: str) -> Iterator[str]:
    """Yield the published numbers of a cell, and what is known of the protocol of its row."""
    row = cell.row
    for number in cell.numbers:
        backbone = row.weights or cell.backbone
        yield f"{number.accuracy:g}  {where}, {row.method}, {backbone}: published"
        chosen = row.selected_on or "not known"
        yield _line("weights", f"{row.weights or 'not known'}; epoch chosen on {chosen}")
        yield _line("source", number.origin)
        if row.protocol:
            yield _line("protocol", row.protocol)
        if number.note:
            yield _line("note", number.note)
        yield ""
    if not cell.numbers:
        claim = row.claim or "no source has one for this task"
        yield f"{MISSING}  {where}, {row.method}: published without a number: {claim}"


def _describe_record(r: Record) -> Iterator[str]:
    """Yield what a record says."""
    chosen = f"epoch chosen on {r.selected_on}"
    yield f"\n  seed {r.seed}: {_result(r)}, {chosen}, record {r.id} of {r.created}"
    yield _line("settings", _settings(r))
    yield _line("weights", f"{r.backbone}, {r.weights}")
    yield _line("data", _data(r))
    if r.data.forced:
        yield _line("FORCED", r.data.forced)
    yield _line("made by", _made_by(r))
    if r.error:
        yield _line("error", first_line_of_error(r.error))
    for warning in r.warnings:
        yield _line("warning", warning)
    yield _line("reproduce", rerun_command(r))


def _line(label: str, text: str) -> str:
    """Return an indented line with a label."""
    return f"    {label:<10} {text}"


def _result(r: Record) -> str:
    """Return the accuracy of a run, or how it ended."""
    if r.score is None:
        return r.status
    return f"{r.accuracy:.2f} % ({r.score.correct} of {r.score.total})"


def _settings(r: Record) -> str:
    """Return the recipe of a run, and how it departs from its suite's."""
    words = [f"{key}={r.config.get(key)}" for key in _RECIPE_KEYS]
    recipe = ", ".join(words)
    if not r.variant:
        return recipe
    return f"{recipe}; {settings.shorten_variant(r.variant)}"


def _data(r: Record) -> str:
    """Return the source of the images, and the fingerprints of the splits."""
    source = r.data.source or "unknown"
    train = r.data.train or "unknown"
    evaluate = r.data.evaluate or "unknown"
    return f"{source}; train {train}, {r.evaluated_on} {evaluate}"


def _made_by(r: Record) -> str:
    """Return commit, versions and device; and whether files differed from the commit."""
    commit = str(r.code.commit)[:12]
    changes = " with changes" if r.code.dirty else ""
    parts = [f"commit {commit}{changes}"]
    for name, version in r.versions.items():
        parts.append(f"{name} {version}")
    parts.append(f"on {r.device.name}")
    return ", ".join(parts)
