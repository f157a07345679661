"""Numbers of bytes and seconds in the unit that fits."""

import pytest

from san.runtime.formatting import format_bytes, format_duration


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 kB"),
        (1_499, "1 kB"),
        (999_000, "999 kB"),
        (1_000_000, "1 MB"),
        (999_000_000, "999 MB"),
        (1_000_000_000, "1.0 GB"),
        (257_400_000_000, "257.4 GB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (36_000, "10.0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
