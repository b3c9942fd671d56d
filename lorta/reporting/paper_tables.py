"""The tables of one paper: published scores, our measured scores, the differences and the verdicts.

Markdown, LaTeX and HTML keep the layout of the paper, with up to four lines per method; CSV has one line per cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lorta.analysis.published import FOLDER, Column, Line, Paper, Table, lines
from lorta.analysis.resampling import Interval
from lorta.analysis.verdicts import Evidence, Verdict, judge
from lorta.records.store import write_atomically
from lorta.reporting.csv_tables import DECIMALS, Value, csv_text
from lorta.reporting.markup import (
    DASH,
    TextTable,
    html_page,
    html_table,
    latex_table,
    markdown_notes,
    markdown_table,
    markdown_text,
)
from lorta.reporting.ranges import ends_of, within

LEGEND = (
    "Measured: mean (or the statistic that the paper uses) over seeds, with its 95 % confidence interval. Difference: "
    "measured minus published. Verdicts: reproduced (the 95 % interval of the difference lies within the margin of the "
    "column, 1 point by default), differs (the interval does not contain zero and is not within the margin), undecided "
    "(neither), not comparable, not run. The rules are in lorta/analysis/verdicts.py."
)
CSV_HEADER = (
    *("paper", "table", "origin", "method", "adapter", "rank", "model", "column", "task", "metric", "unit"),
    *("published", "published_spread", "published_seeds", "statistic", "selection", "published_parameters", "counted"),
    *("source", "confidence", "measured", "low95", "high95", "seeds", "parameters", "difference", "difference_low95"),
    *("difference_high95", "verdict", "reason", "runs"),
)


@dataclass(frozen=True)
class Judged:
    """One table of a paper with a verdict for each cell, by (row, column)."""

    paper: Paper
    name: str
    lines: tuple[Line, ...]
    verdicts: Mapping[tuple[int, str], Verdict]

    @property
    def table(self) -> Table:
        """The table as the ledger has it."""
        return self.paper.tables[self.name]


def judge_table(paper: Paper, name: str, evidence: Evidence, folder: Path = FOLDER) -> Judged:
    """Return a table with its verdicts. Raises ValueError for a table that the paper does not have."""
    rows = tuple(lines(paper, name, folder))
    cells = {
        (number, column): judge(line, column, evidence)
        for number, line in enumerate(rows)
        for column in paper.tables[name].columns
    }
    return Judged(paper, name, rows, cells)


def write_paper(tables: Sequence[Judged], results: Path, name: str) -> str:
    """Write results/reports/NAME.{md,csv,tex,html} and return the Markdown text."""
    paper = tables[0].paper
    markdown = "\n".join([f"# {markdown_text(paper.title)}", "", markdown_text(f"{paper.citation}. {LEGEND}"), ""])
    markdown += "\n" + "\n".join(map(to_markdown, tables))
    page = [f"<h1>{escape(paper.title)}</h1>", f"<p>{escape(f'{paper.citation}. {LEGEND}')}</p>"]
    texts = {
        "md": markdown,
        "csv": to_csv(tables),
        "tex": "\n".join(
            latex_table(text_table(table), " ".join([_title(table), *sentences(table)])) for table in tables
        ),
        "html": html_page(paper.title, [*page, *map(to_html, tables)]),
    }
    for ending, text in texts.items():
        write_atomically(results / "reports" / f"{name}.{ending}", text)
    return markdown


def to_markdown(table: Judged) -> str:
    """Return the section of one table."""
    rows = text_table(table)
    notes = [f"- {markdown_text(text)}" for text in sentences(table)]
    head = [f"## {markdown_text(table.name)}: {markdown_text(_title(table))}", ""]
    return "\n".join([*head, *markdown_table(rows), "", *markdown_notes(rows), *notes, ""])


def to_html(table: Judged) -> str:
    """Return the table as HTML, its name as the target of links."""
    parts = [html_table(text_table(table), _title(table)), f"<p>{escape(' '.join(sentences(table)))}</p>"]
    return f'<section id="{table.name}">\n' + "\n".join(parts) + "\n</section>"


def _title(table: Judged) -> str:
    label = f" ({table.table.label})" if table.table.label else ""
    return f"{table.table.title}{label}."


def sentences(table: Judged) -> list[str]:
    """Return what a reader must know: model, split, sources and how sure they are, what is missing."""
    ledger = table.table
    facts = [("Model", ledger.model), ("split", ledger.split)]
    said = [", ".join(f"{name}: {value}" for name, value in facts if value)] if ledger.model or ledger.split else []
    sources = {f"{line.row.source} ({line.row.confidence})": None for line in table.lines if line.row.scores}
    notes = {line.table.note: None for line in table.lines if line.table.note} | (
        {ledger.note: None} if ledger.note else {}
    )
    said += [f"Source: {'; '.join(sources)}"] if sources else []
    said += [f"{line.row.method}: {line.row.note}" for line in table.lines if line.row.note]
    said += [note[0].upper() + note[1:] for note in notes if note]
    if ledger.missing:
        file = f"results/published/{table.paper.paper}.yaml"
        said.append(f"Missing scores: {ledger.missing}; to add them, follow the first lines of {file}")
    return [f"{text.rstrip('.')}." for text in said]


def text_table(table: Judged) -> TextTable:
    """Return the paper's layout: for each method a line of published values, and what there is to say of them."""
    columns, average = table.table.columns, [""] if any(line.row.average is not None for line in table.lines) else []
    body: list[tuple[str, ...]] = []
    marks: dict[tuple[int, int], int] = {}
    footnotes: dict[str, int] = {}
    for number, line in enumerate(table.lines):
        verdicts = [table.verdicts[number, column] for column in columns]
        body.append(
            (
                _label(line),
                _parameters(line.row.parameters),
                "published",
                *_published(line, columns),
                *_average(line, average),
            )
        )
        if any(verdict.measured for verdict in verdicts):
            body.append(
                ("", _measured_parameters(verdicts), "measured", *map(_measured, verdicts, columns.values()), *average)
            )
        if any(verdict.difference for verdict in verdicts):
            body.append(("", "", "difference", *map(_difference, verdicts, columns.values()), *average))
        for place, verdict in enumerate(verdicts, 3):
            if verdict.reason:
                marks[len(body), place] = footnotes.setdefault(verdict.reason, len(footnotes) + 1)
        body.append(("", "", "verdict", *(verdict.kind for verdict in verdicts), *average))
    names = [_column_title(name, column) for name, column in columns.items()]
    header = ("method", "parameters", "", *names, *("average as printed" for _ in average))
    return TextTable(header, tuple(body), marks, tuple(footnotes), left=3)


def _average(line: Line, average: Sequence[str]) -> list[str]:
    return [DASH if line.row.average is None else f"{line.row.average:.{_decimals(line)}f}" for _ in average]


def _decimals(line: Line) -> int:
    return max(column.decimals for column in line.table.columns.values())


def _label(line: Line) -> str:
    return line.row.method + ("" if line.row.rank is None else f" r={line.row.rank}")


def _column_title(name: str, column: Column) -> str:
    return f"{name} ({column.metric if column.unit == 'points' and column.metric else column.unit})"


def _parameters(count: int | str | None) -> str:
    return DASH if count is None else f"{count:,}" if isinstance(count, int) else count


def _measured_parameters(verdicts: Sequence[Verdict]) -> str:
    counts = sorted({verdict.measured.parameters for verdict in verdicts if verdict.measured})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _published(line: Line, columns: Mapping[str, Column]) -> list[str]:
    texts: list[str] = []
    for name, column in columns.items():
        printed = line.row.scores.get(name)
        spread = "" if printed is None or printed.spread is None else f" ± {_printed(printed.spread, column)}"
        texts.append(DASH if printed is None else f"{_printed(printed.value, column)}{spread}")
    return texts


def _printed(value: float, column: Column) -> str:
    """Return a published number as it is printed; tables of times mix numbers of digits."""
    return f"{value:.{column.decimals}f}" if column.unit == "points" else f"{value:g}"


def _measured(verdict: Verdict, column: Column) -> str:
    ours, digits = verdict.measured, column.decimals
    if ours is None:
        return ""
    interval = _interval(verdict, column)
    bounds = "" if interval is None else f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    return f"{ours.value:.{digits}f}{bounds}"


def _interval(verdict: Verdict, column: Column) -> Interval | None:
    """Return the interval of the measured score, cut where the metric ends."""
    interval = verdict.measured and verdict.measured.interval
    return interval and within(interval, ends_of([column.metric] if column.metric and column.unit == "points" else []))


def _difference(verdict: Verdict, column: Column) -> str:
    gap, digits = verdict.difference, column.decimals
    return "" if gap is None else f"{gap.value:+.{digits}f} [{gap.low:+.{digits}f}, {gap.high:+.{digits}f}]"


def to_csv(tables: Sequence[Judged]) -> str:
    """Return one line a cell, numbers in the column's unit; empty where there is none."""
    rows: list[Sequence[Value]] = [CSV_HEADER]
    for table in tables:
        for (number, column), verdict in table.verdicts.items():
            rows.append(_csv_line(table, table.lines[number], column, verdict))
    return csv_text(rows)


def _csv_line(table: Judged, line: Line, name: str, verdict: Verdict) -> Sequence[Value]:
    row, column, published = line.row, table.table.columns[name], line.row.scores.get(name)
    identity = [table.paper.paper, table.name, line.origin, row.method, row.adapter, row.rank, row.model]
    theirs = [published and published.value, published and published.spread, row.seeds, row.statistic, row.selection]
    ours = verdict.measured
    values = [ours and round(ours.value, DECIMALS), *_bounds(_interval(verdict, column)), ours and len(ours.values)]
    difference = verdict.difference
    return [
        *(*identity, name, column.task, column.metric, column.unit),
        *(*theirs, row.parameters, " + ".join(row.counted or ()), row.source, row.confidence),
        *(*values, ours and ours.parameters),
        *(difference and round(difference.value, DECIMALS), *_bounds(difference)),
        *(verdict.kind, verdict.reason, " ".join(ours.runs) if ours else None),
    ]


def _bounds(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (round(interval.low, DECIMALS), round(interval.high, DECIMALS))
