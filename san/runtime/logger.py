"""What a run tells a logger: its curves as they grow, and what it came to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Logger(Protocol):
    """Keeps the curves of a run. It never fails a run: records do not depend on it.

    A resumed run logs all of its epochs again, from the first one on.
    """

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a point to each of the named curves. step: the epoch, which never decreases."""

    def finish(
        self,
        summary: Mapping[str, object],
        *,
        failed: bool = False,
        adapter: Path | None = None,
    ) -> None:
        """Close; call it once. adapter: a saved one to keep, where the logger keeps files."""
