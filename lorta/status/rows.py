"""What becomes of the rows of a plan's tasks: as a record says, or else as far as it is known before. No torch."""

from collections.abc import Sequence

from lorta.planning.spec import RunSpec
from lorta.records.row_counts import RowCount
from lorta.status.states import glance


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
