"""Score over adapter parameters, averaged and per task, as a PNG whose bytes depend on the records only.

matplotlib is imported by the first figure. Colours: Okabe and Ito 2008 (safe for colour-blind readers); the marker and
the line style repeat what the colour says, for print in grey.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lorta.harness.captions import title
from lorta.harness.summary import Cell, Row, Table, group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"
LINES = ("-", "--", "-.", ":")
PANEL_INCHES = (3.2, 2.6)
PANELS_ACROSS = 4


class Style(NamedTuple):
    """How one adapter is drawn in every panel."""

    colour: str
    marker: str
    line: str


def plot(tables: Sequence[Table], path: Path) -> None:
    """Write one PNG, one band per table. Bars: sample standard deviation over seeds; a line across: no parameters."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [_panels(table) for table in tables]
    heights = [math.ceil(len(of_table) / PANELS_ACROSS) for of_table in panels]
    across = min(PANELS_ACROSS, max(map(len, panels)))
    styles = _styles(sorted({row.adapter for table in tables for row in table.rows}))
    with rc_context({"font.size": 8, "font.family": "DejaVu Sans", "axes.grid": True, "grid.alpha": 0.3}):
        size = (PANEL_INCHES[0] * across, (PANEL_INCHES[1] + 0.4) * sum(heights) + 0.5 * len(tables))
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        bands = figure.subfigures(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
        for band, table, of_table, height in zip(bands, tables, panels, heights, strict=True):
            _draw_band(band, table, of_table, (height, across), styles)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Software": None})  # the version would change the bytes


def _panels(table: Table) -> list[str]:
    return ["average", *table.tasks] if len(table.tasks) > 1 else list(table.tasks)


def _styles(adapters: Sequence[str]) -> dict[str, Style]:
    return {
        name: Style(COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], LINES[number % len(LINES)])
        for number, name in enumerate(adapters)
    }


def _draw_band(
    band: "SubFigure", table: Table, panels: Sequence[str], shape: tuple[int, int], styles: Mapping[str, Style]
) -> None:
    axes = band.subplots(*shape, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=False):
        handles |= _draw_panel(axis, table, panel, styles)
    for axis in axes[len(panels) :]:
        axis.remove()
    band.suptitle(title(table), fontsize=9, wrap=True)
    band.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(6, 2 * shape[1]), frameon=False)


def _draw_panel(axis: "Axes", table: Table, panel: str, styles: Mapping[str, Style]) -> dict[str, Any]:
    metric = f" ({table.metrics[panel]})" if panel in table.metrics else ""
    axis.set_title(table.short(panel) + metric)
    axis.set_xscale("log")
    axis.set_xlabel("adapter parameters")
    axis.set_ylabel("score, points of 100" if table.higher_is_better else "score, lower is better")
    handles: dict[str, Any] = {}
    for (name, _), rows in group(table.rows, lambda row: (row.adapter, row.variant)).items():
        points = [(row, cell) for row in rows if (cell := _cell(row, panel)).mean is not None]
        flat = [(row, cell) for row, cell in points if row.adapter_parameters.high == 0]
        rising = [(row, cell) for row, cell in points if row.adapter_parameters.high > 0]
        for _, cell in flat:
            handles[f"{name} (0 parameters)"] = _draw_line(axis, cell, styles[name])
        if rising:
            handles[name] = _draw_curve(axis, rising, styles[name])
    _label_parameters(axis)
    return dict(sorted(handles.items()))


def _label_parameters(axis: "Axes") -> None:
    """Label 1, 2 and 5 of a decade where few decades are shown, as 500, 1k, 2k; the default labels collide there."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _cell(row: Row, panel: str) -> Cell:
    return row.cells.get(panel, row.average)


def _draw_line(axis: "Axes", cell: Cell, style: Style) -> Any:
    middle, spread = cell.mean or 0.0, cell.std or 0.0
    axis.axhspan(middle - spread, middle + spread, color=style.colour, alpha=0.12, linewidth=0)
    return axis.axhline(middle, color=style.colour, linestyle=style.line, linewidth=1.2)


def _draw_curve(axis: "Axes", points: Sequence[tuple[Row, Cell]], style: Style) -> Any:
    return axis.errorbar(
        [row.adapter_parameters.high for row, _ in points],
        [cell.mean or 0.0 for _, cell in points],
        yerr=[cell.std or 0.0 for _, cell in points],
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        linewidth=1.2,
        markersize=4,
        capsize=2,
    )
