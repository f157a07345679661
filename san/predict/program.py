"""What `scripts/predict.py` does: answers as CSV, and the scores where labels are there."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from torch import Tensor

from san.data.arrays import Pixels
from san.data.batches import prefetch
from san.errors import DataError, InvalidValueError, MissingPackageError
from san.predict.answer_files import AnswerFiles
from san.predict.confusion import Confusion, to_csv
from san.predict.image_files import FoundImages, ImagePath, find_images, with_labels
from san.predict.predictor import Predictor, load
from san.report.figures.confusion_matrix import draw_confusion_matrix
from san.report.figures.save import save_drawing
from san.runtime.files import atomic_write, write_text
from san.runtime.formatting import count_of, printable
from san.runtime.paths import expand_path


@dataclass(frozen=True)
class PredictRequest:
    """What to answer for, and where the answers go.

    labels: a CSV file with the columns `file` and `class`. output: a CSV file, which is replaced;
    None or `-`: the standard output. top: how many classes of each image.
    """

    adapter: Path
    images: Sequence[Path]
    labels: Path | None = None
    output: Path | None = None
    top: int = 1
    weights: str | None = None
    device: str = "auto"
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name in ("top", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidValueError(
                    f"{name} came as {getattr(self, name)}; allowed: 1 or more."
                )


@dataclass
class _Outcome:
    """What is known of the images that were tried so far.

    confusion: of those that have a label and an answer. failures: for each that could not be read,
    a sentence that names it.
    """

    confusion: Confusion
    failures: list[str] = field(default_factory=list)


def predict_files(request: PredictRequest) -> bool:
    """Write the answers, say what could not be read; return whether all could.

    A file that cannot be read is named, with the reason, and the others are answered for. Where
    labels are there, the accuracy of each class is said, and beside `output` the files
    `<output>_classes.csv`, `<output>_confusion.csv` and `.png` are written. Errors, before anything
    is answered, as of `AnswerFiles`, `load`, `find_images` and `with_labels`.
    """
    output = None
    if request.output not in (None, Path("-")):
        output = AnswerFiles.beside(request.output)
    predictor = load(expand_path(request.adapter), request.weights, request.device)
    found = find_images([expand_path(path) for path in request.images], predictor.classes)
    if request.labels is not None:
        found = with_labels(found, expand_path(request.labels), predictor.classes)
    if output is not None:
        output.refuse_inputs(_inputs(request, found))
    outcome = _Outcome(Confusion.empty(predictor.classes))
    with _opened(output) as file:
        for rows in _answer(predictor, found, request, outcome):
            file.write(to_csv(rows))
    _say_what_is_left_out(found, outcome)
    if outcome.confusion.counts.any():
        _report(outcome.confusion, output)
    return not outcome.failures


def _inputs(request: PredictRequest, found: FoundImages) -> dict[str, list[Path]]:
    """Return the files that are read, by what they are."""
    given = {
        "the adapter": request.adapter,
        "the file of labels": request.labels,
        "the file of weights": request.weights,
    }
    inputs = {}
    for kind, path in given.items():
        if path is not None:
            inputs[kind] = [expand_path(path)]
    return {**inputs, "an input image": [image.path for image in found.images]}


@contextlib.contextmanager
def _opened(output: AnswerFiles | None) -> Iterator[TextIO]:
    """Yield the file of the answers, which is there once all are, or the standard output."""
    if output is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with atomic_write(output.answers) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        yield file


def _answer(
    predictor: Predictor, found: FoundImages, request: PredictRequest, outcome: _Outcome
) -> Iterator[Sequence[Sequence[object]]]:
    """Yield the rows of the CSV, batch by batch, and note the scores and the failures."""
    has_labels = found.has_labels
    label_column = ["label"] if has_labels else []
    yield [["file", *label_column, "rank", "class", "probability"]]

    def read(batch: Sequence[ImagePath]) -> list[Pixels | DataError]:
        return [_try_pixels(predictor, image) for image in batch]

    size = request.batch_size
    batches = [found.images[i : i + size] for i in range(0, len(found.images), size)]
    for batch, decoded in zip(batches, prefetch(read, batches), strict=True):
        readable = []
        pixels = []
        for image, result in zip(batch, decoded, strict=True):
            if isinstance(result, DataError):
                outcome.failures.append(str(result))
            else:
                readable.append(image)
                pixels.append(result)
        if not readable:
            continue
        probabilities = predictor(predictor.normalize(pixels))
        rows: list[Sequence[object]] = []
        for image, own in zip(readable, probabilities, strict=True):
            outcome.confusion.note(image.label, int(own.argmax()))
            rows += _rows_of(image, own, predictor.classes, request.top, has_labels)
        yield rows


def _rows_of(
    image: ImagePath, probabilities: Tensor, classes: Sequence[str], top: int, has_labels: bool
) -> Iterator[Sequence[object]]:
    """Yield a row of the CSV for each of the `top` classes of an image."""
    label = "" if image.label is None else classes[image.label]
    # The first of two that are equal stands first, as in argmax.
    order = probabilities.argsort(descending=True, stable=True).tolist()
    for rank, answer in enumerate(order[:top], start=1):
        probability = f"{probabilities[answer].item():.6g}"
        known = [label] if has_labels else []
        yield [image.name, *known, rank, classes[answer], probability]


def _try_pixels(predictor: Predictor, image: ImagePath) -> Pixels | DataError:
    try:
        return predictor.pixels(image.path)
    except DataError as error:
        return error


def _say_what_is_left_out(found: FoundImages, outcome: _Outcome) -> None:
    """Name what has no answer, and what has no label where others have one."""
    if found.left_out:
        _say(f"Left out, not of a format that is read: {dict(sorted(found.left_out.items()))}")
    if found.has_labels and found.unlabelled:
        number = count_of(len(found.unlabelled), "image")
        _say(f"Without a label, and not scored: {number} (first {found.unlabelled[0].name})")
    for failure in outcome.failures:
        _say(failure)
    if outcome.failures:
        _say(f"{len(outcome.failures)} of {count_of(len(found.images), 'image')} have no answer.")


def _report(confusion: Confusion, output: AnswerFiles | None) -> None:
    """Print the scores; write them beside the answers, where these are in a file."""
    text = "\n".join(confusion.describe())
    if output is None:
        _say(f"{text}\n--output FILE writes the confusion matrix, too.")
        return
    write_text(confusion.classes_csv(), output.classes)
    write_text(confusion.matrix_csv(), output.matrix)
    sys.stdout.write(f"{printable(text)}\n")
    try:
        drawing = draw_confusion_matrix(confusion.classes, confusion.counts)
        save_drawing(drawing, output.picture.parent, output.picture.stem, formats=("png",))
    except MissingPackageError as error:
        _say(str(error))


def _say(text: str) -> None:
    """Tell the user, beside the answers."""
    sys.stderr.write(f"{printable(text)}\n")
