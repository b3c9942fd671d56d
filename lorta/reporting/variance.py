"""Where the variance between runs comes from: a table for each method and task whose three seeds a study varies."""

from collections.abc import Iterable, Sequence

from lorta.analysis.summary import POINTS, group
from lorta.analysis.variance_shares import SeededScore, VarianceRow, variance_shares
from lorta.records.record import RunRecord
from lorta.reporting.captions import method
from lorta.reporting.markup import TextTable, markdown_table, markdown_text

NAMES = {"init": "initialisation", "order": "data order", "dropout": "dropout", "together": "together"}
HEADER = ("method and task", "source", "share", "standard deviation", "95% interval", "degrees of freedom")
NOTE = (
    "Runs whose seeds of initialisation (head and adapter), data order and dropout differ are in no table of scores. "
    "Standard deviations are in points of the metric; with few seeds they are rough."
)


def variance_grid(records: Iterable[RunRecord]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Return the lines of the table and its notes; both are empty where no run has separate seeds."""
    body: list[tuple[str, ...]] = []
    notes: list[str] = []
    for cell in _studies(records):
        name = f"{method(cell[0])}, {cell[0].task.name if cell[0].task else ''}"
        try:
            body += [(name, *_cells(row)) for row in variance_shares(_scores(cell))]
        except ValueError as error:
            notes.append(f"{name}: {error}")
    return body, (NOTE, *notes) if body or notes else ()


def variance_section(records: Iterable[RunRecord]) -> str:
    """Return a Markdown section, empty where no run has separate seeds."""
    body, notes = variance_grid(records)
    if not notes:
        return ""
    table = [*markdown_table(TextTable(HEADER, tuple(body), left=2)), ""] if body else []
    return "\n".join(
        ["## Where the variance comes from", "", *table, *(f"- {markdown_text(note)}" for note in notes), ""]
    )


def _studies(records: Iterable[RunRecord]) -> Sequence[list[RunRecord]]:
    """Return the finished runs of each cell of which some have separate seeds, by signature of the cell."""
    finished = [record for record in records if record.status == "success" and not record.is_trial]
    cells = group(sorted(finished, key=lambda record: record.run_id), lambda record: record.cell_id)
    return [cell for _, cell in sorted(cells.items()) if any(record.has_separate_seeds for record in cell)]


def _scores(cell: Sequence[RunRecord]) -> list[SeededScore]:
    scores = [(record.seeds, score.value) for record in cell if (score := record.primary_score)]
    scale = POINTS if cell[0].task is None or cell[0].task.higher_is_better else 1.0
    return [SeededScore(*seeds, value * scale) for seeds, value in scores if value is not None]


def _cells(row: VarianceRow) -> tuple[str, ...]:
    interval = "" if row.interval is None else f"{row.interval[0]:.2f} to {row.interval[1]:.2f}"
    freedom = f"{row.freedom:.1f}" if row.freedom else ""
    return NAMES[row.factor], f"{row.share:.0%}", f"{row.deviation:.2f}", interval, freedom
