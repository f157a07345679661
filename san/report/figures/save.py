"""A figure as files: PDF for LaTeX, PNG for everything else."""

from pathlib import Path

from san.errors import FileAccessError
from san.report.figures.page import Drawing, paper_style
from san.runtime.files import atomic_write


@paper_style()
def save_drawing(drawing: Drawing, directory: Path, name: str) -> list[Path]:
    """Write `<name>.pdf` and `<name>.png`, and return their paths.

    The same figure gives the same bytes, as no date is written. Raises FileAccessError where one
    of the files cannot be written; then neither is replaced.
    """
    pdf = directory / f"{name}.pdf"
    png = directory / f"{name}.png"
    figure = drawing.figure
    try:
        with atomic_write(pdf) as unfinished_pdf, atomic_write(png) as unfinished_png:
            figure.savefig(unfinished_pdf, format="pdf", metadata={"CreationDate": None})
            figure.savefig(unfinished_png, format="png")
    except OSError as error:
        raise FileAccessError(
            f"The figure cannot be written: {error} Those that were there are unchanged."
        ) from error
    return [pdf, png]
