"""The vtab-1k folder that most papers share: lists and JPEG files, one folder a task.

    <task>/{train800,val200,train800val200,test}.txt    lines `images/<split>/000001.jpg LABEL`

Layout: ZhangYuanhan-AI/NOAH e9c55f3, get_vtab1k.py, read so by SSF, FacT, Convpass, PETL_Vision. Every image was saved
anew as JPEG there (PIL's quality 75), so pixels differ from TFDS's; labels and membership do not, but for caltech101.
"""

from san.data.prepare.sources.files import Listed, Root, require, text
from san.tasks import Task

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}


def open_task(task: Task, root: Root) -> Listed | None:
    """Return the task's lists at `root` or in a folder of the task's name below it, if they are there."""
    names = ("", task.name, *task.aliases)
    places = [
        p / name if name else p
        for p in (root, root / "vtab-1k", root / "data" / "vtab-1k")
        for name in names
    ]
    folder = next((p for p in places if (p / LISTS["train"]).is_file()), None)
    if folder is None:
        return None
    files = {part: lines(folder, name) for part, name in LISTS.items()}
    for part, rows in files.items():
        require(folder, (path for _, path, _ in rows), LISTS[part])
    return Listed(folder, "vtab-1k folder", files)


def lines(folder: Root, name: str) -> list[tuple[str, str, int]]:
    """Read a list; raise ValueError that names the line that is not `PATH LABEL`."""
    rows = []
    for number, line in enumerate(text(folder, name).splitlines(), 1):
        path, _, label = line.strip().replace("\t", " ").rpartition(" ")
        if line.strip() and (not path or not label.isdecimal()):
            raise ValueError(f"{name} of {folder}, line {number}: '{line}'; allowed: PATH LABEL.")
        if line.strip():
            rows.append((path.strip(), path.strip(), int(label)))
    return rows
