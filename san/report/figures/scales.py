"""SAN's learned scales by layer: how far each site's channels were turned up or down."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from san.errors import InvalidValueError
from san.report.figures.page import (
    Drawing,
    SeriesStyle,
    Width,
    add_legend,
    check_finite,
    freeze_layout,
    new_figure,
    paper_style,
    series_styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHTS = {Width.ONE_COLUMN: 2.2, Width.TWO_COLUMNS: 2.4}
_BAND = (5, 95)  # percent of the channels
_TICK_ROOM = 16.0  # points that the number of a block takes
_THICKEST = 2.4  # points
_AXES = 0.85  # part of a figure's width that the axes take
_BLOCK = re.compile(r"^(?P<block>.*?\bblocks\.\d+)\.(?P<part>.+)$")
_OUTSIDE = "outside of blocks"


@dataclass(frozen=True, eq=False)
class SiteScales:
    """The learned scales of a site `(channels,)`; its name is that of the module."""

    site: str
    scales: npt.NDArray[np.floating]

    @property
    def block(self) -> str | None:
        """The block that it belongs to, None for those between blocks."""
        found = _BLOCK.match(self.site)
        return found["block"] if found else None

    @property
    def kind(self) -> str:
        """What it is in every block: `qkv`, `fc1`."""
        found = _BLOCK.match(self.site)
        return found["part"].rpartition(".")[-1] if found else _OUTSIDE


@paper_style()
def draw_scales(
    sites: Sequence[SiteScales],
    width: Width = Width.ONE_COLUMN,
    notes: Sequence[str] = (),
) -> Drawing | None:
    """Draw the sites in their order; None where there are none.

    A dot is the mean over the channels, a thick line holds 90 % of them, a thin one all. Raises
    InvalidValueError on a site without channels, or a scale that is not finite.
    """
    _check(sites)
    if not sites:
        return None
    kinds = list(dict.fromkeys(site.kind for site in sites))
    styles = dict(zip(kinds, series_styles(len(kinds)), strict=True))
    figure = new_figure(width, _HEIGHTS[width], notes, kinds)
    axes = figure.add_subplot()
    axes.axhline(1, color="0.4", linewidth=0.6, linestyle=(0, (4, 2)))
    thickness = min(_THICKEST, 0.7 * width.points * _AXES / len(sites))
    handles = {}
    for place, site in enumerate(sites):
        handles[site.kind] = _draw_site(axes, place, site.scales, styles[site.kind], thickness)
    _draw_blocks(axes, sites, width)
    axes.set_ylabel("scale")
    axes.grid(visible=True, axis="y")
    add_legend(figure, [handles[kind] for kind in kinds], kinds)
    freeze_layout(figure)
    caption = (
        f"Learned scales of {len(sites)} sites in the order of computation: mean (dot), 5 to 95 % "
        "(thick) and all (thin) of the channels. Within a block they stand as in the legend. "
        "Dashed: 1, where training starts."
    )
    return Drawing(figure, caption)


def _check(sites: Sequence[SiteScales]) -> None:
    """Raise InvalidValueError on a site without channels, or a scale that is not finite."""
    for site in sites:
        if site.scales.ndim != 1 or site.scales.size == 0:
            raise InvalidValueError(
                f"The scales of '{site.site}' came with shape {site.scales.shape}; "
                "(channels,) is allowed."
            )
        check_finite(site.scales.tolist(), f"A scale of '{site.site}'")


def _draw_site(
    axes: "Axes",
    place: int,
    scales: npt.NDArray[np.floating],
    style: SeriesStyle,
    thickness: float,
) -> Any:
    """Draw a site; return its thick line."""
    values = scales.astype(np.float64)
    low, high = np.percentile(values, _BAND)
    axes.vlines(place, values.min(), values.max(), color=style.color, linewidth=0.5)
    band = axes.vlines(place, low, high, color=style.color, linewidth=thickness)
    axes.plot(
        place,
        values.mean(),
        color="black",
        marker="o",
        markersize=min(2.2, thickness),
        markeredgecolor="white",
        markeredgewidth=0.5,
    )
    return band


def _draw_blocks(axes: "Axes", sites: Sequence[SiteScales], width: Width) -> None:
    """Write the number of each block below its first site, or of every n-th block."""
    first: dict[str, int] = {}
    for place, site in enumerate(sites):
        if site.block is not None:
            first.setdefault(site.block, place)
    starts = list(first.values())
    most = max(1, int(width.points * _AXES / _TICK_ROOM))
    step = -(-len(starts) // most) if starts else 1
    shown = starts[::step]
    axes.set_xticks(shown, [str(i * step) for i in range(len(shown))])
    for start in starts:
        axes.axvline(start - 0.5, color="0.9", linewidth=0.4, zorder=0)
    axes.set_xlim(-1, len(sites))
    axes.set_xlabel("block")
