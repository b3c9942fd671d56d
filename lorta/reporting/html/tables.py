"""The tables of the page as plain values; page.html.jinja lays them out and DataTables sorts and filters them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lorta.analysis.item_scores import ItemScores
from lorta.analysis.questions import Answered
from lorta.analysis.significance import AVERAGE, Analysis, columns
from lorta.analysis.summary import Row, Table
from lorta.records.record import RunRecord
from lorta.reporting.best_first import best_first, in_order
from lorta.reporting.captions import method, reason
from lorta.reporting.csv_tables import LONG_COLUMNS, Value
from lorta.reporting.diagnostic_tables import check_grid
from lorta.reporting.gains import gain_grid, gain_notes
from lorta.reporting.markup import DASH, TextTable
from lorta.reporting.sizes import size_grid
from lorta.reporting.tables import COUNTS, grid, interval_grid
from lorta.reporting.variance import HEADER as VARIANCE_HEADER
from lorta.reporting.variance import variance_grid
from lorta.reporting.verdicts import verdict_grid, verdict_notes

RUN_COLUMNS = (
    *("status", "adapter", "rank", "learning_rate", "model", "task", "seed", "adapter_parameters", "train_s"),
    *("adapter_bytes", "train_peak_allocated_bytes", "host_rss_peak_bytes"),
)
KIND = "kind"  # a run, or a trial of a learning-rate search


class PageCell(NamedTuple):
    """A cell: its text, a second line, what it is sorted by (empty: the text), the runs that it links to, a note."""

    text: str
    small: str = ""
    order: str = ""
    bold: bool = False
    runs: tuple[str, ...] = ()
    mark: int | None = None  # the number of its note


class PageTable(NamedTuple):
    """A table with a caption; the first cell of a row is its heading. `numeric` are the columns of numbers."""

    key: str
    what: str  # its rows, in filters
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[PageCell, ...], ...]
    notes: tuple[str, ...] = ()
    numeric: bool = True


def score_table(key: str, table: Table, analysis: Analysis) -> PageTable:
    """Return the scores with their intervals, the best first; a score links to the records of its seeds."""
    order = best_first(table)
    score_cells = in_order(grid(table, analysis), order)
    bounds, first = interval_grid(table, analysis), 1 + len(COUNTS)
    rows: list[tuple[PageCell, ...]] = []
    for line, (number, texts) in enumerate(zip(order, score_cells.body, strict=True)):
        row = table.rows[number]
        cells = [PageCell(texts[0])]
        cells += [PageCell(text, order=text.split(" ")[0].replace(",", "")) for text in texts[1:first]]
        for place, column in enumerate(columns(table)):
            text, known = texts[first + place], analysis.intervals.get((number, column)) is not None
            low_high = bounds.body[number][1 + place].partition(" ")[2] if known else ""
            bold = (line, first + place) in score_cells.bold
            cells.append(PageCell(text, low_high, _order(row, column), bold, _runs(row, column)))
        cells.append(PageCell(texts[-1], order=_number(row.train_s.mean)))
        if analysis.middle:
            middle = analysis.middle.get(number)
            text = bounds.body[number][1 + len(columns(table))] or DASH
            cells.append(PageCell(text, order=_number(middle and middle.value)))
        rows.append(_marked(cells, score_cells, line))
    middle_name = ("interquartile mean",) if analysis.middle else ()
    caption = "Scores: mean ± standard deviation over seeds, 95 % interval below. Click a score to see its runs."
    return PageTable(key, "scores", caption, (*score_cells.header, *middle_name), tuple(rows), score_cells.footnotes)


def _marked(cells: Sequence[PageCell], table: TextTable, row: int) -> tuple[PageCell, ...]:
    """Return a row's cells with the numbers of their notes."""
    return tuple(cell._replace(mark=table.marks.get((row, column))) for column, cell in enumerate(cells))


def _order(row: Row, column: str) -> str:
    cell = row.average if column == AVERAGE else row.cells[column]
    return _number(cell.mean)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _runs(row: Row, column: str) -> tuple[str, ...]:
    return tuple(sorted(run.record.run_id for run in row.runs if run.task.name == column))


def verdict_table(key: str, table: Table, answered: Sequence[Answered]) -> PageTable | None:
    """Return the study's questions with their verdicts, None where it asked none."""
    if not answered:
        return None
    grid = verdict_grid(table, answered)
    rows = tuple(
        tuple(PageCell(text, bold=grid.header[column] == "verdict") for column, text in enumerate(line))
        for line in grid.body
    )
    caption = "Questions that the study stated, and their verdicts."
    return PageTable(key, "questions", caption, grid.header, rows, verdict_notes(answered), numeric=False)


def size_table(key: str, table: Table) -> PageTable:
    """Return the four sizes of each row."""
    header, body = size_grid(table)
    rows = tuple(
        (PageCell(first), *(PageCell(text, order=text.split(" ")[0].replace(",", "")) for text in rest))
        for first, *rest in body
    )
    return PageTable(
        key, "sizes", "Sizes: trainable parameters, changed base weights, stored bytes and peak memory.", header, rows
    )


def gain_table(key: str, table: Table, items: ItemScores) -> PageTable | None:
    """Return what training gained against the untouched model, None where no run scored it."""
    grid = gain_grid(table, items)
    if grid is None:
        return None
    rows = tuple(tuple(PageCell(text) for text in line) for line in grid.body)
    caption = "What training gained against the untouched model, on the same rows."
    return PageTable(key, "gains", caption, grid.header, rows, gain_notes(grid.body), numeric=False)


def check_table(key: str, table: Table) -> PageTable | None:
    """Return forgetting and merging of each row, None where no run measured them; a dash names its footnote."""
    cells = check_grid(table)
    if cells is None:
        return None
    rows = tuple(
        _marked([PageCell(text, order=text.split(" ")[0]) for text in texts], cells, row)
        for row, texts in enumerate(cells.body)
    )
    caption = "Forgetting and merging: loss of the backbone on general text, and change of the logits by merging."
    return PageTable(key, "checks", caption, cells.header, rows, cells.footnotes)


def variance_table(records: Iterable[RunRecord]) -> PageTable | None:
    """Return the shares of initialisation, data order and dropout, None where no study varies their seeds."""
    body, notes = variance_grid(records)
    if not notes:
        return None
    rows = tuple(tuple(PageCell(text) for text in line) for line in body)
    caption = "Where the variance between runs comes from: seeds of initialisation, data order and dropout."
    return PageTable("variance-shares", "sources of variance", caption, VARIANCE_HEADER, rows, notes, numeric=False)


def failure_table(records: Iterable[RunRecord]) -> PageTable | None:
    """Return one line for each run without a result and why, or None where all have one."""
    failures = [record for record in records if record.status != "success"]
    header = ("run", "status", "method", "task", "seed", "reason")
    rows = tuple(
        tuple(
            [
                PageCell(record.run_id, runs=(record.run_id,)),
                *map(PageCell, (record.status, method(record), _task(record), str(record.seed), reason(record))),
            ]
        )
        for record in sorted(failures, key=lambda record: (record.status, method(record), _task(record), record.seed))
    )
    return (
        PageTable("failures", "runs without a result", "Runs without a result.", header, rows, numeric=False)
        if rows
        else None
    )


def _task(record: RunRecord) -> str:
    return record.task.name if record.task else record.choices.get("task", "")


def run_header() -> tuple[str, ...]:
    """Return the columns of the table of all runs."""
    return ("run", KIND, *(name.replace("_", " ") for name in RUN_COLUMNS), "metric", "score")


def run_rows(records: Sequence[RunRecord]) -> list[list[Value]]:
    """Return one line for each run, on the metric's own scale, empty where there is no number."""
    lines: list[list[Value]] = []
    for record in sorted(records, key=lambda record: record.run_id):
        score = record.primary_score
        metric = record.task.metric_primary if record.task else None
        values = [LONG_COLUMNS[name](record) for name in RUN_COLUMNS]
        value = None if score is None or score.value is None else float(f"{score.value:.6g}")
        lines.append([record.run_id, "trial" if record.is_trial else "run", *values, metric, value])
    return lines
