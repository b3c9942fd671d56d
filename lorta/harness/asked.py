"""What a command asked of its runs, beside what they are: budgets, searches of rates. In words, for plans and tables.

Two commands may mean the same run, one by its rank and one by a budget: a run's record says what the command that ran
it asked, and `as_asked` says it for the command at hand.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lorta.harness.record import RunRecord
from lorta.harness.sections import Budget
from lorta.harness.spec import RunSpec
from lorta.harness.summary import Row, Table

if TYPE_CHECKING:
    from lorta.harness.sweep import Plan

TOLERANCE = 0.1  # of a budget; a size further off is said wherever it is shown


def as_asked(record: RunRecord, spec: RunSpec) -> RunRecord:
    """Return a run's record with what this command asked for, whoever ran it."""
    protocol = record.protocol and replace(record.protocol, tuned=spec.rate_was_searched)
    return replace(record, budgets=spec.budgets, tuning=spec.tuned, protocol=protocol)


def off(budget: Budget) -> bool:
    """Return whether the size misses what was asked by more than the tolerance, or is not known."""
    return budget.distance is None or abs(budget.distance) > TOLERANCE


def sentence(name: str, budget: Budget) -> str:
    """Return what was asked of a method, and what it has."""
    if budget.achieved is None or budget.distance is None:
        return f"{name}: asked {budget.asked:,}; its count has no closed form, so nothing was matched"
    how = f"has one size on this model, {budget.achieved:,}"
    if budget.key is not None:
        how = f"{budget.key.rpartition('.')[2]}={budget.value} gives {budget.achieved:,}"
    far = f", more than {TOLERANCE:.0%} off" if off(budget) else ""
    return f"{name}: asked {budget.asked:,}; {how} ({budget.distance:+.1%}{far})"


def budget_sentences(plan: "Plan", only_off: bool) -> list[str]:
    """Return the sentences about the sizes of runs that can be done, each once, in their order."""
    specs = [spec for spec in plan.runs if spec.run_id not in plan.unsupported]
    named = [(str(spec.settings.adapter["name"]), budget) for spec in specs for budget in spec.budgets]
    return list(dict.fromkeys(sentence(name, budget) for name, budget in named if off(budget) or not only_off))


def waiting_sentences(plan: "Plan") -> list[str]:
    """Return which runs have no rate yet, and why, each method and task once."""
    found: dict[str, int] = {}
    for spec, why in plan.waiting:
        rank = spec.settings.adapter.get("rank")
        name = f"{spec.settings.adapter['name']}{'' if rank is None else f' r={rank}'} {spec.settings.task['name']}"
        found[f"{name}: {why}"] = found.get(f"{name}: {why}", 0) + 1
    return [f"waiting: {count} run{'s' if count > 1 else ''} of {sentence}" for sentence, count in found.items()]


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
