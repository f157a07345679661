"""The vtab-1k folder that most papers share: lists and JPEG files, one folder a task.

    <task>/train800.txt, val200.txt, test.txt    lines `images/<split>/000001.jpg LABEL`

Layout: ZhangYuanhan-AI/NOAH e9c55f3, get_vtab1k.py; SSF, FacT, Convpass and PETL_Vision read it.
Its images were encoded a second time, as JPEG (PIL's quality 75), so pixels differ from TFDS's.
Labels and membership do not, but for caltech101.
"""

from san.data.prepare.sources.files import (
    FileList,
    ImageFile,
    Root,
    check_length,
    join,
    read_text,
    require_images,
)
from san.errors import DataError
from san.tasks import Task

LISTS = {
    "train": "train800.txt",
    "val": "val200.txt",
    "test": "test.txt",
}


def open_task(task: Task, root: Root) -> FileList | None:
    """Return the task's lists, if they are at `root` or in a folder of the task's name below it."""
    folder = _find_folder(task, root)
    if folder is None:
        return None
    files = {}
    for part, name in LISTS.items():
        files[part] = _read_list(task, folder, name)
    for part, images in files.items():
        require_images(folder, images, LISTS[part])
    return FileList(folder, "vtab-1k folder", files)


def _find_folder(task: Task, root: Root) -> Root | None:
    """Return the folder that has the list of training images."""
    names = ("", task.name, *task.aliases)
    for base in (root, root / "vtab-1k", root / "data" / "vtab-1k"):
        for name in names:
            folder = join(base, name)
            if (folder / LISTS["train"]).exists():
                return folder
    return None


def _read_list(task: Task, folder: Root, name: str) -> list[ImageFile]:
    """Read a list; raise DataError, which names the line that is not `PATH LABEL`."""
    images = []
    lines = read_text(task, folder, name).splitlines()
    check_length(task, folder, name, len(lines))
    for number, line in enumerate(lines, 1):
        words = line.strip().replace("\t", " ")
        if not words:
            continue
        path, _, label = words.rpartition(" ")
        if not path or not label.isdecimal() or len(label) > 9:
            raise DataError(
                f"{name} of {folder}, line {number}: '{line[:200]}'; allowed: PATH LABEL."
            )
        path = path.strip()
        images.append(ImageFile(path, path, int(label)))
    return images
