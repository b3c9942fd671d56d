"""Which records may stand in a committed suite or beside a published number: whole, clean, and of one protocol."""

import hashlib
from collections.abc import Iterable

from lorta.harness.record import RunRecord
from lorta.harness.spec import canonical_json
from lorta.harness.summary import group

SHOWN = 5  # problems in one message


def refuse_untrusted(records: Iterable[RunRecord], source: str) -> None:
    """Raise ValueError, a line a problem, for records whose hashes, code or protocols forbid to trust or mix them."""
    if problems := distrust(records):
        raise ValueError("\n".join(f"{source}: {problem}" for problem in problems))


def distrust(records: Iterable[RunRecord]) -> list[str]:
    """Return a sentence for each problem, the first few of many."""
    found = list(records)
    problems = [problem for record in found for problem in _problems(record)] + _mixed_protocols(found)
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return [*problems[:SHOWN], *more]


def _problems(record: RunRecord) -> list[str]:
    found: list[str] = []
    expected = hashlib.sha256(canonical_json(record.config).encode()).hexdigest()
    if record.config_hash != expected or record.run_id != expected[:12]:
        found.append(
            f"record {record.run_id} says config_hash {record.config_hash[:12]}..., but its config hashes to "
            f"{expected[:12]}...: it was changed after the run; run it again."
        )
    cell = {key: value for key, value in record.config.items() if key != "seed"}
    if record.config.get("seed") != record.seed or _hash(cell) != record.cell_id:
        found.append(f"record {record.run_id} has a seed or cell_id that its config does not have; run it again.")
    if record.code is not None and record.code.git_dirty:
        found.append(f"record {record.run_id} comes from code with uncommitted changes; commit them and run it again.")
    return found


def _hash(cell: dict[str, object]) -> str:
    return hashlib.sha256(canonical_json(cell).encode()).hexdigest()[:12]


def _mixed_protocols(records: Iterable[RunRecord]) -> list[str]:
    known = [(record.task.name, record.task.protocol) for record in records if record.task is not None]
    numbers = {task: sorted({protocol for _, protocol in of_task}) for task, of_task in group(known, _task).items()}
    return [
        f"the records of {task} have the protocols {' and '.join(map(str, found))}, whose numbers cannot be compared; "
        "keep one of them."
        for task, found in sorted(numbers.items())
        if len(found) > 1
    ]


def _task(item: tuple[str, int]) -> str:
    return item[0]
