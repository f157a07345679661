"""A figure as files: PDF for LaTeX, PNG for everything else."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from san.errors import FileAccessError
from san.report.figures.page import Drawing, paper_style
from san.runtime.files import atomic_write


@paper_style()
def save_drawing(
    drawing: Drawing,
    directory: Path,
    name: str,
    formats: Sequence[str] = ("pdf", "png"),
) -> list[Path]:
    """Write `<name>.pdf` and `<name>.png`, or one of them, and return their paths.

    The same figure gives the same bytes, as no date is written. Raises FileAccessError where one
    of the files cannot be written; then neither is replaced.
    """
    paths = [directory / f"{name}.{each}" for each in formats]
    try:
        # All are on the disk before the stack ends and the first one is replaced.
        with contextlib.ExitStack() as stack:
            for path, each in zip(paths, formats, strict=True):
                unfinished = stack.enter_context(atomic_write(path))
                metadata = {"CreationDate": None} if each == "pdf" else {}
                drawing.figure.savefig(unfinished, format=each, metadata=metadata)
    except OSError as error:
        raise FileAccessError(
            f"The figure cannot be written: {error} Those that were there are unchanged."
        ) from error
    return paths
