"""Signals set an event instead of killing; orphans stop themselves."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from san.runtime.signals import stop_on_signal


@pytest.mark.parametrize("given", [(), (signal.SIGUSR1, signal.SIGUSR2)])
def test_signals_set_the_event_and_handlers_come_back(given: tuple[signal.Signals, ...]) -> None:
    expected = given or (signal.SIGTERM,)
    before = [signal.getsignal(number) for number in expected]
    for number in expected:
        with stop_on_signal(*given) as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), number)
            assert stop.wait(5)
    assert [signal.getsignal(number) for number in expected] == before


def test_another_thread_gets_an_event_that_nothing_sets() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[bool] = []

    def work() -> None:
        with stop_on_signal() as stop:
            seen.append(stop.is_set())
            seen.append(signal.getsignal(signal.SIGTERM) == before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, True]


def test_a_process_stops_after_its_parent_has_died() -> None:
    child = """
import os, time
from san.runtime import signals
signals.PARENT_POLL_S = 0.05
signals.exit_with_parent(os.getppid())
print(os.getpid(), flush=True)
time.sleep(60)
"""
    parent = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, text=True, check=True
    )
    orphan = int(done.stdout)
    deadline = time.monotonic() + 10
    while is_running(orphan) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(orphan)


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
