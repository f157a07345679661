"""Stopping early: on a signal of a scheduler or a person, or after the parent process has died."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

PARENT_POLL_S = 2.0  # seconds between checks that the parent process lives


@contextlib.contextmanager
def stop_on_signal(*signals: signal.Signals) -> Iterator[threading.Event]:
    """Yield an event that any of `signals` sets; by default SIGTERM, a scheduler's warning.

    Python delivers signals to the main thread alone: in another thread nothing sets the event.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {}
    for number in signals or (signal.SIGTERM,):
        previous[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def exit_with_parent(parent: int) -> None:
    """Send this process SIGTERM once its parent has died; a background thread checks."""

    def watch() -> None:
        """Wait for the parent's end, then stop this process."""
        # An orphan gets another parent, so the id changes.
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
