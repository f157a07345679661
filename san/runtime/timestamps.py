"""Moments as records write them: ISO 8601 with an offset, such as `2026-11-27T12:09:37+00:00`."""

import datetime


def utc_now() -> str:
    """Return this moment, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def check_timestamp(text: str) -> None:
    """Raise ValueError unless a text is a moment with an offset."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text!r} is no moment; `2026-11-27T12:09:37+00:00` is one.")
