"""Data: prepare -> pack -> batches. `load` is what a run calls."""

from pathlib import Path

from san.data import demo, pack
from san.data.pack import Split
from san.tasks import Suite, Task


def load(suite: Suite, task: Task, split: str, root: Path) -> Split:
    """Return a split of a task (`train`, `val`, `test`, or a sum such as `train+val`) from `root`.

    The demo suite is made on the spot where it is missing. Raises LookupError on an unknown split, ValueError where
    the packed data is not what it should be.
    """
    task.size(split)
    folder = root / suite.name / task.name
    demo.prepare(suite, task, folder)
    return pack.join([pack.read(folder / p, task.splits[p], len(task.classes)) for p in split.split("+")])
