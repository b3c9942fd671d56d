"""Tables for a paper: NAME.tex with a label and a short caption each, and NAME.notes.tex with all that is left to say.

The best of a column is bold. Methods that are not significantly different from it have a dagger. Methods, tasks and
metrics have the names that papers print, as in figures.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from lorta.analysis.significance import Analysis, columns
from lorta.analysis.summary import Table
from lorta.reporting.captions import caption, scores_sentence, title
from lorta.reporting.markup import TextTable, latex_table, latex_text
from lorta.reporting.styles import printed_name, printed_task
from lorta.reporting.tables import BOLD, COUNTS, grid

COLUMNS = ("parameters", "head", "other", "scores", "average", "seconds")  # that --columns takes, in their order
TIES = "Bold: the best of the column; \N{DAGGER}: not significantly different from it (alpha = 0.05)."
TEST = BOLD.partition("(")[2].rpartition(")")[0]  # how it is tested


def to_latex(
    tables: Sequence[Table],
    analyses: Sequence[Analysis | None] | None = None,
    name: str = "report",
    shown: Sequence[str] = COLUMNS,
) -> str:
    """Return one table environment per table; it needs the packages booktabs and graphicx.

    Args:
        name: of the report; its tables have the labels tab:NAME, tab:NAME-2, ...
        shown: of COLUMNS; the first column, the method, is always there.
    """
    pairs = list(zip(tables, analyses or [None] * len(tables), strict=True))
    return "\n".join(
        latex_table(paper_grid(table, analysis, shown), _caption(table, analysis), title(table), _label(name, number))
        for number, (table, analysis) in enumerate(pairs, 1)
    )


def to_latex_notes(
    tables: Sequence[Table],
    analyses: Sequence[Analysis | None] | None = None,
    name: str = "report",
    shown: Sequence[str] = COLUMNS,
) -> str:
    """Return the notes of `to_latex`'s tables, to be put where a paper has room for them."""
    parts: list[str] = []
    for number, (table, analysis) in enumerate(zip(tables, analyses or [None] * len(tables), strict=True), 1):
        notes = paper_grid(table, analysis, shown).footnotes
        tested = [f"Test of differences: {TEST}."] if analysis and analysis.ties else []
        parts += [
            rf"\paragraph{{Notes on Table~\ref{{{_label(name, number)}}}.}}",
            *(latex_text(text) for text in [*map(_renaming(table, r"(: |, )", r" \("), caption(table)), *tested]),
            *(rf"\par\textsuperscript{{{place}}}{latex_text(note)}" for place, note in enumerate(notes, 1)),
            "",
        ]
    return "\n".join(parts)


def paper_grid(table: Table, analysis: Analysis | None, shown: Sequence[str]) -> TextTable:
    """Return the table's cells in the chosen columns, the best of each column and its ties apart."""
    whole, names = _printed(grid(table, analysis), table), columns(table)
    first = 1 + len(COUNTS)
    places = {name: first + place for place, name in enumerate(names)}
    best = {(pair.best, places[pair.column]) for pair in (analysis.comparisons if analysis else ())}
    kinds = [*COLUMNS[: len(COUNTS)], *["scores"] * len(table.tasks), *["average"] * (len(names) > len(table.tasks))]
    kept = [0, *(place for place, kind in enumerate([*kinds, "seconds"], 1) if kind in shown)]
    return _only(replace(whole, bold=frozenset(best), ties=whole.bold - best), kept)


def _printed(cells: TextTable, table: Table) -> TextTable:
    """Return a table's cells and footnotes with the names that papers print: `lorta r=11` is LoRTA (r=11)."""
    first = 1 + len(COUNTS)
    scores = [printed_task(table.short(task), table.metrics[task]) for task in table.tasks]
    names = _names(table)
    return replace(
        cells,
        header=(*cells.header[:first], *scores, *cells.header[first + len(scores) :]),
        body=tuple((names[line[0]], *line[1:]) for line in cells.body),
        footnotes=tuple(map(_renaming(table, "(^|; )", "[,:]"), cells.footnotes)),
    )


def _names(table: Table) -> dict[str, str]:
    return {row.label: printed_name(row.adapter, row.rank, row.variant) for row in table.rows}


def _renaming(table: Table, before: str, behind: str) -> Callable[[str], str]:
    """Return what prints the labels of rows in a text as papers do, where they stand between two patterns."""
    names = _names(table)
    labels = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    label = re.compile(rf"{before}({labels})(?={behind})")
    return lambda text: label.sub(lambda match: match[1] + names[match[2]], text)


def _only(table: TextTable, kept: Sequence[int]) -> TextTable:
    """Return some columns of a table; footnotes are numbered anew, in order of their cells."""
    moved = {column: place for place, column in enumerate(kept)}
    marks = {cell: number for cell, number in table.marks.items() if cell[1] in moved}
    used = {number: place for place, number in enumerate(sorted(set(marks.values())), 1)}
    return TextTable(
        tuple(table.header[column] for column in kept),
        tuple(tuple(cells[column] for column in kept) for cells in table.body),
        {(row, moved[column]): used[number] for (row, column), number in marks.items()},
        tuple(table.footnotes[number - 1] for number in used),
        frozenset((row, moved[column]) for row, column in table.bold if column in moved),
        ties=frozenset((row, moved[column]) for row, column in table.ties if column in moved),
    )


def _caption(table: Table, analysis: Analysis | None) -> str:
    return " ".join([f"{title(table)}.", scores_sentence(table), *([TIES] if analysis and analysis.ties else [])])


def _label(name: str, number: int) -> str:
    plain = re.sub(r"[^A-Za-z0-9._:-]", "-", name)
    return f"tab:{plain}" if number == 1 else f"tab:{plain}-{number}"
