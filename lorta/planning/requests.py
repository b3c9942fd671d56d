"""What a command requested: parameter budgets and learning-rate searches, as sentences for plans and tables.

Two commands can mean the same run, one with `rank=`, one with `budget=`. A record holds the request of the command that
ran it; `with_requests` replaces it with the request of the current command.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from lorta.planning.spec import RunSpec
from lorta.records.record import RunRecord
from lorta.records.sections import Budget

if TYPE_CHECKING:
    from lorta.planning.planner import Plan

TOLERANCE = 0.1  # of a budget; a size further off is said wherever it is shown


def with_requests(record: RunRecord, spec: RunSpec) -> RunRecord:
    """Return a run's record with what this command asked for, whoever ran it."""
    protocol = record.protocol and replace(record.protocol, tuned=spec.rate_was_searched)
    return replace(record, budgets=spec.budgets, tuning=spec.tuned, questions=spec.questions, protocol=protocol)


def off(budget: Budget) -> bool:
    """Return whether the size misses what was asked by more than the tolerance, or is not known."""
    return budget.distance is None or abs(budget.distance) > TOLERANCE


def sentence(name: str, budget: Budget) -> str:
    """Return the requested and the actual number of parameters of a method."""
    if budget.achieved is None or budget.distance is None:
        return f"{name}: requested {budget.asked:,}; its parameter count has no closed form, so no size was matched"
    size = parts(budget)
    how = f"the method has a single size on this model, {size}"
    if budget.key is not None:
        how = f"{budget.key.rpartition('.')[2]}={budget.value} gives {size}"
    far = f", more than {TOLERANCE:.0%} off" if off(budget) else ""
    return f"{name}: requested {budget.asked:,}; {how} ({budget.distance:+.1%}{far})"


def parts(budget: Budget) -> str:
    """Return the size that was matched, and of what it is the sum where the method trains more than its own weights."""
    assert budget.achieved is not None
    if not budget.other:
        return f"{budget.achieved:,}"
    return f"{budget.achieved:,} = {budget.achieved - budget.other:,} of the adapter + {budget.other:,} other trainable"


def budget_sentences(plan: "Plan", only_off: bool) -> list[str]:
    """Return the sentences about the sizes of runs that can be done, each once, in their order."""
    specs = [spec for spec in plan.runs if spec.run_id not in plan.unsupported]
    named = [(str(spec.settings.adapter["name"]), budget) for spec in specs for budget in spec.budgets]
    return list(dict.fromkeys(sentence(name, budget) for name, budget in named if off(budget) or not only_off))


def waiting_sentences(plan: "Plan") -> list[str]:
    """Return which runs have no rate yet, and why, each method and task once."""
    counts: dict[str, int] = {}
    for spec, why in plan.waiting:
        rank = spec.settings.adapter.get("rank")
        name = f"{spec.settings.adapter['name']}{'' if rank is None else f' r={rank}'} {spec.settings.task['name']}"
        counts[f"{name}: {why}"] = counts.get(f"{name}: {why}", 0) + 1
    return [f"waiting: {count} run{'s' if count > 1 else ''} of {sentence}" for sentence, count in counts.items()]
