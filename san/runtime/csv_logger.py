"""Curves of a run in a CSV file, without an account: a line for each epoch."""

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path

from san.errors import FileAccessError
from san.runtime.files import write_text
from san.runtime.logger import Logger

STEP = "epoch"  # the first column; the others are the names of the curves

log = logging.getLogger(__name__)


class CsvLogger(Logger):
    """Writes the curves to one file.

    The file is replaced as a whole at every point, so that it is never half written and holds what
    this process has logged: what an earlier one has left is not added to. A point that a curve does
    not have is an empty cell. The summary is not written: the record beside the file has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[int, dict[str, float]] = {}
        self._is_broken = False

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a point to each of the named curves; a file that cannot be written is a warning."""
        self._rows.setdefault(step, {}).update(metrics)
        try:
            write_text(self._text(), self._path)
        except FileAccessError as error:
            if not self._is_broken:
                log.warning("%s The run goes on without it.", error)
            self._is_broken = True

    def finish(self, summary: Mapping[str, object], failed: bool = False) -> None:
        """Say where the curves are."""
        if self._rows and not self._is_broken:
            log.info("Curves: %s", self._path)

    def _text(self) -> str:
        """Return the content of the file, with columns in the order in which curves began."""
        columns = [STEP]
        for row in self._rows.values():
            columns += [name for name in row if name not in columns]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for step, row in self._rows.items():
            writer.writerow({STEP: step, **row})
        return stream.getvalue()
