"""What a command asked of its runs, beside what they are: a budget of weights. In words, for plans and tables.

Two commands may mean the same run, one by its rank and one by a budget: a run's record says what the command that ran
it asked, and `as_asked` says it for the command at hand.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from lorta.harness.record import RunRecord
from lorta.harness.sections import Budget
from lorta.harness.spec import RunSpec
from lorta.harness.summary import Row

TOLERANCE = 0.1  # of a budget; a size further off is said wherever it is shown


def as_asked(record: RunRecord, spec: RunSpec) -> RunRecord:
    """Return a run's record with what this command asked for, whoever ran it."""
    return replace(record, budgets=spec.budgets)


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


def budget_sentences(specs: Iterable[RunSpec], only_off: bool) -> list[str]:
    """Return the sentences about the sizes of runs, each once, in their order."""
    named = [(str(spec.settings.adapter["name"]), budget) for spec in specs for budget in spec.budgets]
    return list(dict.fromkeys(sentence(name, budget) for name, budget in named if off(budget) or not only_off))


def size_note(row: Row) -> str | None:
    """Return what was asked of a table's row, None where its size was given as it is."""
    budgets = dict.fromkeys(budget for run in row.runs for budget in run.record.budgets)
    return "; ".join(sentence(row.label, budget) for budget in budgets) or None


def asked_columns(records: Iterable[RunRecord]) -> Mapping[str, Callable[[RunRecord], str]]:
    """Return column -> text for a table of runs; none where no record was asked for in such a way."""
    columns: dict[str, Callable[[RunRecord], str]] = {}
    if any(record.budgets for record in records):
        columns["budget_asked"] = lambda record: " ".join(str(budget.asked) for budget in record.budgets)
        columns["budget_distance"] = lambda record: " ".join(str(budget.distance) for budget in record.budgets)
    return columns
