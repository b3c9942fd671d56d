"""The figure of a page's first screen as an image, which is there before plotly.js is read: that takes a second."""

import base64
import io
from typing import NamedTuple

from lorta.reporting.plots.figures import NO_DATE, SETTINGS, draw_panel
from lorta.reporting.plots.panels import Panel

WIDE, NARROW = (8.6, 4.5), (3.75, 4.1)  # inches: of the place at 1440 and 390 pixels, so that letters are 8 points high


class Still(NamedTuple):
    """One figure for two widths of a window, as data URIs of SVG."""

    wide: str
    narrow: str


def still(panel: Panel) -> Still:
    """Return the panel as a figure file shows it; its bytes depend on the panel and on matplotlib's version."""
    return Still(_image(panel, WIDE), _image(panel, NARROW))


def _image(panel: Panel, inches: tuple[float, float]) -> str:
    from matplotlib import rc_context

    drawn = io.BytesIO()
    with rc_context({**SETTINGS, "svg.fonttype": "none"}):  # letters as text: a third of the bytes
        draw_panel(panel, inches).savefig(drawn, format="svg", metadata=NO_DATE["svg"], transparent=True)
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.getvalue()).decode()}"
