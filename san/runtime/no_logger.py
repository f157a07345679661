"""The logger of runs that are not logged: `logger=none`, and all ranks but the first."""

from collections.abc import Mapping
from pathlib import Path


class NoLogger:
    """A `san.runtime.logger.Logger` that keeps nothing."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def finish(
        self,
        summary: Mapping[str, object],
        *,
        failed: bool = False,
        adapter: Path | None = None,
    ) -> None:
        """Do nothing."""
