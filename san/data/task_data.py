"""Data: prepare -> pack -> prove -> batches. `load` is what a run calls."""

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

from san.data import verify
from san.data.layout import packed_bytes, packed_dir
from san.data.pack import ids_digest
from san.data.prepare import demo
from san.data.prepare.pack_task import pack_splits
from san.data.prepare.sources import Source, folders
from san.data.prepare.sources.files import other_files
from san.data.split import Split, join_splits
from san.errors import NotPreparedError
from san.tasks import Suite, Task

CUSTOM = "folder"
log = logging.getLogger(__name__)


@cache
def folder_source(root: str) -> Source:
    """Look through a user's folder, once in a process."""
    path = Path(root).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(
            f"data.root is '{root}', which is no folder. Give data.root=FOLDER with FOLDER/CLASS/*.jpg."
        )
    source = folders.own_folder(path)
    sizes = ", ".join(f"{part} {source.count(part)}" for part in source.parts)
    log.info(
        "%s: %d classes (%s ...); images: %s",
        path,
        len(source.names or ()),
        ", ".join((source.names or ())[:5]),
        sizes,
    )
    if others := other_files(path):
        log.warning(
            "%s: left out, as they are no images that are read: %s",
            path,
            dict(sorted(others.items())),
        )
    return source


def folder_suite(root: str) -> Suite:
    """Return a suite of one task, a user's folder of images: `train/CLASS/` with `val/` and `test/`, or `CLASS/` alone.

    Raises ValueError that says what is allowed where the folder is neither.
    """
    source, path = folder_source(root), Path(root).expanduser().resolve()
    sizes = {part: source.count(part) for part in source.parts}
    name = f"{path.name}-{ids_digest([str(path)])[:6]}"  # two folders may have the same last name
    task = Task(
        CUSTOM, name, path.name, "own", tuple(source.names or ()), sizes, "encoded", root=root
    )
    return Suite(CUSTOM, "Own images", "", "", "", "", 0, (), (), {name: task})


def load_split(
    suite: Suite,
    task: Task,
    split: str,
    root: Path,
    resize: str,
    image_size: int,
    force: bool = False,
) -> Split:
    """Return a split of a task (`train`, `val`, `test`, or a sum such as `train+val`) from `root`.

    resize, image_size: what the run will ask for; a task that is packed at another resize or image_size is not used.
    force: take data that is not the benchmark's; `problems` of the split then says what is wrong.
    The demo suite and a user's folder are packed on the spot. Raises LookupError on an unknown split, NotPreparedError
    that says what to run where the task is not prepared, ValueError where the packed data is not what it should be.
    """
    task.parts(split)
    home = packed_dir(task, root, resize, image_size)
    if suite.name == "demo":
        demo.pack_demo(suite, task, home)
    if suite.name == CUSTOM:
        source = folder_source(task.root)
        pack_splits(
            suite,
            task,
            source,
            root,
            resize,
            image_size,
            force=False,
            progress=lambda examples, *_: examples,
        )
    if not home.is_dir():
        raise NotPreparedError(
            not_prepared(task, root, resize, image_size), packed_bytes(task, image_size)
        )
    verify.check_single_source(task, home)
    found = join_splits(
        [verify.load_part(task, home, part) for part in verify.parts_of(task, home, split)]
    )
    member = verify.membership(task, home)
    problems = (*found.problems, *([f"{home}: {member.text}"] if member.good is False else []))
    if problems and not force:
        raise ValueError(
            "; ".join(problems)
            + ". Prepare it again from the right source; force_data=true trains nevertheless, and "
            "the record and tables say so."
        )
    return replace(found, problems=problems)


def not_prepared(task: Task, root: Path, resize: str, image_size: int) -> str:
    """Say how to get a task's data."""
    name = f"{task.suite}/{task.name}"
    home = root / task.suite / task.name
    others = (
        sorted(p.name for p in home.iterdir() if not p.name.startswith("."))
        if home.is_dir()
        else []
    )
    if others:
        wanted = f"--resize {resize} --side {image_size}"
        return (
            f"{name} is packed as {', '.join(others)} in {home}, but this run takes resize {resize} at {image_size} px. Run\n"
            f"    python scripts/prepare.py {name} {wanted}\nor give data.resize=..., or another backbone."
        )
    size = packed_bytes(task, image_size)
    packed = "the images' own size" if size is None else f"{size / 1e9:.2g} GB"
    fetched = task.download_gb
    fetch = (
        f"downloads {fetched} GB with TFDS"
        if fetched
        else f"needs files that you have to get: {task.how_to_get}"
    )
    return (
        f"{name} is not prepared below {root}. Either\n"
        f"    make prepare-{task.suite} TASKS={task.name}\n"
        f"which {fetch} (and takes {packed} packed), or, if you have its images (the layouts: --help),\n"
        f"    python scripts/prepare.py {name} --from FOLDER_OR_ZIP\n"
        f"Meanwhile, offline and at once: python train.py data=demo/digits"
    )
