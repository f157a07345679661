"""What is checked of a copy of TFDS's before it is opened, and what its errors become."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from san.errors import DataError, SanError
from san.runtime.files import check_regular, parse_json, read_json

FEATURES = "features.json"
OWN_CLASSES = "tensorflow_datasets."
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
REASON_LENGTH = 300  # characters of TFDS's own message


def check_copy(folder: Path) -> None:
    """Raise DataError where opening a copy may hang, or run code that is not TFDS's.

    TFDS imports the module of every class that features.json names.
    """
    with naming_copy_errors(folder):
        for path in folder.iterdir():
            if not path.is_dir():
                check_regular(path)
        classes = _named_classes(read_json(folder / FEATURES))
        strangers = [name for name in classes if not name.startswith(OWN_CLASSES)]
    if strangers:
        raise DataError(
            f"{folder / FEATURES} names the class {strangers[0][:100]}, whose module TFDS would "
            f"import; those of {OWN_CLASSES}* are allowed. The copy is damaged or hostile."
        )


def _named_classes(features: Any) -> Iterator[str]:
    """Yield the names of classes in a features.json, and in the JSON in its texts."""
    pending = [features]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        if not isinstance(value, dict):
            continue
        for key, entry in value.items():
            if key in CLASS_KEYS and isinstance(entry, str):
                yield entry
            elif key == "json" and isinstance(entry, str):
                pending.append(parse_json(entry))
            else:
                pending.append(entry)


@contextlib.contextmanager
def naming_copy_errors(folder: Path | str) -> Iterator[None]:
    """Turn whatever TFDS raises at a damaged copy into a DataError that names its folder."""
    try:
        yield
    except (DataError, ImportError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = lines[0][:REASON_LENGTH].rstrip(".")
        kind = "" if isinstance(error, SanError) else f"{type(error).__name__}: "
        raise DataError(
            f"{folder} cannot be read as a copy of TFDS's ({kind}{reason}). "
            "Build or fetch it again."
        ) from error
