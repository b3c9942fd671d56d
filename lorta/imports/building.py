"""One record from what both formats say of a run, and records into a store, all of them or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lorta.config import identity
from lorta.records.canonical import sha256
from lorta.records.record import (
    AdapterSection,
    Imported,
    ModelSection,
    ProtocolSection,
    RunRecord,
    Score,
    Split,
    TaskSection,
    Timing,
)
from lorta.records.sections import Parameters, Source, Status, Storage
from lorta.records.store import Store

NOT_SAID = "the source of the imported run does not say it"
Rows = Sequence[Mapping[str, Any]]


class ImportedRun(NamedTuple):
    """A record and the rows of its side files: predictions and history, both optional."""

    record: RunRecord
    rows: Mapping[str, Rows]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a source says of one run; None where it does not."""

    imported: Imported
    adapter: str
    rank: int | None = None
    learning_rate: float | None = None
    settings: Mapping[str, Any]  # the method's own, and those of its training
    task: str
    data_source: Source
    data_revision: str
    data_fingerprint: str
    split: str
    metric: str
    higher_is_better: bool = True
    metrics: Mapping[str, Score]
    scored: int
    most_scored: int | None = None
    model: str
    model_id: str
    model_revision: str | None = None
    dtype: str
    parameters_total: int | None = None
    parameters: Parameters | None = None
    adapter_bytes: int | None = None
    max_steps: int | None = None
    seed: int
    created_at: str
    ended_at: str
    time: Timing
    machine: str  # what its seconds depend on
    status: Status = "success"
    reason: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])


def build(facts: Facts) -> RunRecord:
    """Return the record. Its configuration has a group of its own, so that no run of a sweep has its signature."""
    config = _config(facts)
    unknown = {"code": "the run was not made here", "environment": NOT_SAID, "hardware": NOT_SAID}
    absent = {} if facts.parameters else {"params": NOT_SAID}
    return RunRecord(
        identity_version=identity.VERSION,
        run_id=identity.run_id(config),
        cell_id=identity.cell_id(config),
        config_hash=sha256(identity.identity(config)),
        status=facts.status,
        created_at=facts.created_at,
        started_at=facts.created_at,
        ended_at=facts.ended_at,
        seed=facts.seed,
        config=config,
        overrides=(),
        choices={},
        reason=facts.reason,
        adapter=AdapterSection(
            name=facts.adapter,
            rank=facts.rank,
            projections=None,
            learning_rate=facts.learning_rate,
            head_learning_rate=None,
            settings=dict(facts.settings),
        ),
        task=_task(facts),
        model=_model(facts),
        protocol=ProtocolSection(selection="last", tuned=False, epochs=None, max_steps=facts.max_steps),
        params=facts.parameters,
        storage=None if facts.adapter_bytes is None else Storage(adapter_bytes=facts.adapter_bytes),
        time=facts.time,
        metrics={facts.split: dict(facts.metrics)} if facts.metrics else None,
        env_fingerprint=sha256(facts.machine)[:12],
        imported=facts.imported,
        reasons={**unknown, **absent, **facts.reasons},
    )


def _config(facts: Facts) -> dict[str, Any]:
    source = facts.imported
    described = {
        "format": source.format,
        "name": source.name,
        "protocol": {**source.protocol, **source.task_protocol},
        "settings": dict(facts.settings),
        "adapter": facts.adapter,
        "task": facts.task,
        "metric": facts.metric,
    }
    return {"imported": described, "model": {"name": facts.model}, "seed": facts.seed}


def _task(facts: Facts) -> TaskSection:
    return TaskSection(
        name=facts.task,
        protocol=1,  # of this import; the source's own is in the section `imported`
        source=facts.data_source,
        revision=facts.data_revision,
        splits={facts.split: Split(rows=facts.scored, fingerprint=facts.data_fingerprint)},
        split_primary=facts.split,
        metric_primary=facts.metric,
        higher_is_better=facts.higher_is_better,
        test_is_validation=False,
        max_train_samples=None,
        max_eval_samples=facts.most_scored,
    )


def _model(facts: Facts) -> ModelSection:
    return ModelSection(
        name=facts.model,
        id=facts.model_id,
        revision=facts.model_revision,
        dtype=facts.dtype,
        parameters_total=facts.parameters_total,
        tokenizer_sha256=None,
        padding_side=None,
        pad_token_id=None,
    )


def into_store(runs: Sequence[ImportedRun], store: Store) -> tuple[int, int]:
    """Write the runs to a store; return how many are new and how many were there before.

    Raises ValueError, with nothing written, for two runs of the same settings and seed that come from different files.
    """
    new: dict[str, ImportedRun] = {}
    before = 0
    for run in runs:
        record = run.record
        other = store.read(record.run_id) or (new[record.run_id].record if record.run_id in new else None)
        if other is None:
            new[record.run_id] = run
        elif other.imported == record.imported:
            before += 1
        else:
            raise _second(record, other, store.root)
    for record, rows in new.values():
        store.finish(record, rows)
    return len(new), before


def _second(record: RunRecord, other: RunRecord, root: Path) -> ValueError:
    file, earlier = (", ".join(one.imported.files) if one.imported else "a run" for one in (record, other))
    name = record.imported.name if record.imported else record.run_id
    return ValueError(
        f"{file}: {name} with seed {record.seed} is in {root} or in this import already, from other bytes ({earlier}): "
        f"give --seed, import into a store of its own with --runs, or remove that one: lorta rm id={record.run_id}"
    )
