"""The progress of a run: a bar on a terminal, now and then a line in a file or CI log."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

LOG_EVERY_S = 15.0  # seconds between lines where there is no terminal


class Progress:
    """Shows steps, time left and loss on `stream` (standard error by default)."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.title = title
        self.stream = stream or sys.stderr
        self._started = time.monotonic()
        self._last_line = self._started
        self._bar = None
        if self.stream.isatty():
            self._bar = tqdm(desc=title, unit="step", file=self.stream, leave=False)

    def step(self, done: int, steps: int, loss: float, lr: float) -> None:
        """Report that `done` of `steps` optimizer steps are done."""
        if self._bar is not None:
            self._bar.total = steps
            self._bar.set_postfix(loss=f"{loss:.3f}", lr=f"{lr:.1e}", refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line < LOG_EVERY_S:
            return
        self._last_line = now
        seconds_per_step = (now - self._started) / done
        left = seconds_per_step * (steps - done)
        line = f"{self.title}: step {done}/{steps}, loss {loss:.3f}, {left:.0f} s left"
        print(line, file=self.stream, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
