"""Told to stop: by a scheduler, by a person, or because the process that started this one is gone."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

PARENT_POLL_S = 2.0  # seconds between looks at whether the parent process lives


@contextlib.contextmanager
def stop_on_signal(*numbers: signal.Signals) -> Iterator[threading.Event]:
    """Yield an event that SIGTERM (a scheduler's warning), or each of `numbers`, sets.

    Signals reach the main thread alone; in another nothing sets it.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in numbers or (signal.SIGTERM,)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_with_parent(parent: int) -> None:
    """Tell this process to stop when its parent is gone; a thread looks."""

    def watch() -> None:
        """Look now and then."""
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
