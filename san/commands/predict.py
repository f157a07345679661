"""Answer for images with a saved adapter: file, class and probability as CSV.

python scripts/predict.py ADAPTER.safetensors photo.jpg more_photos/
python scripts/predict.py ADAPTER.safetensors photos/ --top 5 --output answers.csv
python scripts/predict.py ADAPTER.safetensors test/ --output answers.csv     # of test/CLASS/*.jpg
python scripts/predict.py ADAPTER.safetensors photos/ --labels labels.csv    # columns file, class

A run with save_adapter=true writes the adapter beside its record. Where the folder has a folder for
each class, or --labels names them, the accuracy of each class is said, and with --output FILE.csv
there are FILE_classes.csv, FILE_confusion.csv and FILE_confusion.png. Answers that are there are
replaced; a name that does not end in .csv, or is read as well, is refused. An image that cannot be
read is named on the standard error, the others are answered for, and the exit code is 1.
"""

import argparse
import sys
from pathlib import Path

from san.installation import localize_commands


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or a list of words."""
    parser = argparse.ArgumentParser(
        description=localize_commands(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("adapter", type=Path, metavar="ADAPTER", help="a file that save_adapter=true wrote")
    add("images", type=Path, nargs="+", metavar="IMAGES", help="image files and folders")
    add("--top", type=int, default=1, help="classes for each image (default: 1)")
    add("--output", type=Path, metavar="FILE", help="the CSV (default: -, the standard output)")
    add("--labels", type=Path, metavar="FILE", help="a CSV with the columns file and class")
    add("--weights", metavar="FILE", help="the backbone's (default: those the adapter names)")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--batch-size", type=int, default=64, help="images at a time (default: 64)")
    return parser.parse_intermixed_args(words)


def main() -> None:
    """Parse arguments and do what they ask for."""
    args = parse_arguments()
    # Torch takes seconds; --help needs none of it.
    from san.predict.program import PredictRequest, predict_files  # noqa: PLC0415

    is_complete = predict_files(PredictRequest(**vars(args)))
    sys.exit(0 if is_complete else 1)
