"""Panels for plotly.js: the same curves, colours, markers and lines as in the figures, with values on hover.

plotly reads texts as markup, with links and styles, so what records say is escaped.
"""

import ast
import re
from html import escape
from typing import Any

from lorta.reporting.plots.figures import FRONT
from lorta.reporting.plots.panels import Curve, Panel, Point
from lorta.reporting.styles import style_of
from lorta.system.terminal import counted

FILLS = ("", "-open", "-dot", "-open-dot")  # of the markers of one method's first, second, ... curve
GREY = "#c8c8c8"


def library() -> str:
    """Return plotly.js, which a page holds once."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def library_styles() -> list[str]:
    """Return the style sheets that plotly.js adds to a page when it is loaded (those of its maps)."""
    literals = re.findall(r"\.textContent=('(?:[^'\\]|\\.)*')", library())
    return [ast.literal_eval(literal) for literal in literals]


def figure(panel: Panel) -> dict[str, Any]:
    """Return a panel as plotly's data and layout, plain values. Raises ValueError for what plotly.js would refuse."""
    from plotly.graph_objects import Figure

    traces = [_front(panel)] if len(panel.front) > 1 else []
    traces += [_across(curve, panel.x_ends) if curve.across else _curve(curve) for curve in panel.curves]
    return Figure({"data": traces, "layout": _layout(panel)}, skip_invalid=False).to_plotly_json()


def axes(panel: Panel) -> str:
    """Return what the axes are, in words."""
    return f"{panel.y_label}, over {panel.x_label}"


def summary(panel: Panel) -> str:
    """Return what the plot says in words, for those who do not see it."""
    said = f"{axes(panel)[0].upper()}{axes(panel)[1:]}; {counted(len(panel.curves), 'curve')}."
    if not panel.front:
        return said
    return f"{said} Pareto front: {'; '.join(f'{point.text} at {point.x:,.6g}' for point in panel.front)}."


def _curve(curve: Curve) -> dict[str, Any]:
    style = style_of(curve.method)
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": escape(curve.name, quote=False),
        "mode": "lines+markers" if curve.joined else "markers",
        "x": [point.x for point in curve.points],
        "y": [_short(point.y) for point in curve.points],
        "line": {"color": style.colour, "dash": style.line[1], "width": 1.5},
        "marker": {"symbol": style.marker[1] + FILLS[curve.number % len(FILLS)], "size": 8},
    }
    if any(point.text for point in curve.points):
        trace |= {
            "text": [escape(point.text, quote=False) for point in curve.points],
            "hovertemplate": "%{text}<br>%{x}<extra></extra>",
        }
    if any(point.low is not None for point in curve.points):
        trace["error_y"] = _bars(curve.points)
    return trace


def _bars(points: tuple[Point, ...]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if point.high is None else _short(point.high - point.y) for point in points],
        "arrayminus": [0 if point.low is None else _short(point.y - point.low) for point in points],
        "thickness": 1,
        "width": 3,
    }


def _across(curve: Curve, span: tuple[float, float]) -> dict[str, Any]:
    style, (point,) = style_of(curve.method), curve.points
    return {
        "type": "scatter",
        "name": escape(curve.name, quote=False),
        "mode": "lines",
        "x": list(span),
        "y": [_short(point.y)] * 2,
        "text": [escape(point.text, quote=False)] * 2,
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": style.colour, "dash": style.line[1], "width": 1.5},
    }


def _front(panel: Panel) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": FRONT,
        "mode": "lines",
        "x": [point.x for point in panel.front],
        "y": [_short(point.y) for point in panel.front],
        "hoverinfo": "skip",
        "line": {"color": GREY, "width": 7, "shape": "hv"},
    }


def _layout(panel: Panel) -> dict[str, Any]:
    x: dict[str, Any] = {"title": {"text": escape(panel.x_label, quote=False)}, "gridcolor": "#e4e4e4"}
    low, high = panel.x_ends
    x |= {"type": "log", "tickformat": "~g" if low < 1 else "~s"} if panel.log_x else {"type": "linear"}
    if panel.log_x and high > 100 * low:
        x["dtick"] = 1  # decades only: more labels collide on a phone
    elif panel.log_x and (high > 4 * low or high == low):  # of one place, plotly shows a decade to each side
        x["dtick"] = "D2"  # 1, 2, 5: 80k, 90k and 100k collide
    layout: dict[str, Any] = {
        "template": "none",
        "font": {"size": 12, "color": "#1b1b1b"},
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "hovermode": "closest",
        "xaxis": x,
        "yaxis": {"title": {"text": escape(panel.y_label, quote=False)}, "gridcolor": "#e4e4e4", "zeroline": False},
        "legend": {"orientation": "h", "y": -0.25},
    }
    if panel.y_range:
        layout["yaxis"]["range"] = [_short(end) for end in panel.y_range]
    return layout


def _short(value: float) -> float:
    return float(f"{value:.6g}")
