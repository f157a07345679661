"""Tasks with a few images, for tests of how they are prepared."""

from dataclasses import dataclass, replace
from pathlib import Path

from san.data.layout import packed_dir
from san.data.packed_task import PackedTask
from san.data.prepare.pack_task import pack_splits
from san.data.prepare.sources import Source, find_source
from san.tasks import Suite, Task, load_suite

VTAB = load_suite("vtab")
FGVC = load_suite("fgvc")
GIC = load_suite("gic")
LISTS = {"train800": 8, "val200": 4, "test": 6}  # images in the lists of a vtab-1k folder
SIDE = 8  # pixels


@dataclass(frozen=True)
class SmallTask:
    """A task in a suite of its own, `small`, whose images need not show all classes."""

    suite: Suite
    task: Task

    def pack(self, path: Path, root: Path) -> PackedTask:
        """Pack the images at `path`."""
        self.pack_source(find_source(self.task, path), root)
        return self.open(root)

    def pack_source(self, source: Source, root: Path, force: bool = False) -> list[str]:
        """Pack the images of a source; return what was done."""
        return pack_splits(self.suite, self.task, source, root, "vtab", SIDE, force)

    def open(self, root: Path) -> PackedTask:
        return PackedTask.open(self.task, packed_dir(self.task, root, "vtab", SIDE))


def small(task: Task, **sizes: int) -> SmallTask:
    """The task with fewer images."""
    task = replace(task, suite="small", splits=sizes, covers_all_classes=False)
    suite = replace(VTAB, name="small", tasks={task.name: task})
    return SmallTask(suite, task)


DTD = small(VTAB.task("dtd"), train=8, val=4, test=6)
