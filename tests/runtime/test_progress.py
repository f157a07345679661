"""Progress is a line now and then where there is no terminal."""

import io

import pytest

from san.runtime import progress
from san.runtime.progress import Progress


def test_a_file_gets_a_line_after_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    shown = Progress("digits san", stream)
    now = 100.0 + progress.LOG_EVERY_S / 2
    shown.step(5, 40, loss=2.0, lr=1e-3)
    assert stream.getvalue() == ""
    now = 100.0 + 20.0
    shown.step(10, 40, loss=1.5, lr=1e-3)
    now += 1
    shown.step(11, 40, loss=1.4, lr=1e-3)
    shown.close()
    assert stream.getvalue() == "digits san: step 10/40, loss 1.500, 60 s left\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    shown = Progress("digits san", stream)
    shown.step(10, 40, loss=1.5, lr=1e-3)
    shown.close()
    assert "digits san" in stream.getvalue()
