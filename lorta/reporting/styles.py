"""How a method is named and drawn: the same colour, marker and line in every plot, whatever else is drawn beside it.

Colours: Okabe and Ito 2008, safe for colour-blind readers. The numbers of colours, markers and lines have no common
divisor, so 65 methods in order differ in marker and line also where all is printed in grey. The next 65 have the same
lines and a second row of markers.
"""

import re
import zlib
from functools import cache
from typing import Any, NamedTuple

from lorta.config.places import CONF

ORDER = CONF / "figures.yaml"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = (  # as matplotlib and plotly call them
    ("o", "circle"),
    ("s", "square"),
    ("D", "diamond"),
    ("^", "triangle-up"),
    ("v", "triangle-down"),
    ("P", "cross"),
    ("*", "star"),
    ("X", "x"),
    ("<", "triangle-left"),
    (">", "triangle-right"),
    ("p", "pentagon"),
    ("h", "hexagon"),
    ("d", "diamond-tall"),
)
MORE_MARKERS = (
    ("8", "octagon"),
    ("H", "hexagon2"),
    ((4, 1, 0), "star-square"),
    ((3, 1, 0), "star-triangle-up"),
    ((3, 1, 60), "star-triangle-down"),
    ((6, 1, 0), "hexagram"),
    ((8, 1, 0), "star-diamond"),
    ((3, 0, -45), "triangle-ne"),
    ((3, 0, -135), "triangle-se"),
    ((3, 0, 135), "triangle-sw"),
    ((3, 0, 45), "triangle-nw"),
    ((4, 0, 20), "diamond-wide"),
    ((7, 0, 0), "hourglass"),
)
LINES = (
    ("-", "solid"),
    ((0, (5, 2)), "dash"),
    ((0, (5, 2, 1, 2)), "dashdot"),
    ((0, (1, 1.5)), "dot"),
    ((0, (8, 2, 1, 2, 1, 2)), "longdashdot"),
)


class Style(NamedTuple):
    """One method's look; `marker` and `line` as (matplotlib, plotly)."""

    colour: str
    marker: tuple[str | tuple[int, int, int], str]
    line: tuple[str | tuple[float, tuple[float, ...]], str]


@cache
def _known() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(ORDER.read_text(encoding="utf-8"))


@cache
def _families() -> dict[str, tuple[int, int]]:
    """Return method -> place of its family, and in it."""
    families = enumerate(_known()["families"].values())
    return {method: (number, place) for number, family in families for place, method in enumerate(family)}


def named_methods() -> tuple[str, ...]:
    """Return the methods of conf/figures.yaml in order."""
    return tuple(_known()["methods"])


def printed_name(method: str, rank: int | None = None, variant: str = "") -> str:
    """Return a method, or one row of a table, as papers print it: LoRTA, LoRTA (r=11), LoRTA (r=11, dropout=0.1)."""
    details = ", ".join([*([] if rank is None else [f"r={rank}"]), *([variant] if variant else [])])
    return f"{_known()['methods'].get(method, method)}{f' ({details})' if details else ''}"


def printed_label(label: str) -> str:
    """Return the label of a table's row, `lorta r=11 (dropout=0.1)`, as papers print it."""
    match = re.fullmatch(r"(\S+)(?: r=(\d+))?(?: \((.*)\))?", label)
    return label if match is None else printed_name(match[1], int(match[2]) if match[2] else None, match[3] or "")


def printed_task(short: str, metric: str = "") -> str:
    """Return a task's short name, and its metric if given, as papers print them: STS-B (Pearson correlation)."""
    name = _known()["tasks"].get(short, short)
    return f"{name} ({_known()['metrics'].get(metric, metric)})" if metric else name


def family_place(method: str) -> tuple[int, int]:
    """Return what methods are sorted by: the place of the family, and that in the family; unnamed ones are last."""
    return _families().get(method, (len(_families()), 0))


def style_of(method: str) -> Style:
    """Return a method's style; one without a place in conf/figures.yaml has that of its name's checksum.

    Such a style is none of the named ones, but may be that of another unnamed method.
    """
    names, every = named_methods(), len(COLOURS) * len(MARKERS) * len(LINES)
    number = names.index(method) if method in names else len(names) + zlib.crc32(method.encode()) % (every - len(names))
    markers = (MARKERS, MORE_MARKERS)[number // (len(MARKERS) * len(LINES)) % 2]
    return Style(COLOURS[number % len(COLOURS)], markers[number % len(markers)], LINES[number % len(LINES)])
