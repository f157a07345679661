"""What a run tells a logger: its curves as they grow, and what it came to."""

from collections.abc import Mapping
from pathlib import Path


class Logger:
    """Keeps the curves of a run. It never fails a run: records do not depend on it.

    This one keeps nothing: `logger=none`, and all ranks but the first. A resumed run logs all of
    its epochs again, from the first one on.
    """

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a point to each of the named curves. step: the epoch, which never decreases."""

    def keep_adapter(self, path: Path) -> None:
        """Keep a saved adapter, where the logger keeps files."""

    def finish(self, summary: Mapping[str, object], failed: bool = False) -> None:
        """Close; call it once, as the last."""
