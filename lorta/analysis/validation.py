"""Which records may stand in a committed suite or beside a published number: whole, clean, and of one protocol."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lorta.analysis.summary import group
from lorta.config import identity
from lorta.records.canonical import sha256
from lorta.records.record import RunRecord
from lorta.records.sections import Failure
from lorta.system.provenance import UNKNOWN_CODE

SHOWN = 5  # problems in one message


def refuse_untrusted(records: Iterable[RunRecord], source: str, uncommitted: bool = False) -> None:
    """Raise ValueError, a line a problem, for records whose hashes, code or protocols forbid to trust or mix them.

    `uncommitted` lets runs of uncommitted code pass, for tables that say so.
    """
    if problems := validation_problems(records, uncommitted):
        raise ValueError("\n".join(f"{source}: {problem}" for problem in problems))


def without_score_failed(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the records, a success that lacks its own primary metric as a failure: it is listed, and in no table."""
    return [
        _failed(record) if record.status == "success" and not record.primary_score else record for record in records
    ]


def _failed(record: RunRecord) -> RunRecord:
    metric = record.task.metric_primary if record.task else "metric"
    message = f"the record has no {metric}, its primary metric; correct task.primary and run it again"
    failure = Failure(kind="bug", type="ValueError", message=message, phase="eval")
    return replace(record, status="failed", failure=failure)


def validation_problems(records: Iterable[RunRecord], uncommitted: bool = False) -> list[str]:
    """Return a sentence for each problem, the first few of many."""
    given = list(records)
    problems = [problem for record in given for problem in _problems(record, uncommitted)]
    problems += _mixed_protocols(given) + _mixed_origins(given)
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return [*problems[:SHOWN], *more]


def _problems(record: RunRecord, uncommitted: bool) -> list[str]:
    problems: list[str] = []
    cell = {key: value for key, value in record.config.items() if key not in identity.SEEDS}
    run_hash, cell_hash = (_hash(record, part) for part in (record.config, cell))
    if record.config_hash != run_hash or record.run_id != run_hash[:12]:
        problems.append(
            f"record {record.run_id} says config_hash {record.config_hash[:12]}..., but its config hashes to "
            f"{run_hash[:12]}...: it was changed after the run; run it again."
        )
    if record.config.get("seed") != record.seed or cell_hash[:12] != record.cell_id:
        problems.append(f"record {record.run_id} has a seed or cell_id that its config does not have; run it again.")
    if record.code is not None and record.code.git_dirty and not uncommitted:
        problems.append(
            f"record {record.run_id} comes from code with uncommitted changes; commit them and run it again with "
            "runtime.force=true, or make a table for yourself with --uncommitted."
        )
    unknown = record.reasons.get("code.git_sha", "")
    if record.code is not None and unknown.startswith(UNKNOWN_CODE) and not uncommitted:
        problems.append(
            f"record {record.run_id} comes from {unknown}; run it again from a clone, or make a table for yourself "
            "with --uncommitted."
        )
    return problems


def _hash(record: RunRecord, config: dict[str, Any]) -> str:
    """Return the hash of a configuration by the rules of the record's time."""
    return sha256(config if record.identity_version == 1 else identity.identity(config))


def _mixed_protocols(records: Iterable[RunRecord]) -> list[str]:
    own = [record for record in records if record.imported is None]  # imported ones of two protocols share no table
    known = [(record.task.name, record.task.protocol) for record in own if record.task is not None]
    numbers = {task: sorted({protocol for _, protocol in of_task}) for task, of_task in group(known, _task).items()}
    return [
        f"the records of {task} have the protocols {' and '.join(map(str, listed))}, whose numbers cannot be "
        "compared; keep one of them."
        for task, listed in sorted(numbers.items())
        if len(listed) > 1
    ]


def _mixed_origins(records: Sequence[RunRecord]) -> list[str]:
    imported = sum(record.imported is not None for record in records)
    if imported in (0, len(records)):
        return []
    own = len(records) - imported
    return [f"{imported} imported records stand beside {own} that were made here; import into a store of their own."]


def _task(item: tuple[str, int]) -> str:
    return item[0]
