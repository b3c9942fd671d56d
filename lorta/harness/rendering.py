"""Tables as Markdown and LaTeX (booktabs): the same numbers, the same words, the same bytes every time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lorta.harness.asked import edge_note, size_note
from lorta.harness.captions import caption, title, without_result
from lorta.harness.record import RunRecord
from lorta.harness.sizes import NOTE, size_grid
from lorta.harness.summary import Cell, Count, Table

DASH = "–"  # noqa: RUF001  # an empty cell, always with a footnote
COUNTS = ("adapter parameters", "head parameters", "other trainable")
LATEX_SPECIALS = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", DASH: "--"}
)


@dataclass(frozen=True)
class Grid:
    """A table as text; `marks` has the footnote number of a cell by (row, column)."""

    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    marks: dict[tuple[int, int], int]
    footnotes: tuple[str, ...]


def to_markdown(tables: Sequence[Table], records: Iterable[RunRecord]) -> str:
    """Return one section per table, then the runs that have no result."""
    sections = [_markdown_table(table) for table in tables] or ["No run has finished yet.\n"]
    if rest := without_result(records):
        lines = "".join(f"  - {_markdown(line.strip())}\n" if line[0] == " " else f"- {line}\n" for line in rest)
        sections.append(f"## Runs without a result\n\n{lines}")
    return "\n".join(sections)


def to_latex(tables: Sequence[Table]) -> str:
    """Return one table environment per table; it needs the packages booktabs and graphicx."""
    return "\n".join(_latex_table(table) for table in tables)


def grid(table: Table) -> Grid:
    """Return the cells as text, and numbered footnotes for what is missing; one task needs no average."""
    names = [*map(table.short, table.tasks), *(["average"] if len(table.tasks) > 1 else []), "train s"]
    decimals = [1 if table.higher_is_better or name == "train s" else 4 for name in names]
    seeds = max(len(cell.seeds) for row in table.rows for cell in row.cells.values())
    body: list[tuple[str, ...]] = []
    marks: dict[tuple[int, int], int] = {}
    footnotes: dict[str, int] = {}
    for row in table.rows:
        counts = (row.adapter_parameters, row.head_parameters, row.other_parameters)
        average = [row.average] if "average" in names else []
        cells = [*(row.cells[task] for task in table.tasks), *average, row.train_s]
        for column, (name, cell) in enumerate(zip(names, cells, strict=True), 1 + len(counts)):
            if cell.note:
                note = f"{row.label}, {name}: {cell.note}"
                marks[len(body), column] = footnotes.setdefault(note, len(footnotes) + 1)
        asked = {1: size_note(row)} | {1 + len(counts) + n: edge_note(row, task) for n, task in enumerate(table.tasks)}
        for column, note in asked.items():
            if note and (len(body), column) not in marks:
                marks[len(body), column] = footnotes.setdefault(note, len(footnotes) + 1)
        body.append(
            (
                row.label,
                *map(_count_text, counts),
                *(_cell_text(cell, seeds, digits) for cell, digits in zip(cells, decimals, strict=True)),
            )
        )
    scores = [f"{table.short(task)} ({table.metrics[task]})" for task in table.tasks]
    return Grid(("adapter", *COUNTS, *scores, *names[len(scores) :]), tuple(body), marks, tuple(footnotes))


def _count_text(count: Count) -> str:
    return f"{count.low:,}" if count.low == count.high else f"{count.low:,} to {count.high:,}"


def _cell_text(cell: Cell, seeds: int, decimals: int) -> str:
    if cell.mean is None:
        return DASH
    spread = "" if cell.std is None else f" ± {cell.std:.{decimals}f}"
    fewer = f" (n={len(cell.seeds)})" if 0 < len(cell.seeds) < seeds else ""
    return f"{cell.mean:.{decimals}f}{spread}{fewer}"


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")


def _markdown_table(table: Table) -> str:
    found = grid(table)
    lines = [f"## {_markdown(title(table))}", "", f"| {' | '.join(map(_markdown, found.header))} |"]
    lines.append(f"|{'|'.join(['---', *['---:'] * (len(found.header) - 1)])}|")
    for row_number, row in enumerate(found.body):
        cells = [_markdown(text) + _markdown_mark(found, row_number, column) for column, text in enumerate(row)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- [{number}] {_markdown(note)}" for number, note in enumerate(found.footnotes, 1))]
    return "\n".join([*lines, *(f"- {_markdown(text)}" for text in caption(table)), "", *_markdown_sizes(table), ""])


def _markdown_sizes(table: Table) -> list[str]:
    header, body = size_grid(table)
    lines = ["### Sizes", "", f"| {' | '.join(header)} |", f"|{'|'.join(['---', *['---:'] * (len(header) - 1)])}|"]
    return [*lines, *(f"| {' | '.join(map(_markdown, row))} |" for row in body), "", f"- {NOTE}"]


def _markdown_mark(found: Grid, row: int, column: int) -> str:
    mark = found.marks.get((row, column))
    return "" if mark is None else f" [{mark}]"


def _latex(text: str) -> str:
    return text.translate(LATEX_SPECIALS)


def _latex_table(table: Table) -> str:
    found = grid(table)
    body = [
        " & ".join(_latex(text) + _latex_mark(found, row_number, column) for column, text in enumerate(row)) + r" \\"
        for row_number, row in enumerate(found.body)
    ]
    notes = [rf"\textsuperscript{{{number}}}{_latex(note)}\\" for number, note in enumerate(found.footnotes, 1)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(title(table))}. {_latex(' '.join(caption(table)))}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * (len(found.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(_latex, found.header)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        *([r"\par\smallskip\footnotesize\raggedright", *notes] if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_mark(found: Grid, row: int, column: int) -> str:
    mark = found.marks.get((row, column))
    return "" if mark is None else rf"\textsuperscript{{{mark}}}"
