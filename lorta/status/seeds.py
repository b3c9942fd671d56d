"""How far the questions of a study with seeds=auto are, and which seeds the open ones need. No torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from lorta.analysis.item_scores import stored_items
from lorta.analysis.questions import Answered, answer_questions
from lorta.analysis.summary import Table, summarise
from lorta.planning.planner import Plan, named_as_before
from lorta.planning.questions import label
from lorta.planning.requests import with_requests
from lorta.planning.seeds import adds_to, up_to
from lorta.planning.spec import RunSpec
from lorta.records.record import Question
from lorta.records.store import Store


def with_seeds_needed(plan: Plan) -> Plan:
    """Return the plan with all seeds that its open questions need next, as far as the records in its store tell.

    Raises ValueError for records that cannot be compared.
    """
    while adds_to(plan.specs):
        _, answered = state(plan)
        larger = _larger(plan, [of for of_table in answered for of in of_table])
        if len(larger.specs) == len(plan.specs):
            break
        plan = larger
    return plan


def state(plan: Plan) -> tuple[Sequence[Table], Sequence[Sequence[Answered]]]:
    """Return the tables of a plan's finished runs, and the answers to its questions in each."""
    store = Store(plan.specs[0].settings.runtime.runs)
    read = [(store.last(spec.run_id), spec) for spec in plan.specs]
    records = [
        with_requests(record, spec) for record, spec in read if record is not None and record.status == "success"
    ]
    tables = summarise([record for record in records if record.primary_score is not None])
    if not tables:
        return (), ()
    return tables, answer_questions(tables, plan.specs[0].questions, stored_items(records, store))


def _larger(plan: Plan, answered: Sequence[Answered]) -> Plan:
    """Return the plan with the seeds that open questions ask for; a question waits for all runs planned for it."""
    able = {spec.cell_id: spec for spec in plan.specs if spec.run_id not in plan.unsupported}
    planned = Counter(spec.cell_id for spec in plan.specs)
    counts: dict[str, int] = {}
    for of in answered:
        cells = [cell for cell, spec in able.items() if _concerns(of.question, spec)]
        if of.wanted is None or of.answer is None or of.answer.seeds < min(planned[cell] for cell in cells):
            continue
        counts |= {cell: max(counts.get(cell, 0), of.wanted) for cell in cells}
    return replace(plan, specs=named_as_before(up_to(plan.specs, counts)))


def _concerns(question: Question, spec: RunSpec) -> bool:
    asked = question.task is None or question.task == spec.settings.task["name"]
    return asked and label(spec) in (question.method, question.reference)
