"""What becomes of the rows of a plan's tasks, and which runs of a store come from other rows. No torch."""

from collections import Counter
from collections.abc import Iterable, Sequence

from lorta.planning.planner import Plan, scored_data
from lorta.planning.spec import RunSpec
from lorta.records.row_counts import RowCount
from lorta.status.states import RawRecord, glance
from lorta.system.terminal import counted


def row_lines(specs: Sequence[RunSpec]) -> list[str]:
    """Return a line for each split of each task whose rows were counted, from one run of each task, model and data."""
    first: dict[str, RunSpec] = {}
    for spec in specs:
        first.setdefault(f"{spec.settings.task['name']} {spec.settings.model.name} {spec.settings.data}", spec)
    lines: list[str] = []
    for spec in first.values():
        recorded, name = _recorded(spec), spec.settings.task["name"]
        when = "" if recorded else " (before tokenisation)"
        lines += [
            f"rows of {name}, {use}{when}: {count.in_full}" for use, count in (recorded or spec.data.counts).items()
        ]
    return list(dict.fromkeys(lines))


def _recorded(spec: RunSpec) -> dict[str, RowCount]:
    record = glance(spec.folder)
    splits = (record and record.get("task", "splits")) or {}
    read = {use: split for use, split in splits.items() if split.get("read") is not None}
    told = {use: [split.get(name) or {} for name in ("dropped", "noted")] for use, split in read.items()}
    return {use: RowCount(split["read"], *told[use]) for use, split in read.items()}


def other_rows_sentences(plan: Plan, there: Iterable[RawRecord]) -> list[str]:
    """Return a sentence for each task of which a store has results on other rows: no table can show both."""
    planned, others = scored_data(plan.specs), Counter[str]()
    for record in there:
        task = record.get("task", "name")
        prints = planned.get((task, record.get("model", "name")))
        known = record.scored_split.get("fingerprint")
        if prints and known and known not in prints and record.get("status") == "success" and not record.is_trial:
            others[task] += 1
    store = plan.runs[0].settings.runtime.runs
    return [
        f"{store} has {counted(number, 'run')} of task={task} from other files than these, and no column can "
        f"hold both: give these rows a store of their own (runtime.runs={store}-2), or, if they are corrected ones, "
        f"remove those runs first (lorta rm task={task})"
        for task, number in others.items()
    ]
