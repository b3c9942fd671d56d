"""The figure of a study, to be read at a glance and in grey: the fill of a marker is the verdict.

matplotlib is imported by the first figure.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lorta.reporting.plots.figures import INCHES, SETTINGS, empty_figure, label_logarithms, wrapped, write
from lorta.reporting.plots.layout import kept_apart, side_by_side
from lorta.reporting.plots.study import StudyPanel, StudyPoint
from lorta.reporting.styles import family_place, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Fill(NamedTuple):
    """How a verdict fills a marker: matplotlib's name, and words."""

    style: Any
    words: str


FILLS = {
    "equivalent": Fill("full", "filled"),
    "better": Fill("full", "filled"),
    "undecided": Fill("left", "half filled"),
    "worse": Fill("none", "open"),
}
PANEL_INCHES = 3.4  # high
BAND = "0.88"
ROOM = 1.4  # beside the smallest and the largest size, for the words at their marks
WORDS = 0.12  # of the axis: two lines
PALE = 0.4  # opacity of methods without a question


def plot_study(
    panels: Sequence[StudyPanel], stem: Path, formats: Sequence[str] = ("png",), width: str = "page"
) -> None:
    """Write STEM.FORMAT, one panel below the other."""
    from matplotlib import rc_context

    with rc_context(SETTINGS):
        write(draw_study(panels, width), stem, formats)


def draw_study(panels: Sequence[StudyPanel], width: str = "page") -> "Figure":
    """Return the figure; `width` is one of figures.WIDTHS, and a screen shows a page."""
    inches = INCHES["page" if width == "screen" else width]
    figure = empty_figure((inches, PANEL_INCHES * len(panels) + 0.8))
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel)
    figure.supxlabel("\n".join(wrapped(_notes(panels), inches)), fontsize=7)
    return figure


def _notes(panels: Sequence[StudyPanel]) -> str:
    points = [point for panel in panels for point in panel.points]
    verdicts = [verdict for verdict in FILLS if verdict in {point.verdict for point in points}]
    names = {panel.reference.name for panel in panels}
    name = names.pop() if len(names) == 1 else "the reference"
    notes = [
        f"Bars: 95\xa0% interval of the difference to {name}, paired by seed and scored row, drawn about its score; "
        "where a question was asked, corrected for the number of questions"
    ]
    if any(point.inner for point in points):
        notes.append("Thick: the interval for equivalence, which lies in the grey band if the two are equivalent")
    if verdicts:
        notes.append(f"Markers: {', '.join(f'{FILLS[of].words} if {of}' for of in verdicts)}. Pale: not asked")
    for panel in panels:
        if panel.outside:
            listed = ", ".join(f"{point.name} {point.score:.3g}" for point in panel.outside)
            notes.append(f"Outside the axis{f' of {panel.title}' if len(panels) > 1 else ''}: {listed}")
    return f"{'. '.join(notes)}."


def _draw_panel(axis: "Axes", panel: StudyPanel) -> None:
    reference, margin = panel.reference, panel.margin
    axis.set_xscale("log")
    axis.set_title(panel.title)
    axis.set_xlabel("trained parameters, without the head")
    axis.set_ylabel(panel.y_label)
    axis.set_ylim(panel.y_range)
    if margin:
        ends = reference.score - margin, reference.score + margin
        axis.axhspan(*ends, color=BAND, linewidth=0, zorder=0, label=f"{reference.name} \u00b1 {margin:g}")
    axis.axhline(reference.score, color="0.6", linewidth=0.8, zorder=1)
    drawn = [reference, *panel.points] if reference not in panel.lines else list(panel.points)
    places = dict(zip(map(id, drawn), side_by_side([point.size for point in drawn], log=True), strict=True))
    last: list[tuple[float, StudyPoint]] = []
    for method in sorted({point.method for point in drawn}, key=family_place):
        of_method = sorted((point for point in drawn if point.method == method), key=lambda point: point.size)
        xs = [places[id(point)] for point in of_method]
        _draw_method(axis, of_method, xs, reference)
        last.append((xs[-1], of_method[-1]))
    _label_verdicts(axis, [(places[id(point)], point) for point in drawn if point.verdict])
    for point in panel.lines:
        axis.axhline(
            point.score, color=style_of(point.method).colour, linestyle=style_of(point.method).line[0], alpha=PALE
        )
    sizes = list(places.values()) or [1.0]  # all may be lines across
    axis.set_xlim(min(sizes) / ROOM, max(sizes) * ROOM)
    _label_methods(axis, panel, last)
    label_logarithms(axis, small=False)
    if margin:
        axis.legend(loc="lower right", fontsize=7, frameon=False)


def _draw_method(axis: "Axes", points: Sequence[StudyPoint], xs: Sequence[float], reference: StudyPoint) -> None:
    """Draw a method's sizes joined by a line; those of no question are pale."""
    style = style_of(points[0].method)
    axis.plot(
        xs, [point.score for point in points], color=style.colour, linestyle=style.line[0], linewidth=1, alpha=PALE
    )
    for x, point in zip(xs, points, strict=True):
        shown = bool(point.verdict) or point is reference
        opacity = 1.0 if shown else PALE
        if point.low is not None and point.high is not None:
            axis.plot([x, x], [point.low, point.high], color=style.colour, linewidth=0.8, alpha=opacity, zorder=3)
        if point.inner is not None:
            axis.plot(
                [x, x], point.inner, color=style.colour, linewidth=3.2, alpha=0.8, zorder=3, solid_capstyle="butt"
            )
        axis.plot(
            [x],
            [point.score],
            color=style.colour,
            marker=style.marker[0],
            fillstyle=FILLS[point.verdict].style if point.verdict else "full",
            markerfacecoloralt="white",
            markersize=7 if shown else 4,
            alpha=opacity,
            zorder=4 if shown else 2,
        )


def _label_verdicts(axis: "Axes", points: Sequence[tuple[float, StudyPoint]]) -> None:
    """Write size and verdict above each bar, below it where there is no room."""
    bottom, top = axis.get_ylim()
    for x, point in points:
        low, high = point.low or point.score, point.high or point.score
        above = top - high > WORDS * (top - bottom)
        axis.annotate(
            f"{point.name.partition(' (')[2].rstrip(')') or point.name}\n{point.verdict}",
            (x, high if above else low),
            xytext=(0, 3 if above else -3),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=7,
            fontweight="bold",
            linespacing=1.0,
            color=style_of(point.method).colour,
        )


def _label_methods(axis: "Axes", panel: StudyPanel, ends: Sequence[tuple[float, StudyPoint]]) -> None:
    """Write each method's name on the right, on a height of its own, with a line to its last point."""
    low, high = panel.y_range
    right = axis.get_xlim()[1]
    labels = [(x, point, point.method) for x, point in ends] + [(right, point, point.method) for point in panel.lines]
    gap = (high - low) / (72 * PANEL_INCHES / 13)
    heights = kept_apart([point.score for _, point, _ in labels], gap, low + gap / 2, high - gap / 2)
    for (x, point, method), height in zip(labels, heights, strict=True):
        name = _label(panel, point)
        axis.annotate(
            name,
            (x, point.score),
            xytext=(1.04, height),
            textcoords=axis.get_yaxis_transform(),
            va="center",
            fontsize=7,
            color=style_of(method).colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": style_of(method).colour,
                "linewidth": 0.5,
                "alpha": 0.5,
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )


def _label(panel: StudyPanel, point: StudyPoint) -> str:
    if point in panel.lines:
        size = f"{point.size / 1e6:.1f}M" if point.size >= 1e6 else f"{point.size:,}"
        return f"{point.name}, {size}{f': {point.verdict}' if point.verdict else ''}"
    return point.name.partition(" (")[0]
