"""Bytes, seconds and texts of others as people read them."""


def printable(text: str) -> str:
    """Return a text of somebody else's as a terminal may show it: its control characters escaped.

    Lines stay lines.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def printable_line(text: str) -> str:
    """Return a text of somebody else's as one line that a terminal, and a record, may hold."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def first_line_of_error(trace: str) -> str:
    """Return the line of a recorded trace that says what went wrong.

    It stands below the last frame; a message of several lines goes on behind it.
    """
    lines = trace.strip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    below = lines[frames[-1] + 1 :] if frames else lines
    said = [line for line in below if line.strip() and not line.startswith(" ")]
    return said[0] if said else "no reason recorded"


def count_of(number: int, noun: str) -> str:
    """Return how many there are: `1 run`, `2 runs`.

    noun: one that takes an s.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_bytes(count: float) -> str:
    """Return a number of bytes in decimal units: `3 kB`, `12 MB`, `1.5 GB`."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    if count < 1e9:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:.1f} GB"


def format_duration(seconds: float) -> str:
    """Return a time in the unit that fits: `42 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def quote_formula(cell: object) -> object:
    """Return a cell that no spreadsheet runs: a text that begins like a formula gets a quote.

    Names of tasks, methods, classes and files may come from somebody else.
    """
    if not isinstance(cell, str) or not cell.lstrip().startswith(("=", "+", "-", "@")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a signed number
