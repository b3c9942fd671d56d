"""Panels as PNG, PDF or SVG, whose bytes depend on the panels only. matplotlib is imported by the first figure.

Marker and line style repeat what the colour says, for print in grey and for colour-blind readers.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorta.reporting.plots.layout import kept_apart, side_by_side
from lorta.reporting.plots.panels import Curve, Panel, Point
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
}
PANEL_INCHES = (3.2, 2.6)
WIDTHS = {"screen": 4, "page": 2, "column": 1}  # what a figure is made for -> panels beside each other
INCHES = {"screen": 12.8, "page": 6.75, "column": 3.25}  # of their whole width; those of a page and a column of ICML
LINE_INCHES = 0.17  # of a legend or a note
FILLS = ("full", "none", "left", "top")  # of the markers of one method's first, second, ... curve
FRONT = "Pareto front"
MOST_NAMED = 12  # curves of a band in its legend; of more, each panel names its front and these methods
ALWAYS_NAMED = ("lora", "lorta")
GREY = "0.75"
SIDE_BY_SIDE = "Points of nearly equal size are side by side"
LONGER = "bars that leave a panel are longer"

Band = tuple[str, Sequence[Panel]]  # the panels of one table under its title


def plot(bands: Sequence[Band], stem: Path, formats: Sequence[str] = ("png",), width: str = "screen") -> None:
    """Write STEM.FORMAT with one band a table. Its last line says what bars are; a line across has no size.

    `width` is one of WIDTHS: texts have 8 points at the width of a screen, of a page or of one of two columns.
    """
    from matplotlib import rc_context

    with rc_context(SETTINGS):
        write(draw(bands, width), stem, formats)


def write(figure: "Figure", stem: Path, formats: Sequence[str]) -> None:
    """Write a figure in each format, with no date in it."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind in formats:
        figure.savefig(stem.parent / f"{stem.name}.{kind}", dpi=150, metadata=NO_DATE[kind])


def empty_figure(inches: tuple[float, float]) -> "Figure":
    """Return a figure, `inches` wide and high, that lays its parts out by itself and needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_panel(panel: Panel, inches: tuple[float, float]) -> "Figure":
    """Return the figure of one panel, `inches` wide and high, with its legend below it."""
    figure = empty_figure(inches)
    _draw_band(figure.subfigures(1, 1, squeeze=False)[0, 0], "", [panel], (1, 1), inches[0])
    return figure


def draw(bands: Sequence[Band], width: str = "screen") -> "Figure":
    """Return the figure of all bands."""
    across = min(WIDTHS[width], max(len(panels) for _, panels in bands))
    inches = INCHES[width] * across / WIDTHS[width]
    down = [math.ceil(len(panels) / across) for _, panels in bands]
    heights = [
        (PANEL_INCHES[1] + 0.4) * rows
        + 0.5
        + LINE_INCHES * (_legend_lines(panels, inches) + _note_lines(panels, inches))
        for rows, (_, panels) in zip(down, bands, strict=True)
    ]
    figure = empty_figure((inches, sum(heights)))
    parts = figure.subfigures(len(bands), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (title, panels), rows in zip(parts, bands, down, strict=True):
        _draw_band(part, title if width == "screen" or len(bands) > 1 else "", panels, (rows, across), inches)
    return figure


def _names(panels: Sequence[Panel]) -> list[str]:
    """Return the names of curves in order, each once."""
    return list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))


def _crowded(panels: Sequence[Panel]) -> bool:
    return len(_names(panels)) > MOST_NAMED


def _legend_columns(names: Iterable[str], inches: float) -> int:
    """Return how many columns of these names fit below the panels."""
    width = 0.065 * max(map(len, names), default=1) + 0.6  # inches of letters, and of a line before them
    return max(1, min(6, int(inches / width)))


def _legend_lines(panels: Sequence[Panel], inches: float) -> int:
    names = [FRONT] if _crowded(panels) else [FRONT, *_names(panels)]
    return math.ceil(len(names) / _legend_columns(names, inches))


def _notes(panels: Sequence[Panel]) -> str:
    """Return what a reader must know of the marks, in a sentence or two; empty where nothing needs it."""
    points = [(panel, point) for panel in panels for curve in panel.curves for point in curve.points]
    bars = [panel.bars for panel, point in points if panel.bars and point.low is not None]
    said = [f"Bars: {bars[0]}"] if bars else []
    if any((ends := panel.y_range) and _leaves(point, ends) for panel, point in points):
        said.append(LONGER)
    notes = ["; ".join(said)] if said else []
    if any(panel.size for panel in panels) and not _crowded(panels):
        notes.append(SIDE_BY_SIDE)
    if _crowded(panels):
        notes.append("Named: the Pareto front, LoRA, LoRTA and lines across; all others are grey")
    return f"{'. '.join(notes)}." if notes else ""


def _leaves(point: Point, ends: tuple[float, float]) -> bool:
    return (point.low is not None and point.low < ends[0]) or (point.high is not None and point.high > ends[1])


def wrapped(text: str, inches: float) -> list[str]:
    """Return the lines of a text below a figure of that width."""
    return textwrap.wrap(text, int(inches / 0.062))


def _wrapped_notes(panels: Sequence[Panel], inches: float) -> list[str]:
    return wrapped(_notes(panels), inches)


def _note_lines(panels: Sequence[Panel], inches: float) -> int:
    return len(_wrapped_notes(panels, inches))


def _draw_band(part: "SubFigure", title: str, panels: Sequence[Panel], shape: tuple[int, int], inches: float) -> None:
    axes = part.subplots(*shape, squeeze=False).ravel()
    crowded = _crowded(panels)
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=False):
        drawn = _draw_panel(axis, panel, crowded)
        handles |= {name: handle for name, handle in drawn.items() if name not in handles}
    for axis in axes[len(panels) :]:
        axis.remove()
    if title:
        part.suptitle(title, fontsize=9, wrap=True)
    named = [name for name in [*_names(panels), FRONT] if name in handles and (name == FRONT or not crowded)]
    notes = "\n".join(_wrapped_notes(panels, inches))
    if named or notes:
        part.legend(
            [handles[name] for name in named],
            named,
            title=notes,
            title_fontsize=7,
            loc="outside lower center",
            ncols=_legend_columns(named, inches),
            frameon=False,
        )


def _draw_panel(axis: "Axes", panel: Panel, crowded: bool) -> dict[str, Any]:
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    axis.set_xscale("log" if panel.log_x else "linear")
    low, high = panel.x_ends
    if low == high:  # matplotlib finds no ends for one place on an axis of logarithms
        axis.set_xlim((low / 2, 2 * high) if panel.log_x else (low - 1, high + 1))
    handles: dict[str, Any] = {}
    if len(panel.front) > 1:
        xs, ys = [point.x for point in panel.front], [point.y for point in panel.front]
        handles[FRONT] = axis.plot(xs, ys, color="0.8", linewidth=4, drawstyle="steps-post", zorder=0)[0]
    named = [curve for curve in panel.curves if not crowded or _is_named(curve, panel)]
    places = _places(panel) if panel.size and not crowded else {}
    for curve in panel.curves:
        if curve not in named:
            _draw_grey(axis, curve)
        elif curve.across:
            handles[curve.name] = _draw_line(axis, curve)
        else:
            handles[curve.name] = _draw_curve(axis, curve, places.get(curve.name))
    if panel.y_range:
        axis.set_ylim(panel.y_range)
    if panel.log_x:
        label_logarithms(axis, small=panel.x_ends[0] < 1)
    if crowded:
        _label_curves(axis, named)
    return handles


def _is_named(curve: Curve, panel: Panel) -> bool:
    return curve.across or curve.method in ALWAYS_NAMED or any(point in panel.front for point in curve.points)


def _places(panel: Panel) -> dict[str, list[float]]:
    """Return where the points of each curve are drawn, by its name."""
    curves = [curve for curve in panel.curves if not curve.across]
    places = iter(side_by_side([point.x for curve in curves for point in curve.points], panel.log_x))
    return {curve.name: [next(places) for _ in curve.points] for curve in curves}


def _label_curves(axis: "Axes", curves: Sequence[Curve]) -> None:
    """Write each curve's name beside its last point, each on a height of its own."""
    low, high = axis.get_ylim()
    left, right = axis.transAxes.inverted(), axis.transData
    ends = [curve.points[-1] for curve in curves]
    heights = kept_apart(
        [point.y for point in ends], (high - low) / 22, low + (high - low) / 40, high - (high - low) / 30
    )
    for curve, point, height in zip(curves, ends, heights, strict=True):
        place = 0.02 if curve.across else float(left.transform(right.transform((point.x, point.y)))[0])
        beyond = place > 0.6
        axis.annotate(
            curve.name,
            (0.0 if curve.across else point.x, point.y),
            xycoords=axis.get_yaxis_transform() if curve.across else "data",
            xytext=(place + (-0.03 if beyond else 0.03), height),
            textcoords=axis.get_yaxis_transform(),
            ha="right" if beyond else "left",
            va="center",
            fontsize=6,
            color=style_of(curve.method).colour,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2},
        )


def label_logarithms(axis: "Axes", small: bool) -> None:
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


def _draw_grey(axis: "Axes", curve: Curve) -> None:
    """Draw a curve that is not named: its marker, and no interval."""
    xs, ys = [point.x for point in curve.points], [point.y for point in curve.points]
    marker = style_of(curve.method).marker[0]
    axis.plot(xs, ys, color=GREY, linewidth=0.6 if curve.joined else 0, marker=marker, markersize=3, zorder=1)


def _draw_curve(axis: "Axes", curve: Curve, places: Sequence[float] | None) -> Any:
    style = style_of(curve.method)
    return axis.errorbar(
        places or [point.x for point in curve.points],
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
