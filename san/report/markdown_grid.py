"""Texts in lines and columns, as a table of Markdown."""

from collections.abc import Sequence

import pandas as pd


def to_markdown(lines: Sequence[Sequence[str]], header: Sequence[str], left: int) -> str:
    """Return a Markdown table whose first columns, so many, are aligned to the left."""
    safe = [_without_bars(line) for line in lines]
    # Two rows may have one name; a frame does not mind.
    frame = pd.DataFrame(safe, columns=_without_bars(header))
    text = frame.to_markdown(
        index=False,
        disable_numparse=True,  # numbers are texts already
        colalign=["left"] * left + ["right"] * (len(header) - left),
    )
    return str(text)


def _without_bars(texts: Sequence[str]) -> list[str]:
    """Return texts that end no cell of Markdown."""
    return [text.replace("|", "\\|") for text in texts]
