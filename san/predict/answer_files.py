"""The files that answers go to, which may replace older answers and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from san.errors import FileAccessError, InvalidValueError
from san.runtime.paths import expand_path


@dataclass(frozen=True)
class AnswerFiles:
    """Where the answers are written, and beside them what they are worth.

    answers, classes, matrix: CSV files. picture: a PNG file, of the matrix.
    """

    answers: Path
    classes: Path
    matrix: Path
    picture: Path

    @classmethod
    def beside(cls, output: Path) -> "AnswerFiles":
        """Return `output` and `<output>_classes.csv` and so on, each where its link leads.

        Raises InvalidValueError on a name that ends otherwise, so that no photograph or weights are
        hit, FileAccessError where something is that is no regular file, or cannot be looked at.
        """
        output = expand_path(output)
        answers = _target(output, ".csv")
        classes = output.with_name(f"{output.stem}_classes.csv")
        matrix = output.with_name(f"{output.stem}_confusion.csv")
        picture = matrix.with_suffix(".png")
        return cls(
            answers,
            _target(classes, ".csv"),
            _target(matrix, ".csv"),
            _target(picture, ".png"),
        )

    def refuse_inputs(self, inputs: Mapping[str, Sequence[Path]]) -> None:
        """Raise InvalidValueError where one of the files is read, too.

        inputs: files by what they are, as `the adapter`.
        """
        written = {}
        for path in astuple(self):
            if path.exists():
                written[_identity(path)] = path
        if not written:
            return
        for kind, paths in inputs.items():
            for path in paths:
                found = written.get(_identity(path)) if path.exists() else None
                if found is not None:
                    raise InvalidValueError(
                        f"{found} would be replaced, and is {kind}. Give another --output FILE.csv."
                    )


def _target(path: Path, suffix: str) -> Path:
    """Return the file that a path means, whether or not it is there."""
    expand_path(path)
    if path.exists() and not path.is_file():
        raise FileAccessError(
            f"{path} is there and no regular file; answers are written to one that ends in "
            f"{suffix}. --output - is the standard output."
        )
    target = path.resolve()
    for each in (path, target):
        if each.suffix != suffix:
            raise InvalidValueError(
                f"{each} came as a file of answers; allowed: a name that ends in {suffix}, or - "
                "for the standard output."
            )
    return target


def _identity(path: Path) -> tuple[int, int]:
    """Return what two names of one file share, as in `os.path.samefile`."""
    found = path.stat()
    return (found.st_dev, found.st_ino)
