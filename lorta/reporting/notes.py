"""What a table says of sizes that were asked for and of learning rates that were searched."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lorta.analysis.summary import Row, Table
from lorta.records.record import RunRecord

if TYPE_CHECKING:
    pass

from lorta.planning.requests import sentence


def size_note(row: Row) -> str | None:
    """Return what was asked of a table's row, None where its size was given as it is."""
    budgets = dict.fromkeys(budget for run in row.runs for budget in run.record.budgets)
    return "; ".join(sentence(row.label, budget) for budget in budgets) or None


def edge_note(row: Row, task: str) -> str | None:
    """Return that a task's rate lies on the edge of what was searched, None where none does."""
    found = dict.fromkeys(run.record.tuning for run in row.runs if run.task.name == task)
    edges = [(tuning.chosen, tuning.grid[0]) for tuning in found if tuning and tuning.on_edge]
    notes = [f"its rate {chosen:g} is the {'lowest' if chosen == low else 'highest'} tried" for chosen, low in edges]
    return f"{row.label}, {task}: {'; '.join(notes)}" if notes else None


def search_sentence(table: Table) -> str:
    """Return what the searches of a table's rates cost, empty where none was searched."""
    found = [tuning for tuning in dict.fromkeys(run.record.tuning for run in table.runs) if tuning]
    if not found:
        return ""
    trials = sorted({len(tuning.trials) for tuning in found})
    rows = sorted({tuning.hold_out for tuning in found})
    every = "every cell" if all(run.record.tuning for run in table.runs) else "some cells"
    edges = sum(tuning.on_edge for tuning in found)
    return (
        f"Rates of {every} were searched: {_either(trials)} trials each, on {_either(rows)} rows held out of the "
        f"training data; {edges} of {len(found)} chosen rates are the lowest or the highest tried."
    )


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))


def asked_columns(records: Sequence[RunRecord]) -> Mapping[str, Callable[[RunRecord], str]]:
    """Return column -> text for a table of runs; none where no record was asked for in such a way."""
    columns: dict[str, Callable[[RunRecord], str]] = {}
    if any(record.budgets for record in records):
        columns["budget_asked"] = lambda record: " ".join(str(budget.asked) for budget in record.budgets)
        columns["budget_distance"] = lambda record: " ".join(str(budget.distance) for budget in record.budgets)
    if any(record.tuning for record in records):
        columns["tuning_grid"] = lambda record: _listed(record.tuning and record.tuning.grid)
        columns["tuning_scores"] = lambda record: _listed(record.tuning and record.tuning.scores)
        columns["tuning_trials"] = lambda record: str(len(record.tuning.trials)) if record.tuning else ""
        columns["tuning_on_edge"] = lambda record: str(record.tuning.on_edge) if record.tuning else ""
    return columns


def _listed(values: Iterable[float | None] | None) -> str:
    return " ".join(str(value) for value in values or ())
