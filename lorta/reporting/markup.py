"""A table of text as Markdown, LaTeX (booktabs) and HTML: the same cells, marks and footnotes in each.

Not jinja2: three formats share the loop over cells, and a template for each would escape and align them anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

DASH = "–"  # noqa: RUF001  # an empty cell, always with a footnote
LATEX_SPECIALS = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", DASH: "--"}
    | {"−": "$-$", "≥": r"$\geq$", "\N{DAGGER}": r"$\dagger$"}  # noqa: RUF001
)
STYLE = "table{border-collapse:collapse}th,td{padding:.2em .6em;text-align:right}th:first-child,td:first-child"
STYLE += "{text-align:left}thead th{border-bottom:1px solid}caption{text-align:left}"


@dataclass(frozen=True)
class TextTable:
    """Cells as text; `marks` has the footnote number of a cell by (row, column), `bold` the cells that stand out."""

    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    marks: Mapping[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    footnotes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, int]] = frozenset()
    ties: frozenset[tuple[int, int]] = frozenset()  # of LaTeX: cells with a dagger
    left: int = 1  # the first columns are words, the rest are numbers


def markdown_text(text: str) -> str:
    """Return text with Markdown's signs escaped."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")


def latex_text(text: str) -> str:
    """Return text with LaTeX's signs escaped."""
    return text.translate(LATEX_SPECIALS)


def markdown_table(table: TextTable) -> list[str]:
    """Return the lines of a table; footnotes are not among them."""
    rule = ["---"] * table.left + ["---:"] * (len(table.header) - table.left)
    lines = [f"| {' | '.join(map(markdown_text, table.header))} |", f"|{'|'.join(rule)}|"]
    for row, cells in enumerate(table.body):
        texts = [_markdown_cell(table, row, column, text) for column, text in enumerate(cells)]
        lines.append(f"| {' | '.join(texts)} |")
    return lines


def markdown_notes(table: TextTable) -> list[str]:
    """Return the lines of a table's footnotes."""
    return [f"- [{number}] {markdown_text(note)}" for number, note in enumerate(table.footnotes, 1)]


def _markdown_cell(table: TextTable, row: int, column: int, text: str) -> str:
    mark = table.marks.get((row, column))
    cell = f"**{markdown_text(text)}**" if (row, column) in table.bold else markdown_text(text)
    return cell if mark is None else f"{cell} [{mark}]"


def latex_table(table: TextTable, caption: str, short: str = "", label: str = "") -> str:
    """Return a table environment; it needs the packages booktabs and graphicx.

    With a label, the footnotes are left to a file of notes; `short` is the caption in a list of tables.
    """
    body = [
        " & ".join(_latex_cell(table, row, column, text) for column, text in enumerate(cells)) + r" \\"
        for row, cells in enumerate(table.body)
    ]
    footnotes = () if label else table.footnotes
    notes = [rf"\textsuperscript{{{number}}}{latex_text(note)}\\" for number, note in enumerate(footnotes, 1)]
    shorter = f"[{{{latex_text(short)}}}]" if short else ""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{shorter}{{{latex_text(caption)}}}",
        *([rf"\label{{{label}}}"] if label else []),
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * table.left}{'r' * (len(table.header) - table.left)}}}",
        r"\toprule",
        " & ".join(map(latex_text, table.header)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        *([r"\par\smallskip\footnotesize\raggedright", *notes] if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(table: TextTable, row: int, column: int, text: str) -> str:
    mark = table.marks.get((row, column))
    cell = rf"\textbf{{{latex_text(text)}}}" if (row, column) in table.bold else latex_text(text)
    above = [*([r"$\dagger$"] if (row, column) in table.ties else []), *([str(mark)] if mark is not None else [])]
    return rf"{cell}\textsuperscript{{{','.join(above)}}}" if above else cell


def html_page(title: str, parts: Sequence[str]) -> str:
    """Return a whole page around finished parts."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def html_table(table: TextTable, caption: str) -> str:
    """Return a table element and its footnotes."""
    header = "".join(f"<th>{escape(text)}</th>" for text in table.header)
    rows = [
        "<tr>" + "".join(_html_cell(table, row, column, text) for column, text in enumerate(cells)) + "</tr>"
        for row, cells in enumerate(table.body)
    ]
    notes = [f"<li>{escape(note)}</li>" for note in table.footnotes]
    lines = [f"<table><caption>{escape(caption)}</caption>", f"<thead><tr>{header}</tr></thead>", "<tbody>", *rows]
    return "\n".join([*lines, "</tbody></table>", *(["<ol>", *notes, "</ol>"] if notes else [])])


def _html_cell(table: TextTable, row: int, column: int, text: str) -> str:
    mark = table.marks.get((row, column))
    cell = f"<b>{escape(text)}</b>" if (row, column) in table.bold else escape(text)
    return f"<td>{cell}{'' if mark is None else f'<sup>{mark}</sup>'}</td>"
