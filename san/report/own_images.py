"""The tasks of a table of users' own images: no file lists them, so they are those of records."""

from collections.abc import Sequence
from dataclasses import replace

from san.record import Record
from san.tasks import Suite, Task


def with_own_tasks(suite: Suite, records: Sequence[Record]) -> Suite:
    """Return a suite as it is, or that of own images with the tasks that have records, by name.

    A single task stands in its title.
    """
    if not suite.is_own_images:
        return suite
    own = sorted((r for r in records if r.suite == suite.name), key=lambda r: (r.task, r.created))
    found = suite.with_tasks(map(_task_of, own))
    if len(found.tasks) != 1:
        return found
    return replace(found, title=f"{suite.title}: {next(iter(found.tasks))}")


def _task_of(r: Record) -> Task:
    """Return the task of a run, as far as tables need to know it."""
    root = (r.config.get("data") or {}).get("root")
    return Task(
        suite=r.suite,
        name=r.task,
        label=r.task,
        group="own",
        classes=(),
        splits={},
        root=root if isinstance(root, str) else None,
    )
