"""Tables as Markdown. The same records always give the same bytes."""

from collections.abc import Iterable, Mapping, Sequence

from lorta.analysis.questions import Answered
from lorta.analysis.resampling import RESAMPLES, Interval
from lorta.analysis.significance import AVERAGE, Analysis, columns
from lorta.analysis.summary import Cell, Count, Row, Table
from lorta.records.record import RunRecord
from lorta.reporting.best_first import best_first, in_order
from lorta.reporting.captions import caption, title, without_result
from lorta.reporting.diagnostic_tables import check_grid, check_notes
from lorta.reporting.markup import (
    DASH,
    TextTable,
    markdown_notes,
    markdown_table,
    markdown_text,
)
from lorta.reporting.notes import collapse_note, edge_note, size_note
from lorta.reporting.ranges import within_range
from lorta.reporting.sizes import NOTE, size_grid
from lorta.reporting.verdicts import verdict_section

COUNTS = ("adapter parameters", "head parameters", "other trainable")
SECONDS = "train s"
BOLD = (
    "Bold: not significantly different from the best method in the column (t-test paired by seed, and by scored row "
    "where row scores are known; Holm-corrected; alpha = 0.05)."
)


def to_markdown(
    tables: Sequence[Table],
    records: Iterable[RunRecord],
    analyses: Sequence[Analysis | None] | None = None,
    answered: Sequence[Sequence[Answered]] | None = None,
) -> str:
    """Return the verdicts on `answered`, each table's questions, one section per table, then runs without a result.

    The rows of a table are ordered by their last score, the best first.
    """
    given = zip(tables, analyses or [None] * len(tables), strict=True)
    sections = [_markdown_table(*of_table) for of_table in given] or ["No run has finished yet.\n"]
    if verdicts := verdict_section(tables, answered or [()] * len(tables)):
        sections.insert(0, verdicts)
    if rest := without_result(records):
        lines = "".join(f"  - {markdown_text(line.strip())}\n" if line[0] == " " else f"- {line}\n" for line in rest)
        sections.append(f"## Runs without a result\n\n{lines}")
    return "\n".join(sections)


def grid(table: Table, analysis: Analysis | None = None) -> TextTable:
    """Return the cells as text, and numbered footnotes for what is missing; one task needs no average."""
    names = [*map(table.short, table.tasks), *columns(table)[len(table.tasks) :], SECONDS]
    decimals = [*[table.decimals] * (len(names) - 1), 1]
    seeds = max(len(cell.seeds) for row in table.rows for cell in row.cells.values())
    body: list[tuple[str, ...]] = []
    marks: dict[tuple[int, int], int] = {}
    footnotes: dict[str, int] = {}
    for row in table.rows:
        counts = (row.adapter_parameters, row.head_parameters, row.other_parameters)
        average = [row.average] if AVERAGE in names else []
        cells = [*(row.cells[task] for task in table.tasks), *average, row.train_s]
        for column, note in _notes(table, row, dict(zip(names, cells, strict=True))).items():
            marks[len(body), column] = footnotes.setdefault(note, len(footnotes) + 1)
        sizes = map(count_text, counts) if row.sizes_known else [DASH] * len(counts)
        body.append(
            (
                row.label,
                *sizes,
                *(_cell_text(cell, seeds, digits) for cell, digits in zip(cells, decimals, strict=True)),
            )
        )
    scores = [f"{table.short(task)} ({table.metrics[task]})" for task in table.tasks]
    header = ("adapter", *COUNTS, *scores, *names[len(scores) :])
    places = {name: column for column, name in enumerate(columns(table), 1 + len(COUNTS))}
    bold = frozenset((row, places[column]) for row, column in (analysis.ties if analysis else ()))
    return TextTable(header, tuple(body), marks, tuple(footnotes), bold)


def _notes(table: Table, row: Row, cells: Mapping[str, Cell]) -> dict[int, str]:
    """Return the note of each column of a row that has one: missing values and collapsed runs, else size and search."""
    first = 1 + len(COUNTS)
    collapsed = {first + place: collapse_note(row, task) for place, task in enumerate(table.tasks)}
    asked = {1: size_note(row)} | {first + place: edge_note(row, task) for place, task in enumerate(table.tasks)}
    notes: dict[int, str] = {}
    untimed = all(other.train_s.mean is None for other in table.rows)
    for column, (name, cell) in enumerate(cells.items(), first):
        where = "" if name == SECONDS and untimed else f"{row.label}, "
        said = [f"{where}{name}: {cell.note}" if cell.note else None, collapsed.get(column)]
        if any(said):
            notes[column] = "; ".join(note for note in said if note)
    return notes | {column: note for column, note in asked.items() if note and column not in notes}


def interval_grid(table: Table, analysis: Analysis) -> TextTable:
    """Return means with intervals by task, the interquartile mean, and the test of the last column against its best."""
    last = columns(table)[-1]
    compared = {comparison.row: comparison for comparison in analysis.comparisons if comparison.column == last}
    best = {comparison.best for comparison in compared.values()}
    names = [*map(table.short, table.tasks), *columns(table)[len(table.tasks) :]]
    middle = ["interquartile mean"] if analysis.middle else []
    header = ("adapter", *names, *middle, f"{last if last == AVERAGE else 'score'} vs. best")
    body: list[tuple[str, ...]] = []
    for number, row in enumerate(table.rows):
        intervals = [(column, analysis.intervals.get((number, column))) for column in columns(table)]
        intervals += [(AVERAGE, analysis.middle.get(number))] * len(middle)
        shown = [interval and within_range(interval, table, column) for column, interval in intervals]
        cells = [interval_text(interval, table.decimals) for interval in shown]
        comparison = compared.get(number)
        against = "best" if number in best else "" if comparison is None else _p_text(comparison.p_holm)
        body.append((row.label, *cells, against))
    return TextTable(header, tuple(body))


def interval_text(interval: Interval | None, decimals: int = 1) -> str:
    """Return the estimate and its bounds."""
    if interval is None:
        return ""
    return f"{interval.value:.{decimals}f} [{interval.low:.{decimals}f}, {interval.high:.{decimals}f}]"


def _p_text(value: float) -> str:
    return "p<0.001" if value < 0.001 else f"p={value:.3f}"


def interval_notes(table: Table, analysis: Analysis) -> list[str]:
    """Return notes on how the intervals were computed and what they do not include."""
    labels = [
        [row.label for number, row in enumerate(table.rows) if (number in analysis.with_items) == known]
        for known in (True, False)
    ]
    drawn = "seeds and scored rows" if labels[0] else "seeds"
    if labels[1]:
        of = f" for {', '.join(labels[1])}" if labels[0] else ""
        drawn += f" ({'seeds only' if labels[0] else 'only'}{of}: no row scores are stored)"
    one = all(len(cell.seeds) < 2 for row in table.rows for cell in row.cells.values())
    notes = [
        f"95 % confidence intervals: bootstrap with {RESAMPLES:,} resamples of {drawn}, and Student's t quantile. "
        "Those of shares, such as accuracy, are the exact intervals of as many rows as have that error (Korn and "
        "Graubard 1998); others are symmetric, and cut where the metric ends."
    ]
    if analysis.middle:
        notes.append(
            "Interquartile mean: the mean of the middle half of all runs over tasks and seeds. No single run can "
            "dominate it."
        )
    if one:
        notes.append("With one seed, an interval describes these trained models only, not the methods.")
    if analysis.comparisons:
        notes.append(BOLD)
    return notes


def count_text(count: Count) -> str:
    """Return a count, or its range."""
    return f"{count.low:,}" if count.low == count.high else f"{count.low:,} to {count.high:,}"


def _cell_text(cell: Cell, seeds: int, decimals: int) -> str:
    if cell.mean is None:
        return DASH
    spread = "" if cell.std is None else f" ± {cell.std:.{decimals}f}"
    fewer = f" (n={len(cell.seeds)})" if 0 < len(cell.seeds) < seeds else ""
    return f"{cell.mean:.{decimals}f}{spread}{fewer}"


def _markdown_table(table: Table, analysis: Analysis | None) -> str:
    order = best_first(table)
    rows = in_order(grid(table, analysis), order)
    lines = [f"## {markdown_text(title(table))}", "", *markdown_table(rows), "", *markdown_notes(rows)]
    lines += [*(f"- {markdown_text(text)}" for text in caption(table)), ""]
    rest = [
        *_markdown_intervals(table, analysis, order),
        *_markdown_sizes(table, order),
        *_markdown_checks(table, order),
    ]
    return "\n".join([*lines, *rest, ""])


def _markdown_intervals(table: Table, analysis: Analysis | None, order: Sequence[int]) -> list[str]:
    if analysis is None:
        return []
    if not analysis.intervals:
        return [
            "### Confidence intervals and significance",
            "",
            "- None: there is only one seed, and no row scores are stored.",
            "",
        ]
    notes = [f"- {markdown_text(text)}" for text in interval_notes(table, analysis)]
    return [
        "### Confidence intervals and significance",
        "",
        *markdown_table(in_order(interval_grid(table, analysis), order)),
        "",
        *notes,
        "",
    ]


def _markdown_sizes(table: Table, order: Sequence[int]) -> list[str]:
    header, body = size_grid(table)
    if len(header) == 1:
        return []  # of imported runs whose source says no size
    return ["### Sizes", "", *markdown_table(in_order(TextTable(header, tuple(body)), order)), "", f"- {NOTE}"]


def _markdown_checks(table: Table, order: Sequence[int]) -> list[str]:
    cells = check_grid(table)
    if cells is None:
        return []
    rows = in_order(cells, order)
    notes = [*markdown_notes(rows), *(f"- {markdown_text(text)}" for text in check_notes(table))]
    return ["", "### Forgetting and merging", "", *markdown_table(rows), "", *notes]
