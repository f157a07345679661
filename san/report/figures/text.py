"""Texts of users in a figure: drawn as they are, on one line, in the room that there is."""

from functools import cache
from typing import TYPE_CHECKING

from san.runtime.formatting import printable

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties
    from matplotlib.ft2font import FT2Font

FONT_FAMILY = "DejaVu Sans"  # matplotlib brings it along
FONT_SIZE = 7.0  # points in print; the smallest that is read without effort
_ELLIPSIS = "…"


def drawable(label: str) -> str:
    """Return a text on one line, in which characters that the font lacks are escaped."""
    line = printable(" ".join(label.split()))
    return "".join(c if _font().get_char_index(ord(c)) else ascii(c)[1:-1] for c in line)


def text_width(label: str) -> float:
    """Return the width of a drawable text in points."""
    from matplotlib.textpath import text_to_path  # noqa: PLC0415  (an extra)

    width, _, _ = text_to_path.get_text_width_height_descent(label, _properties(), ismath=False)
    return float(width)


def shorten(label: str, width: float) -> str:
    """Return a drawable text of at most `width` points, its middle left out if need be."""
    full = drawable(label)
    shown = full
    kept = len(full)
    while text_width(shown) > width and kept > 0:
        # Never more than is too wide, so that the result is as long as it may be.
        kept = min(kept - 1, int(kept * width / text_width(shown)) + 1)
        head = (kept + 1) // 2
        shown = full[:head] + _ELLIPSIS + full[len(full) - (kept - head) :]
    return shown


def wrap(note: str, width: float) -> list[str]:
    """Return a text as drawable lines of at most `width` points."""
    lines = [""]
    for word in drawable(note).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer) > width:
            lines.append(shorten(word, width))
        else:
            lines[-1] = longer
    return [line for line in lines if line]


@cache
def _properties() -> "FontProperties":
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415  (an extra)

    return FontProperties(family=FONT_FAMILY, size=FONT_SIZE)


@cache
def _font() -> "FT2Font":
    from matplotlib import font_manager  # noqa: PLC0415  (an extra)

    return font_manager.get_font(font_manager.findfont(_properties()))
