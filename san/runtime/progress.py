"""How far a run is: a bar on a terminal, a line now and then in a file or a CI log."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

LOG_EVERY_S = 15.0  # seconds between lines where there is no terminal


class Progress:
    """Show steps done, time left, loss; `stream` is where (standard error by default)."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.title = title
        self.stream = stream or sys.stderr
        self.begin = self.spoke = time.monotonic()
        self.bar = (
            tqdm(desc=title, unit="step", file=self.stream, leave=False)
            if self.stream.isatty()
            else None
        )

    def step(self, done: int, steps: int, loss: float, lr: float) -> None:
        """Report a step; the shape is what `loop.fit` calls."""
        if self.bar is not None:
            self.bar.total = steps
            self.bar.set_postfix(loss=f"{loss:.3f}", lr=f"{lr:.1e}", refresh=False)
            self.bar.update(done - self.bar.n)
        elif (now := time.monotonic()) - self.spoke >= LOG_EVERY_S:
            self.spoke = now
            left = (now - self.begin) / done * (steps - done)
            print(
                f"{self.title}: step {done}/{steps}, loss {loss:.3f}, {left:.0f} s left",
                file=self.stream,
                flush=True,
            )

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
