"""Panels as PNG, PDF or SVG, whose bytes depend on the panels only. matplotlib is imported by the first figure.

Marker and line style repeat what the colour says, for print in grey and for colour-blind readers.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorta.reporting.panels import Curve, Panel, Point
from lorta.reporting.styles import style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

FORMATS = ("png", "pdf", "svg")
NO_DATE: dict[str, dict[str, None]] = {  # a version or a date would change the bytes
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}
SETTINGS: Any = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "lorta",  # names of clip paths
    "pdf.fonttype": 42,  # TrueType: conferences refuse matplotlib's own, Type 3
    "ps.fonttype": 42,
}
PANEL_INCHES = (3.2, 2.6)
LEGEND_INCHES = 0.17  # a line
PANELS_ACROSS = 4
FILLS = ("full", "none", "left", "top")  # of the markers of one method's first, second, ... curve
FRONT = "Pareto front"

Band = tuple[str, Sequence[Panel]]  # the panels of one table under its title


def plot(bands: Sequence[Band], stem: Path, formats: Sequence[str] = ("png",)) -> None:
    """Write STEM.FORMAT with one band a table. Bars are 95 % intervals; a line across has no size."""
    from matplotlib import rc_context

    with rc_context(SETTINGS):
        figure = draw(bands)
        stem.parent.mkdir(parents=True, exist_ok=True)
        for kind in formats:
            figure.savefig(stem.parent / f"{stem.name}.{kind}", dpi=150, metadata=NO_DATE[kind])


def draw(bands: Sequence[Band]) -> "Figure":
    """Return the figure of all bands."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    down = [math.ceil(len(panels) / PANELS_ACROSS) for _, panels in bands]
    across = min(PANELS_ACROSS, max(len(panels) for _, panels in bands))
    heights = [
        (PANEL_INCHES[1] + 0.4) * rows + 0.5 + LEGEND_INCHES * math.ceil(len(names) / _legend_columns(names, across))
        for rows, names in zip(down, (_names(panels) for _, panels in bands), strict=True)
    ]
    figure = Figure(figsize=(PANEL_INCHES[0] * across, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(bands), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, band, rows in zip(parts, bands, down, strict=True):
        _draw_band(part, band, (rows, across))
    return figure


def _names(panels: Sequence[Panel]) -> set[str]:
    return {FRONT} | {curve.name for panel in panels for curve in panel.curves}


def _legend_columns(names: Iterable[str], across: int) -> int:
    """Return how many columns of these names fit below the panels."""
    width = 0.065 * max(map(len, names)) + 0.6  # inches of letters, and of a line before them
    return max(1, min(6, int(PANEL_INCHES[0] * across / width)))


def _draw_band(part: "SubFigure", band: Band, shape: tuple[int, int]) -> None:
    title, panels = band
    axes = part.subplots(*shape, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=False):
        handles |= _draw_panel(axis, panel)
    for axis in axes[len(panels) :]:
        axis.remove()
    part.suptitle(title, fontsize=9, wrap=True)
    ordered = dict(sorted(handles.items()))
    columns = _legend_columns(ordered, shape[1])
    part.legend(ordered.values(), ordered.keys(), loc="outside lower center", ncols=columns, frameon=False)


def _draw_panel(axis: "Axes", panel: Panel) -> dict[str, Any]:
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    axis.set_xscale("log" if panel.log_x else "linear")
    handles: dict[str, Any] = {}
    if len(panel.front) > 1:
        xs, ys = [point.x for point in panel.front], [point.y for point in panel.front]
        handles[FRONT] = axis.plot(xs, ys, color="0.8", linewidth=4, drawstyle="steps-post", zorder=0)[0]
    for curve in panel.curves:
        drawn = _draw_line(axis, curve) if curve.across else _draw_curve(axis, curve)
        handles[curve.name] = drawn
    if panel.y_range:
        axis.set_ylim(panel.y_range)
    if panel.log_x:
        _label_logarithms(axis, small=panel.x_ends[0] < 1)
    return handles


def _label_logarithms(axis: "Axes", small: bool) -> None:
    """Label 1, 2 and 5 of a decade where few decades are shown, as 500, 1k, 2k; the default labels collide there.

    Within a decade, label round numbers instead, at least two; small numbers as they are, not as 4m.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    low, high = axis.get_xlim()
    decades = LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0))
    axis.xaxis.set_major_locator(decades if high > 10 * low else MaxNLocator(5))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}") if small else EngFormatter(sep=""))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _draw_line(axis: "Axes", curve: Curve) -> Any:
    style, (point,) = style_of(curve.method), curve.points
    if point.low is not None and point.high is not None:
        axis.axhspan(point.low, point.high, color=style.colour, alpha=0.12, linewidth=0)
    return axis.axhline(point.y, color=style.colour, linestyle=style.line[0], linewidth=1.2)


def _draw_curve(axis: "Axes", curve: Curve) -> Any:
    style = style_of(curve.method)
    return axis.errorbar(
        [point.x for point in curve.points],
        [point.y for point in curve.points],
        yerr=_bars(curve.points),
        color=style.colour,
        linestyle=style.line[0] if curve.joined else "none",
        linewidth=1.2,
        capsize=2,
        marker=style.marker[0],
        fillstyle=FILLS[curve.number % len(FILLS)],
        markerfacecoloralt="white",
        markersize=4,
    )


def _bars(points: Sequence[Point]) -> list[list[float]] | None:
    """Return what the bars reach below and above, not a number without an interval; None without any."""
    if all(point.low is None for point in points):
        return None
    below = [math.nan if point.low is None else point.y - point.low for point in points]
    above = [math.nan if point.high is None else point.high - point.y for point in points]
    return [below, above]
