"""How far a sweep is and how long the rest takes, in words."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from san.installation import command
from san.record import Record, Status
from san.runtime.formatting import first_line_of_error, format_duration
from san.runtime.lease_holder import STALE_AFTER_S, UNREADABLE, Holder
from san.sweep.duration import estimate_time_left
from san.sweep.plan import RunState, RunStatus

_STATE_WIDTH = max(len(state) for state in RunState)


def summary(statuses: Sequence[RunStatus], records: Sequence[Record] = ()) -> str:
    """Return one line: how many runs are in which state, and how long the rest takes.

    records: of finished runs, from which the time is estimated.
    """
    counts = Counter(status.state for status in statuses)
    parts: list[str] = []
    for state in RunState:
        if counts[state]:
            parts.append(f"{counts[state]} {state}")
    line = f"{len(statuses)} runs: " + ", ".join(parts)
    left = estimate_time_left(statuses, records)
    if left.estimated_runs:
        duration = format_duration(left.seconds)
        device = _device_name(records)
        line += f"; about {duration} of one {device} left"
    if left.other_runs:
        line += f"; {left.other_runs} without an estimate"
    return line


def details(statuses: Sequence[RunStatus]) -> Iterator[str]:
    """Yield a line for each run that is neither done nor waiting: who does it, or what is wrong.

    Runs that cannot be done share a line for each reason.
    """
    for status in statuses:
        text = _describe(status)
        if text is not None:
            yield _labelled(status.state, f"{status.run.display_name}: {text}")
    for line in _obstacles(statuses):
        yield _labelled(RunState.NOT_RUNNABLE, line)


def progress_table(statuses: Sequence[RunStatus]) -> str:
    """Return a table of tasks by methods: how many of their runs are done."""
    # Dictionaries keep the order of the plan, which is that of the suite's table.
    tasks: dict[str, None] = {}
    methods: dict[str, None] = {}
    total: Counter[tuple[str, str]] = Counter()
    done: Counter[tuple[str, str]] = Counter()
    for status in statuses:
        task = status.run.task_name
        method = status.run.method
        tasks[task] = None
        methods[method] = None
        total[task, method] += 1
        if status.state == RunState.DONE:
            done[task, method] += 1
    rows: list[list[str]] = []
    for task in tasks:
        row = [task]
        for method in methods:
            row.append(f"{done[task, method]} of {total[task, method]}")
        rows.append(row)
    return tabulate(rows, ["done", *methods])


def _device_name(records: Sequence[Record]) -> str:
    """Return the kind of device that the first of the records was made on."""
    for record in records:
        if record.device.type == "cuda":
            return "GPU"
        if record.device.type:
            return record.device.type.upper()
    return "CPU"


def _describe(status: RunStatus) -> str | None:
    """Return what there is to say of one run, if anything."""
    holder = status.holder
    if status.state == RunState.RUNNING and holder is not None:
        return holder.name + _progress(holder) + _last_sign(holder)
    if status.state == RunState.CRASHED and holder is not None:
        return f"{holder.name} is gone; run the same command to resume it"
    if status.record is not None and status.state != RunState.DONE:
        return f"{_reason(status.record)} ({status.run.path})"
    return None


def _reason(record: Record) -> str:
    """Return why a run that has a record is not done."""
    if record.status != Status.DONE:
        return first_line_of_error(record.error or "")
    return record.warnings[-1] if record.warnings else "done, but no adapter was saved"


def _progress(holder: Holder) -> str:
    """Return for how long a process has been running, and how far it is."""
    lease = holder.lease
    if lease == UNREADABLE:
        return ""
    # The clock of another host may be ahead of ours.
    elapsed = max(0.0, time.time() - lease.since)
    text = f", for {format_duration(elapsed)}"
    if lease.epochs:
        text += f", epoch {lease.epoch} of {lease.epochs}"
    return text


def _last_sign(holder: Holder) -> str:
    """Return when a process last touched its file, if that is long ago, and the way out.

    One look cannot tell whether a process on another host lives: its clock may be wrong.
    """
    if holder.lease.is_local:
        return ""
    silence = time.time() - holder.sighting.mtime_ns / 1e9
    text = ""
    if silence > STALE_AFTER_S:
        text = f", no sign of life for {format_duration(silence)} by its file's time"
    if silence < -STALE_AFTER_S:
        text = f", its file's time is {format_duration(-silence)} ahead of this host's clock"
    return f"{text}; {holder.way_out}"


def _obstacles(statuses: Sequence[RunStatus]) -> Iterator[str]:
    """Yield a line for each reason why runs cannot start; tasks that are not prepared share one."""
    unprepared: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for status in statuses:
        if status.state != RunState.NOT_RUNNABLE:
            continue
        if status.run.is_prepared:
            first_line = status.run.obstacle.partition("\n")[0]
            reasons[first_line] += 1
        else:
            unprepared[status.run.task_name] += 1
    if unprepared:
        runs = unprepared.total()
        names = " ".join(unprepared)
        yield f"{runs} runs: {len(unprepared)} tasks are not prepared. {command('prepare')} {names}"
    for reason, count in reasons.items():
        yield f"{count} runs: {reason}"


def _labelled(state: RunState, text: str) -> str:
    return f"{state:{_STATE_WIDTH}} {text}"
